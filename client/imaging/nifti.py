# SPDX-License-Identifier: Apache-2.0
"""A NIfTI volume (https://nifti.nimh.nih.gov/nifti-1) as images: axial slices from the feet to the head, each as a reader looks at it.

NIfTI says nothing of whose it is, so the patient stands in the folder's `index.csv`; nor of a modality or a window: the plan's window is
taken, in the file's scaled units, or else what lies between the lowest and the highest value of the volume. [input] frames says which
slices become images, as for a DICOM file of many frames. NIfTI's axes point right, forwards and up (RAS); each slice is turned to run left
and backwards, which is what `geometry` calls canonical. Where a volume was resampled, what lay outside is often no number (NaN): nothing
was measured there, and like DICOM's padding it is black.

A mask is a volume of its own, on the same grid: as many voxels along each axis, lying in the same place. Its slices are turned alike.
"""

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.imaging import dicom, sample
from client.imaging.intensity import to_unit
from client.imaging.pictures import Grid, Tap, in_black_and_white
from client.imaging.pixels import LARGEST_IMAGE, MOST_FRAMES
from client.imaging.rejection import Reason, Rejected
from client.imaging.sample import Sample
from common.plan import InputSpec

GZIP = b"\x1f\x8b"
MAGICS = {344: (b"n+1\0", b"ni1\0"), 4: (b"n+2\0", b"ni2\0")}
HEADER_BYTES = 540
LARGEST_VOLUME = 1 << 30  # bytes, unpacked
MOST_CLASSES = 2**16

Slices = Iterator[tuple[float, Sample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A file as it lies, and its voxels in RAS order, (right, forward, up)."""

    stored: Any
    ras: Any

    @property
    def grid(self) -> Grid:
        """Voxels along each axis of the file, and where they lie: its affine, row by row."""
        return (*map(float, self.stored.shape), *(float(each) for row in self.stored.affine[:3] for each in row))

    @property
    def slices(self) -> int:
        return int(self.ras.shape[2])

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """From voxel to voxel: right, forwards, up."""
        right, forward, up = map(float, self.ras.header.get_zooms()[:3])
        return right, forward, up


def is_nifti(content: bytes) -> bool:
    """By its magic number, packed or not."""
    start = content[:HEADER_BYTES]
    if start.startswith(GZIP):
        try:
            start = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(content[: 1 << 16], HEADER_BYTES)
        except zlib.error:
            return False
    return any(start[at : at + 4] in magics for at, magics in MAGICS.items())


def count(content: bytes, spec: InputSpec) -> int:
    """How many images the volume gives at most. Raises: Rejected."""
    return len(wanted(open_volume(content), spec))


def wanted(volume: Volume, spec: InputSpec) -> Sequence[int]:
    """Which slices become images. Raises: Rejected(MULTIFRAME)."""
    return dicom.frames_of(volume.slices, spec.frames)


def samples(volume: Volume, spec: InputSpec, *, tap: Tap | None = None) -> Slices:
    """The wanted slices as the plan's input, from the feet to the head. Raises: Rejected with a reason about pixels or geometry."""
    if tap is not None:
        tap(_stored(volume))
    chosen = wanted(volume, spec)
    values = _values(volume, np.float32)
    unmeasured = np.isnan(values)
    has_unmeasured = bool(unmeasured.any())
    if np.isinf(values).any():
        raise Rejected(Reason.PIXEL_FORMAT)
    if has_unmeasured and unmeasured.all():
        raise Rejected(Reason.CONSTANT)
    full_range = (float(np.nanmin(values)), float(np.nanmax(values)))
    if full_range[0] == full_range[1]:
        raise Rejected(Reason.CONSTANT)
    right_mm, forward_mm, up_mm = volume.spacing_mm
    kept = 0
    for number in chosen:
        padding = _looked_at(unmeasured, number) if has_unmeasured else None
        plane = _looked_at(values, number)
        if padding is not None:
            plane[padding] = full_range[0]
        try:
            unit = to_unit(plane, plan=spec.window, voi=None, full_range=full_range, inverted=False, padding=padding)
        except Rejected as rejected:
            if spec.frames == "each" and rejected.reason is Reason.CONSTANT:
                continue  # air above the head
            raise
        fitted = sample.fit(unit, spec) if spec.spacing_mm is None else sample.fit_spaced(unit, spec, (forward_mm, right_mm))
        kept += 1
        yield _place(number, up_mm), fitted
    if not kept:
        raise Rejected(Reason.CONSTANT)


def masks(volume: Volume, spec: InputSpec) -> Slices:
    """The wanted slices as classes, (1, H, W) each: every one, marked or not. Raises: Rejected, PIXEL_FORMAT among others."""
    chosen = wanted(volume, spec)
    values = _values(volume, np.float32)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() >= MOST_CLASSES or (values != np.rint(values)).any():
        raise Rejected(Reason.PIXEL_FORMAT)
    classes = in_black_and_white(values.astype(np.uint16))
    right_mm, forward_mm, up_mm = volume.spacing_mm
    for number in chosen:
        yield _place(number, up_mm), sample.fit_classes(_looked_at(classes, number), spec, (forward_mm, right_mm))[np.newaxis]


def _looked_at(values: NDArray[Any], number: int) -> NDArray[Any]:
    """One slice as a reader sees it: to the left across, to the back down."""
    return np.ascontiguousarray(values[::-1, ::-1, number].T)


def _place(number: int, up_mm: float) -> float:
    return round(number * up_mm, 3)


def _values(volume: Volume, dtype: Any) -> NDArray[Any]:
    """Scaled values in RAS order. Raises: Rejected."""
    try:
        return np.asanyarray(volume.ras.dataobj, dtype=dtype)
    except MemoryError as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except Exception as error:
        raise Rejected(Reason.UNDECODABLE) from error


def _stored(volume: Volume) -> NDArray[Any]:
    """What the file stores, unscaled and in its own order, first axis fastest: seen as (.., Z, Y, X) its bytes are the file's.

    Raises: Rejected.
    """
    try:
        return np.asarray(volume.stored.dataobj.get_unscaled()).T
    except MemoryError as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except Exception as error:
        raise Rejected(Reason.UNDECODABLE) from error


def open_volume(content: bytes) -> Volume:
    """Raises: Rejected with a reason about what the header says."""
    import nibabel  # a quarter of a second, for folders of one kind

    try:
        if content.startswith(GZIP):
            with gzip.open(BytesIO(content)) as file:
                content = file.read(LARGEST_VOLUME + 1)
        if len(content) > LARGEST_VOLUME:
            raise Rejected(Reason.TOO_LARGE)
        build: Any = nibabel.Nifti1Image if content[344:348] in MAGICS[344] else nibabel.Nifti2Image
        stored = build.from_bytes(content)
        if len(stored.shape) > 3 and set(stored.shape[3:]) == {1}:
            stored = build(stored.dataobj.reshape(stored.shape[:3]), stored.affine, stored.header)
        if len(stored.shape) == 2 or stored.dataobj.dtype.kind not in "iuf":
            raise Rejected(Reason.PIXEL_FORMAT)
        if len(stored.shape) > 3:
            raise Rejected(Reason.VOLUMES)
        if stored.shape[0] * stored.shape[1] > LARGEST_IMAGE or max(stored.shape) > MOST_FRAMES or min(stored.shape) < 1:
            raise Rejected(Reason.TOO_LARGE)
        if stored.dataobj.offset + math.prod(map(int, stored.shape)) * stored.dataobj.dtype.itemsize > len(content):
            raise Rejected(Reason.TRUNCATED)  # or else a slot would be kept free for each slice that is claimed
        ras = nibabel.as_closest_canonical(stored)  # type: ignore[no-untyped-call] # nibabel's own functions are not annotated
        return Volume(stored=stored, ras=ras)
    except Rejected:
        raise
    except MemoryError as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except Exception as error:  # nibabel raises many kinds on a damaged header
        raise Rejected(Reason.UNDECODABLE) from error

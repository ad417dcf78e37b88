# SPDX-License-Identifier: Apache-2.0
"""A NIfTI volume (https://nifti.nimh.nih.gov/nifti-1) as images: axial slices from the feet to the head, each as a reader looks at it.

NIfTI says nothing of whose it is, so the patient stands in the folder's `index.csv`; nor of a modality or a window: the plan's window is
taken, in the file's scaled units, or else what lies between the lowest and the highest value of the volume. [input] frames says which
slices become images, as for a DICOM file of many frames. NIfTI's axes point right, forwards and up (RAS); each slice is turned to run left
and backwards, which is what `geometry` calls canonical.
"""

import gzip
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np

from client.imaging import dicom, sample
from client.imaging.intensity import to_unit
from client.imaging.pixels import LARGEST_IMAGE
from client.imaging.rejection import Reason, Rejected
from client.imaging.sample import Sample
from common.plan import InputSpec

GZIP = b"\x1f\x8b"
MAGICS = {344: (b"n+1\0", b"ni1\0"), 4: (b"n+2\0", b"ni2\0")}
HEADER_BYTES = 540
LARGEST_VOLUME = 1 << 30  # bytes, unpacked


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
    return len(dicom.frames_of(_open(content).shape[2], spec.frames))


def samples(content: bytes, spec: InputSpec) -> Iterator[tuple[float | None, Sample]]:
    """The wanted slices as the plan's input, from the feet to the head. Raises: Rejected with a reason about pixels or geometry."""
    volume = _open(content)
    chosen = dicom.frames_of(volume.shape[2], spec.frames)
    try:
        values = np.asanyarray(volume.dataobj, dtype=np.float32)
        right_mm, forward_mm, up_mm = map(float, volume.header.get_zooms()[:3])
    except MemoryError as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except Exception as error:
        raise Rejected(Reason.UNDECODABLE) from error
    if not np.isfinite(values).all():
        raise Rejected(Reason.PIXEL_FORMAT)
    full_range = (float(values.min()), float(values.max()))
    if full_range[0] == full_range[1]:
        raise Rejected(Reason.CONSTANT)
    kept = 0
    for number in chosen:
        plane = np.ascontiguousarray(values[::-1, ::-1, number].T)  # to left across, to back down
        try:
            unit = to_unit(plane, plan=spec.window, voi=None, full_range=full_range, inverted=False)
        except Rejected as rejected:
            if spec.frames == "each" and rejected.reason is Reason.CONSTANT:
                continue  # air above the head
            raise
        fitted = sample.fit(unit, spec) if spec.spacing_mm is None else sample.fit_spaced(unit, spec, (forward_mm, right_mm))
        kept += 1
        yield round(number * up_mm, 3), fitted
    if not kept:
        raise Rejected(Reason.CONSTANT)


def _open(content: bytes) -> Any:
    """The volume, in RAS order. Nothing is scaled or copied yet."""
    import nibabel  # a quarter of a second, for folders of one kind

    try:
        if content.startswith(GZIP):
            with gzip.open(BytesIO(content)) as file:
                content = file.read(LARGEST_VOLUME + 1)
        if len(content) > LARGEST_VOLUME:
            raise Rejected(Reason.TOO_LARGE)
        kind = nibabel.Nifti1Image if content[344:348] in MAGICS[344] else nibabel.Nifti2Image
        volume: Any = kind.from_bytes(content)
        shape = volume.shape
        if len(shape) == 4 and shape[3] == 1:
            volume = volume.slicer[..., 0]
        if len(volume.shape) == 2 or volume.dataobj.dtype.kind not in "iuf":
            raise Rejected(Reason.PIXEL_FORMAT)
        if len(volume.shape) > 3:
            raise Rejected(Reason.MULTIFRAME)
        if volume.shape[0] * volume.shape[1] > LARGEST_IMAGE or min(volume.shape) < 1:
            raise Rejected(Reason.TOO_LARGE)
        return nibabel.as_closest_canonical(volume)  # type: ignore[no-untyped-call] # nibabel's own functions are not annotated
    except Rejected:
        raise
    except MemoryError as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except Exception as error:  # nibabel raises many kinds on a damaged header
        raise Rejected(Reason.UNDECODABLE) from error

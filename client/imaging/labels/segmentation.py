# SPDX-License-Identifier: Apache-2.0
"""A segmentation (DICOM SEG) as which segment is seen in which image, and as masks. Runs in the limited child process.

A stored frame belongs to a segment (or, in a label map, holds the numbers of several) and names the images that it was drawn on. It lies on
an image's own pixels only if it says so (Spatial Locations Preserved), or has the image's geometry; otherwise it may still say that
something is there, and is no mask. A fractional segment is there from one half on.

A segmentation that names no source images frame by frame is not guessed at by position in space.
"""

import zlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
import pydicom
from highdicom import seg
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset

from client.imaging.frame_groups import attributes_of
from client.imaging.geometry import Geometry, geometry_of
from client.imaging.pixels import LARGEST_IMAGE
from client.imaging.rejection import Reason, Rejected

LABEL_MAP: Final = "1.2.840.10008.5.1.4.1.1.66.7"  # Label Map Segmentation Storage; pydicom 3.0 has no name for it
CLASSES: Final = frozenset({uid.SegmentationStorage, LABEL_MAP})
MOST_FRAMES = 100_000

Mask = NDArray[np.bool_]  # (Y, X)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One stored frame of one segment: where it was drawn, and the pixels. `on_grid`: it says that it lies on the image's own pixels."""

    frame: int  # from 1, as others refer to it
    segment: int
    sources: tuple[tuple[str, int | None], ...]  # SOP instance, frame
    mask: Mask
    on_grid: bool
    plane: Geometry | None


def read(dataset: Dataset) -> dict[str, Any]:
    """Segments with their codes; for each stored frame its segment, how many pixels it has and what it was drawn on.

    Raises: Rejected, if it does not hold together or decode.
    """
    segmentation = parse(dataset)
    return {
        "segments": _segments(segmentation),
        "frames": [[drawn.frame, drawn.segment, int(drawn.mask.sum()), list(drawn.sources)] for drawn in frames(segmentation)],
        "evidence": sorted({str(instance) for _, _, instance in segmentation.get_source_image_uids()}),
    }


def draw(content: bytes) -> dict[str, Any]:
    """Segments with their codes, and every frame's mask, packed: eight pixels a byte, then zlib, then base64. Raises: Rejected."""
    try:
        dataset = pydicom.dcmread(BytesIO(content))
    except Exception as error:
        raise Rejected(Reason.HEADER) from error
    segmentation = parse(dataset)
    return {
        "segments": _segments(segmentation),
        "date": moment_of(dataset),
        "drawings": [
            {
                "segment": drawn.segment,
                "sources": list(drawn.sources),
                "shape": list(drawn.mask.shape),
                "on_grid": drawn.on_grid,
                "plane": None if drawn.plane is None else asdict(drawn.plane),
                "bits": b64encode(zlib.compress(np.packbits(drawn.mask).tobytes())).decode("ascii"),
            }
            for drawn in frames(segmentation)
            if drawn.mask.any()
        ],
    }


def moment_of(dataset: Dataset) -> str:
    """When a document was made: the day, or to the second where there is a time, as digits; nothing without a date."""
    day, time = str(dataset.get("ContentDate") or ""), str(dataset.get("ContentTime") or "")
    if not (day.isdigit() and len(day) == 8):
        return ""
    return day + time[:6] if time[:6].isdigit() and len(time) >= 6 else day


def _segments(segmentation: seg.Segmentation) -> dict[str, list[str]]:
    kinds = {number: segmentation.get_segment_description(number).segmented_property_type for number in segmentation.segment_numbers}
    return {str(number): [str(kind.scheme_designator), str(kind.value)] for number, kind in kinds.items()}


def parse(dataset: Dataset) -> seg.Segmentation:
    """Raises: Rejected."""
    if int(dataset.Rows) * int(dataset.Columns) > LARGEST_IMAGE or int(dataset.get("NumberOfFrames") or 1) > MOST_FRAMES:
        raise Rejected(Reason.TOO_LARGE)
    try:
        return seg.Segmentation.from_dataset(dataset, copy=False)
    except Exception as error:  # highdicom checks what the standard demands, and says so in many kinds of exception
        raise Rejected(Reason.HEADER) from error


def frames(segmentation: seg.Segmentation) -> Iterator[Drawn]:
    """Each stored frame of each segment, in the order of the file. Raises: Rejected, if pixels do not decode."""
    shared = (segmentation.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    groups = segmentation.get("PerFrameFunctionalGroupsSequence") or []
    for index in range(segmentation.number_of_frames):
        own = groups[index] if index < len(groups) else Dataset()
        sources, on_grid = _sources(own, shared)
        plane = _plane(segmentation, index)
        for segment, mask in _masks(segmentation, index, own, shared):
            yield Drawn(frame=index + 1, segment=segment, sources=sources, mask=mask, on_grid=on_grid, plane=plane)


def _masks(segmentation: seg.Segmentation, index: int, own: Dataset, shared: Dataset) -> Iterator[tuple[int, Mask]]:
    try:
        values = segmentation.get_stored_frame(index + 1)
    except Exception as error:
        raise Rejected(Reason.UNDECODABLE) from error
    match segmentation.segmentation_type:
        case seg.SegmentationTypeValues.LABELMAP:
            yield from ((int(number), values == number) for number in segmentation.segment_numbers)
        case seg.SegmentationTypeValues.FRACTIONAL:
            yield _segment(own, shared), values >= int(segmentation.MaximumFractionalValue) / 2
        case _:
            yield _segment(own, shared), values > 0


def _segment(own: Dataset, shared: Dataset) -> int:
    group = _group("SegmentIdentificationSequence", own, shared)
    if group is None:
        raise Rejected(Reason.HEADER)
    return int(group.ReferencedSegmentNumber)


def _sources(own: Dataset, shared: Dataset) -> tuple[tuple[tuple[str, int | None], ...], bool]:
    found: list[tuple[str, int | None]] = []
    on_grid = True
    for derivation in own.get("DerivationImageSequence") or shared.get("DerivationImageSequence") or ():
        for source in derivation.get("SourceImageSequence") or ():
            numbers = source.get("ReferencedFrameNumber")
            listed = (
                [None] if numbers in (None, "") else [int(each) for each in ([numbers] if isinstance(numbers, (int, str)) else numbers)]
            )
            found += [(str(source.ReferencedSOPInstanceUID), number) for number in listed]
            on_grid = on_grid and source.get("SpatialLocationsPreserved") == "YES"
    return tuple(found), on_grid and bool(found)


def _plane(segmentation: Dataset, index: int) -> Geometry | None:
    try:
        return geometry_of(attributes_of(segmentation, index))
    except Rejected:
        return None


def _group(keyword: str, own: Dataset, shared: Dataset) -> Dataset | None:
    sequence = own.get(keyword) or shared.get(keyword)
    return sequence[0] if sequence else None

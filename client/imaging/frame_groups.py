# SPDX-License-Identifier: Apache-2.0
"""One frame's attributes, wherever the file keeps them.

A classic object has its rescale, window and geometry at the top. An enhanced one (PS3.3 C.7.6.16) has them in functional groups: macros of
one item, shared by all frames or given for each. Here both become the same flat set of attributes, so nobody further on knows the
difference; a frame's own group wins over the shared one, and that over the top.
"""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from client.imaging.rejection import Reason, Rejected

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
MACROS = (
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
    "PixelMeasuresSequence",
    "FrameAnatomySequence",
)
TAGS = [SHARED, PER_FRAME]


def attributes_of(dataset: Dataset, frame: int) -> Dataset:
    """The attributes of one frame, flat. Raises: Rejected(FRAME_GROUPS), if there are groups, but not for every frame."""
    try:
        groups = list(_groups(dataset, frame))
        if not groups:
            return dataset
        flat = Dataset()
        flat.update(dataset)
        for group in groups:
            for macro in MACROS:
                for item in group.get(macro) or ():
                    flat.update(item)
                    break
    except Exception as error:
        raise Rejected(Reason.FRAME_GROUPS) from error
    flat.file_meta = dataset.file_meta
    return flat


def _groups(dataset: Dataset, frame: int) -> Iterator[Dataset]:
    """The shared group first, then the frame's own."""
    if shared := dataset.get(SHARED):
        yield shared[0]
    if per_frame := dataset.get(PER_FRAME):
        if len(per_frame) != int(dataset.get("NumberOfFrames") or 1):
            raise ValueError("not one group for each frame")
        yield per_frame[frame]

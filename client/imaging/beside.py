# SPDX-License-Identifier: Apache-2.0
"""What lies beside pictures: masks, second images and boxes. Which belongs to which image, and which images cannot be used for want of it.

A picture's mask is one picture, a volume's is a volume with as many slices, and each slice goes by its place. Whether what was found
fits is judged here alone, so that an intake and `check-data` cannot disagree.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.imaging import parts
from client.imaging.cache import Cached, Contents
from client.imaging.index import Item
from client.imaging.labels import plain_path
from client.imaging.parts import Boxes
from client.imaging.pictures import Grid
from client.imaging.readers import read_all, roomy
from client.imaging.rejection import Reason
from client.imaging.request import Request
from client.imaging.worker import Brief, Kind
from common.plan import DetectionSpec, InputSpec, Plan, SegmentationSpec

NONE: Final = -1
Places = Sequence[float | None]


def is_drawn_on(plan: Plan) -> bool:
    """Whether masks or boxes belong to a plan's pictures."""
    return isinstance(plan.task, SegmentationSpec | DetectionSpec)


def files_of(cells: Sequence[str]) -> list[str]:
    """The files that cells name, each once."""
    return list(dict.fromkeys(plain_path(cell) for cell in cells if cell))


def read(request: Request, files: Sequence[str], spec: InputSpec, kind: Kind, output: int) -> Contents:
    """Read them into `output`; each image is named after the number of its file. Raises: EngineError, DiskFull."""
    brief = Brief(kind=kind, input=spec, limits=request.limits, wanted=None)
    tasks = roomy(request.root, brief, files, workers=request.workers)
    outcomes = read_all(request.root, output, brief, tasks, workers=request.workers, progress=request.progress)
    found = [
        (outcome.slot + number, str(file), place, outcome.grid)
        for file, outcome in enumerate(outcomes)
        if outcome.reason is None
        for number, place in enumerate(outcome.places)
    ]
    return Contents(
        slots=tuple(slot for slot, *_ in found),
        items=tuple(file for _, file, _, _ in found),
        patients=("",) * len(found),
        seen=len(files),
        rejected=Counter(outcome.reason for outcome in outcomes if outcome.reason is not None),
        places=tuple(place for _, _, place, _ in found),
        grids=tuple(grid for *_, grid in found),
    )


def matched(found: Contents | Cached, files: Sequence[str], cells: Sequence[str], places: Places) -> NDArray[np.int64]:
    """For each image, by the cell that names what belongs to it and its place, the row of `found`; NONE, if it cannot be read."""
    rows: dict[str, dict[float | None, int]] = {}
    for row, (file, place) in enumerate(zip(found.items, found.places, strict=True)):
        rows.setdefault(files[int(file)], {})[place] = row
    return np.array([_row_for(rows.get(plain_path(cell), {}), place) for cell, place in zip(cells, places, strict=True)], dtype=np.int64)


def _row_for(by_place: Mapping[float | None, int], place: float | None) -> int:
    """The one that there is, or of several the one at that place."""
    if len(by_place) == 1:
        return next(iter(by_place.values()))
    return by_place.get(place, NONE)


def unfit_masks(
    rows: NDArray[np.int64],
    found: Contents | Cached,
    mask_of: Callable[[int], NDArray[np.uint16]],
    items: Sequence[Item],
    grids: Sequence[Grid],
    task: SegmentationSpec,
) -> dict[int, Reason]:
    """Which images have no mask that training could be given, and why not. A volume is used as a whole, or not at all."""
    cells = [item.cells[task.mask_column] for item in items]
    files = files_of(cells)
    readable = {files[int(file)] for file in found.items}
    why: dict[int, Reason] = {}
    for number, (row, cell, grid) in enumerate(zip(rows.tolist(), cells, grids, strict=True)):
        if row == NONE:  # of a mask that is read, but has no such slice
            why[number] = Reason.MASK_SHAPE if plain_path(cell) in readable else Reason.NO_MASK
        elif grid and not parts.belongs(found.grids[row], grid):
            why[number] = Reason.MASK_SHAPE
        elif not _is_of_classes(mask_of(row), task):
            why[number] = Reason.MASK_VALUES
    by_file = {items[number].name: reason for number, reason in why.items()}
    return {number: by_file[item.name] for number, item in enumerate(items) if item.name in by_file}


def _is_of_classes(mask: NDArray[np.uint16], task: SegmentationSpec) -> bool:
    """Whether a mask's values are the plan's classes; of two, whatever is not 0 is the second."""
    return len(task.classes) == 2 or int(mask.max()) < len(task.classes)


def unfit_boxes(items: Sequence[Item], grids: Sequence[Grid], boxes: Boxes, task: DetectionSpec) -> dict[int, Reason]:
    """Which images have boxes that training could not be given: of another picture's size, beside it, too many. Raises: LabelsMismatch."""
    why: dict[int, Reason] = {}
    for number, (item, grid) in enumerate(zip(items, grids, strict=True)):
        if len(grid) > 2:
            why[number] = Reason.BOXES
        elif grid and not parts.is_as_large_as_said(item, grid):
            why[number] = Reason.SIZE
        elif not parts.boxes_fit(item, boxes.get(item.name, []), task):
            why[number] = Reason.BOXES
    return why

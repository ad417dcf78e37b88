# SPDX-License-Identifier: Apache-2.0
"""The inventory of a folder of pictures: its index row by row, what lies beside, and every file that no row names."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.imaging import beside, index, picture_folder, slots
from client.imaging.index import Index, Item, Table
from client.imaging.parts import Boxes
from client.imaging.pictures import Grid
from client.imaging.readers import Outcome
from client.imaging.rejection import Reason
from client.imaging.request import Request, list_folder
from client.imaging.rows import Inventory, Row, examine, inventory_of, one_each, reason_of, shown_of
from client.imaging.slots import Shape
from client.imaging.worker import Brief
from common.plan import DetectionSpec, SegmentationSpec


def take(request: Request, written: Table) -> Inventory:
    """The rows of an index are accounted for, and every file that no row names."""
    table = index.read(written, request.plan)
    listing = list_folder(request, skip=written.path)
    boxes = picture_folder.boxes_of(request)
    outcomes = _examine_pictures(request, table)
    told = [outcome.told or {} for outcome in outcomes]
    reasons = [reason_of(outcome) for outcome in outcomes]
    read = [number for number, reason in enumerate(reasons) if reason is None]
    numbers, places = one_each(read, [told[number].get("places", [None]) for number in read])
    of_image = [read[number] for number in numbers]
    items, grids = [table.items[number] for number in of_image], [tuple(told[number].get("grid", ())) for number in of_image]
    why, lost = _unusable_beside(request, items, grids, places, boxes)
    for image, lacking in why.items():
        reasons[of_image[image]] = lacking
    images = [image for image in range(len(items)) if image not in why]
    kept = [of_image[image] for image in images]
    firsts, chosen = picture_folder.arranged([table.items[number] for number in kept], request.plan)
    shown = Counter(kept[row] for row in np.unique(chosen).tolist())
    keys = [picture_folder.patient_key_of(request, table, item) for item in table.items]
    patients = _numbered(keys)
    rows = [Row(path="", reason=reason) for reason, count in table.rejected.items() for _ in range(count)]
    for number, (item, key, reason) in enumerate(zip(table.items, keys, reasons, strict=True)):
        row = Row(path=item.name, reason=reason, facts=told[number], patient=patients[key])
        rows.append(row if reason is not None else shown_of(row, shown[number]))
    rows += [Row(path=path, reason=reason) for path, reason in index.unlisted(table, listing)]
    return inventory_of(
        rows,
        has_labels=True,
        unmatched=0,
        cases=len(firsts) if request.plan.input.sequence > 1 else None,
        lost_seconds=sum(lost[images[first]] for first in firsts),
    )


def _examine_pictures(request: Request, table: Index) -> list[Outcome]:
    """Files are opened; rows of an archive are looked up; lines without an image need nothing."""
    if table.key == "file":
        drawn_on = beside.is_drawn_on(request.plan)
        brief = Brief(kind="picture inventory", input=request.plan.input, limits=request.limits, wanted=None, drawn_on=drawn_on)
        return examine(request, brief, [item.name for item in table.items])
    images = picture_folder.unpack(request) if table.key == "row" else None
    return [Outcome(slot=0, identity=None, **_of_row(images, item)) for item in table.items]


def _of_row(images: NDArray[np.uint8] | None, item: Item) -> dict[str, Any]:
    if images is None:
        return {"reason": None}
    if int(item.name) >= len(images):
        return {"reason": Reason.NO_FILE}
    image = images[int(item.name)]
    digest = hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()
    return {"reason": None, "told": {"images": 1, "shape": list(image.shape), "grid": list(image.shape[:2]), "sha256": digest}}


def _unusable_beside(
    request: Request, items: Sequence[Item], grids: Sequence[Grid], places: Sequence[float | None], boxes: Boxes
) -> tuple[dict[int, Reason], list[bool]]:
    """Which images lack what they cannot do without, by the intake's own judgement; and whose second image is named and cannot be read."""
    task, image = request.plan.task, request.plan.input
    why: dict[int, Reason] = {}
    lost = [False] * len(items)
    if isinstance(task, DetectionSpec):
        why = beside.unfit_boxes(items, grids, boxes, task)
    if isinstance(task, SegmentationSpec):
        cells = [item.cells[task.mask_column] for item in items]
        spec = replace(image, channels=1)
        with TemporaryFile() as output:
            files = beside.files_of(cells)
            found = beside.read(request, files, spec, "mask", output.fileno())
            mask_of = partial(_mask, output.fileno(), found.slots, (1, spec.height, spec.width))
            why = beside.unfit_masks(beside.matched(found, files, cells, places), found, mask_of, items, grids, task)
    if image.second is not None:
        cells = [item.cells[index.SECOND] for item in items]
        with TemporaryFile() as output:
            files = beside.files_of(cells)
            found = beside.read(request, files, replace(image, window=image.second.window), "picture", output.fileno())
        rows = beside.matched(found, files, cells, places)
        lost = [bool(cell) and row == beside.NONE for cell, row in zip(cells, rows.tolist(), strict=True)]
    return why, lost


def _mask(output: int, places: Sequence[int], shape: Shape, row: int) -> NDArray[np.uint16]:
    return slots.read(output, places[row], shape)


def _numbered(keys: Sequence[str]) -> dict[str, int]:
    return {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}

# SPDX-License-Identifier: Apache-2.0
"""What a case has beside its image: masks, boxes, findings, a second image, a record, a text; from the index's cells to aligned arrays.

Everything is encoded by the plan alone: which columns, by which public mean and deviation, into how many hashed words. Nothing is learnt
from the patients who happen to be here, so nothing about them is in the encoding. A cell is never quoted in an error.

    N  cases      M  boxes kept of an image      K  findings      F  numbers of a record      L  words of a text
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.imaging import cases
from client.imaging.cases import Rows
from client.imaging.dataset import Images, whole
from client.imaging.index import CASE, POSITION, SIDES, Item
from client.imaging.labels import need_column, plain_path, read_csv
from client.imaging.pictures import Grid
from common.errors import LabelsMismatch
from common.plan import DetectionSpec, MultiLabelSpec, Plan, RecordField, TaskSpec, TextSpec

BOXES: Final = "boxes.csv"
_BOX_COLUMNS: Final = ("file", "cls", "x_min", "y_min", "x_max", "y_max")
_WORD: Final = re.compile(r"[^\W_]+")
_KNOWN: Final = {"1": 1, "0": 0, "1.0": 1, "0.0": 0, "true": 1, "false": 0, "yes": 1, "no": 0}
Box = tuple[int, float, float, float, float]
"""Class, left, top, right, bottom, in the picture's own pixels."""
Boxes = Mapping[str, list[Box]]
"""By file."""
SAME_PLACE_MM: Final = 1e-3  # affines are written in single precision


def of_items(items: Sequence[Item], plan: Plan, boxes: Boxes) -> dict[str, Images]:
    """The parts that are made of cells and boxes, a row for each item. Raises: LabelsMismatch."""
    found: dict[str, NDArray[np.generic]] = {}
    if isinstance(plan.task, MultiLabelSpec):
        found["findings"] = np.array([_findings(item, plan.task) for item in items], dtype=np.int8)
    if isinstance(plan.task, DetectionSpec):
        found["boxes"] = np.stack([_boxes(item, boxes.get(item.name, []), plan.task) for item in items])
    if plan.input.record:
        found["record"] = np.array([record(item.cells, plan.input.record) for item in items], dtype=np.float32)
    if plan.input.text is not None:
        found["tokens"] = np.array([tokens(item.cells[plan.input.text.column], plan.input.text) for item in items], dtype=np.int32)
    return {name: whole(array) for name, array in found.items()}


def record(cells: Mapping[str, str], fields: Sequence[RecordField]) -> list[float]:
    """One patient's record as numbers: for each field its value or values, then 1 if it is not known. Raises: LabelsMismatch."""
    numbers: list[float] = []
    for field in fields:
        cell = cells[field.column].strip()
        if field.values:
            place = field.values.index(cell) if cell in field.values else None
            numbers += [float(place == number) for number in range(len(field.values))] + [float(place is None)]
        else:
            value = _number(cell, field.column) if cell else None
            numbers += [0.0, 1.0] if value is None else [(value - field.mean) / field.std, 0.0]
    return numbers


def tokens(text: str, spec: TextSpec) -> list[int]:
    """Words and pairs of neighbouring words, each as a number from 1 to `buckets`; 0 fills up to `length`.

    >>> tokens("No fever", TextSpec(buckets=1024, length=4)) == tokens("no  FEVER.", TextSpec(buckets=1024, length=4))
    True
    """
    words = _WORD.findall(text.casefold())
    grams = [gram for number, word in enumerate(words) for gram in ([word] if number == 0 else [word, f"{words[number - 1]} {word}"])]
    hashed = [1 + int.from_bytes(hashlib.sha256(gram.encode()).digest()[:8], "big") % spec.buckets for gram in grams[: spec.length]]
    return hashed + [0] * (spec.length - len(hashed))


def sequences(items: Sequence[Item], length: int, task: TaskSpec) -> tuple[list[int], Rows]:
    """Images that belong together, in their order: the first row of each case, and the rows of its `length` images, (N, T).

    Of more images than that, evenly many are taken; of fewer, some are taken twice. Raises: LabelsMismatch.
    """
    found = _cases(items)
    said = task.columns if isinstance(task, MultiLabelSpec) else ()
    truth = [(item.label, item.site, item.split, *(item.cells[column] for column in said)) for item in items]
    cases.require_one_truth(found, truth, where="index")
    return [int(rows[0]) for rows in found], cases.evenly(found, length)


def neighbours(items: Sequence[Item], length: int) -> tuple[list[int], Rows]:
    """Each image with those around it in its case: every row, and its `length` images, (N, T). Raises: LabelsMismatch."""
    return list(range(len(items))), cases.neighbours(_cases(items), length)


def _cases(items: Sequence[Item]) -> list[Rows]:
    """The rows of each case, in the order of their positions."""
    found: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for row, item in enumerate(items):
        found.setdefault((item.patient, item.cells[CASE]), []).append((_number(item.cells[POSITION], POSITION), row))
    return [np.array([row for _, row in sorted(members)]) for members in found.values()]


def read_boxes(path: Path, task: DetectionSpec) -> Boxes:
    """`boxes.csv`: file, cls, x_min, y_min, x_max, y_max, a row for each box. Raises: LabelsMismatch, DataNotFound."""
    columns, rows = read_csv(path)
    for column in _BOX_COLUMNS:
        need_column(path, columns, column)
    found: dict[str, list[Box]] = {}
    for number, cells in rows:
        name = cells["cls"].strip()
        if name not in task.classes:
            raise LabelsMismatch(
                f"{path.name}, row {number}: the cell in column 'cls' is none of the plan's classes. It is not shown here.",
                fix="Correct the cell, or the plan's [task] classes.",
            )
        left, top, right, bottom = (_number(cells[column], column) for column in _BOX_COLUMNS[2:])
        if not (left < right and top < bottom):
            raise LabelsMismatch(f"{path.name}, row {number}: a box without area.", fix="x_min < x_max and y_min < y_max.")
        found.setdefault(plain_path(cells["file"]), []).append((task.classes.index(name), left, top, right, bottom))
    return found


def boxes_fit(item: Item, of_picture: Sequence[Box], task: DetectionSpec) -> bool:
    """Whether all of a picture's boxes can be kept, and each has an area inside it. Raises: LabelsMismatch."""
    array = _boxes(item, of_picture, task)
    known = array[array[:, 0] >= 0]
    return len(of_picture) <= task.most_boxes and bool((known[:, 1:3] < known[:, 3:5]).all())


def is_as_large_as_said(item: Item, grid: Grid) -> bool:
    """Whether a picture has the width and height of its row, in which its boxes are drawn. Raises: LabelsMismatch."""
    return tuple(_number(item.cells[side], side) for side in SIDES) == grid[::-1]


def belongs(mask: Grid, image: Grid) -> bool:
    """Whether a mask lies on its image: a picture in its proportions, to the pixel; a volume voxel by voxel, in the same place.

    >>> belongs((50, 100), (100, 200)), belongs((100, 50), (50, 100))
    (True, False)
    """
    if len(mask) != len(image):
        return False
    if len(mask) > 2:
        return bool(mask[:3] == image[:3] and np.allclose(mask[3:], image[3:], rtol=0, atol=SAME_PLACE_MM))
    (rows, columns), (high, wide) = mask, image
    return abs(rows * wide / high - columns) <= 1 or abs(columns * high / wide - rows) <= 1


def _boxes(item: Item, of_picture: Sequence[Box], task: DetectionSpec) -> NDArray[np.float32]:
    """(M, 5), in parts of width and height, inside the picture; class -1 where there is no box."""
    width, height = (_number(item.cells[side], side) for side in SIDES)
    array = np.full((task.most_boxes, 5), -1, dtype=np.float32)
    for place, (number, *corners) in enumerate(of_picture[: task.most_boxes]):
        array[place] = (number, *np.clip(np.array(corners) / (width, height, width, height), 0, 1))
    return array


def _findings(item: Item, task: MultiLabelSpec) -> list[int]:
    found = []
    for name in task.classes:
        cell = item.cells[name].strip().casefold()
        if cell and cell not in _KNOWN:
            raise LabelsMismatch(
                f"index: a cell in column '{name}' is neither 1 nor 0 nor empty. It is not shown here.",
                fix="1: there; 0: not; empty: not known.",
            )
        found.append(_KNOWN.get(cell, -1))
    return found


def _number(cell: str, column: str) -> float:
    try:
        value = float(cell)
        if np.isfinite(value):
            return value
    except ValueError:
        pass
    raise LabelsMismatch(f"index: a cell in column '{column}' is no number. It is not shown here.", fix="Correct the cell, or empty it.")

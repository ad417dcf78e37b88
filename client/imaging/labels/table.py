# SPDX-License-Identifier: Apache-2.0
"""What people wrote about the images: a CSV beside them.

    sop_instance_uid,label          or          path,label

One row an image, found by its SOPInstanceUID (0008,0018) or by its path below the root. The plan names the label's column and the classes;
a cell is a class name or, failing that, a class index. An empty cell is no label. Comma or semicolon, UTF-8.

A cell is never quoted in an error: with the wrong column named, it would be a patient's name. Row numbers are the file's own, the header
being row 1, so a spreadsheet finds them.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from client.imaging.labels.account import LabelAccount
from client.imaging.rejection import Reason
from common.errors import DataNotFound, DataUnreadable, LabelsMismatch
from common.plan import ClassificationSpec

Row = tuple[int, Mapping[str, str]]  # row number in the file, cells by column
Key = Literal["sop_instance_uid", "path"]
KEYS: tuple[Key, ...] = ("sop_instance_uid", "path")
LABELS = "labels.csv"
_LONGEST_NUMBER = 18  # digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Class index by plain identifier; `key` says which. In memory only.

    known: files of which more is known than that they have no label, by path; account: of several sources, how they became one.
    masks: for a plan that outlines things, the class of each pixel (H, W) in the plan's size, by path.
    """

    key: Key
    column: str
    by_item: Mapping[str, int] = field(repr=False)
    rows: int
    known: Mapping[str, Reason] = field(default_factory=dict, repr=False)
    account: LabelAccount | None = None
    masks: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict, repr=False)


def read(path: Path, task: ClassificationSpec) -> Labels:
    """A labels file. Raises: DataNotFound; LabelsMismatch for a missing column, an unknown label or two labels for one image."""
    columns, rows = read_csv(path)
    key = next((name for name in KEYS if name in columns), None)
    if key is None:
        raise LabelsMismatch(
            f"{path.name}: no column 'sop_instance_uid' or 'path' among its {len(columns)} columns, so its rows name no image.",
            fix="Add one of the two, or rename the column that holds it.",
        )
    need_column(path, columns, task.label_column)
    by_item: dict[str, int] = {}
    count = 0
    for number, cells in rows:
        count += 1
        item = plain_path(cells[key]) if key == "path" else cells[key].strip()
        label = class_of(cells[task.label_column], task, where=f"{path.name}, row {number}")
        if item and label is not None and by_item.setdefault(item, label) != label:
            raise LabelsMismatch(f"{path.name}, row {number}: this image has another label further up.", fix="Keep one of the two.")
    return Labels(key=key, column=task.label_column, by_item=by_item, rows=count)


def plain_path(cell: str) -> str:
    """A path as a spreadsheet has it, as a listing has it: '/' between components, nothing before the first."""
    return cell.strip().replace("\\", "/").removeprefix("./")


def class_of(cell: str, task: ClassificationSpec, *, where: str) -> int | None:
    """The class index that a cell means; None for an empty one. A class name wins over an index. Raises: LabelsMismatch."""
    text = cell.strip()
    if not text:
        return None
    if text in task.classes:
        return task.classes.index(text)
    if (number := whole_number(text)) is not None and number < len(task.classes):
        return number
    raise LabelsMismatch(
        f"{where}: the cell in column '{task.label_column}' is none of the plan's classes ({_listed(task.classes)}) and no index from 0 to "
        f"{len(task.classes) - 1}. It is not shown here, since it could be a patient's data.",
        fix="Correct the cell, or the plan's [task] classes or label_column.",
    )


def whole_number(text: str) -> int | None:
    """What digits mean, if nothing else is there; a longer one than anybody counts to is none, and Python would not read it either."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER else None


def check_classes(labels: Iterable[int], task: ClassificationSpec) -> None:
    """Raises: LabelsMismatch, if all images have one label: there is nothing to tell apart."""
    found = set(labels)
    if len(found) == 1:
        raise LabelsMismatch(
            f"labels: every usable image is '{task.classes[found.pop()]}', and the plan tells apart {_listed(task.classes)}.",
            fix=f"Add images of another class, or check column '{task.label_column}'.",
        )


def read_csv(path: Path) -> tuple[list[str], Iterator[Row]]:
    """Column names and numbered rows of a CSV file. Raises: DataNotFound, LabelsMismatch (not text, no header, ragged), DataUnreadable."""
    if not path.is_file():
        raise DataNotFound(f"'{path}' does not exist.", fix="Give the folder that has it, or name the file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelsMismatch(f"{path.name}: not UTF-8 text.", fix="Save it as CSV UTF-8.") from error
    except OSError as error:
        raise DataUnreadable(f"{path.name} cannot be read: {error.strerror}.", fix="Give read permission on it.") from error
    header = text.partition("\n")[0]
    delimiter = ";" if ";" in header and "," not in header else ","
    table = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [name.strip() for name in next(table, [])]
    except csv.Error as error:
        raise LabelsMismatch(f"{path.name}, row 1: not valid CSV.", fix="Check the quotes there.") from error
    if len(set(columns)) < len(columns) or not columns:
        raise LabelsMismatch(f"{path.name}: its first row must name each column once.", fix="Add a header row with distinct names.")
    return columns, _numbered(path, columns, table)


def _numbered(path: Path, columns: list[str], table: Iterator[list[str]]) -> Iterator[Row]:
    number = 1
    try:
        for cells in table:
            number += 1
            if not cells:
                continue
            if len(cells) != len(columns):
                raise LabelsMismatch(f"{path.name}, row {number}: {len(cells)} cells, {len(columns)} expected.", fix="Mend this row.")
            yield number, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise LabelsMismatch(f"{path.name}, after row {number}: not valid CSV.", fix="Check the quotes there.") from error


def need_column(path: Path, columns: Sequence[str], column: str) -> None:
    """Raises: LabelsMismatch, if the plan's label column is not there. Quotes the columns: ask once the first row is known to name them."""
    if column not in columns:
        raise LabelsMismatch(
            f"{path.name}: no column '{column}', which the plan's [task] label_column names. Its columns: {_listed(columns)}.",
            fix="Set label_column to one of them.",
        )


def _listed(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

# SPDX-License-Identifier: Apache-2.0
"""A folder of pictures with an `index.csv`: how published sets, and exports without a PACS, come in.

    file or row     a PNG, JPEG or NIfTI file below the root, or a row of `images.npz` (key images, uint8, (N, Y, X) or (N, Y, X, 3))
    <label columns> as the plan's [task] says: a class, findings, or the path of a mask
    patient_id      else group_id, else image_id: what may not be on two sides of a split; the first that is there is used and said
    site, split     optional
    case, position  for sequences: which images belong together, and in which order (a number); one truth for all of them, unless it is
                    a mask or boxes: then each image is seen with its neighbours
    second_file     for a plan with a second image: its path, or empty where there is none
    width, height   for detection: of the picture in pixels, in which boxes.csv has its boxes (parts.py)
    ...             the columns that the plan's record and text name

Without any of the three, each record stands for itself: nothing can then be promised, or split, by patient. A plan without images has
neither file nor row: each line is a case.
"""

import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from client.imaging.dataset import UnitSource
from client.imaging.identity import is_placeholder
from client.imaging.labels import class_of, need_column, plain_path, read_csv
from client.imaging.labels.table import Row, whole_number
from client.imaging.listing import Listing
from client.imaging.rejection import Reason
from client.imaging.splits import SPELLINGS, Split
from common.errors import DataUnreadable, LabelsMismatch
from common.plan import ClassificationSpec, DetectionSpec, InputSpec, Plan, SegmentationSpec

INDEX = "index.csv"
ARCHIVE = "images.npz"
MEMBER = "images.npy"
LARGEST_ARCHIVE = 4 << 30  # bytes, unpacked: it is held in memory once, while the cache is built
CASE, POSITION, SECOND = "case", "position", "second_file"
SIDES = ("width", "height")
PICTURES: Final = (".png", ".jpg", ".jpeg", ".nii", ".nii.gz")
BESIDE: Final = frozenset({"boxes.csv", ARCHIVE})  # files of the folder that rows rest on without naming them
UNITS: tuple[UnitSource, ...] = ("patient_id", "group_id", "image_id")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Item:
    """One usable row of the index. `patient` is in plain text, or empty where nothing names one; `cells` are those that become parts."""

    name: str  # the path, or the row's number
    label: int
    patient: str
    site: str
    split: Split | None
    cells: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index as read: usable items in its order, and why the other rows are not. `named`: every path that a cell names."""

    key: Literal["file", "row", "line"]
    unit_source: UnitSource
    items: tuple[Item, ...]
    rejected: Counter[Reason]
    rows: int
    has_sites: bool
    has_splits: bool
    named: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """An index.csv as it stands; it is read from the disk once."""

    path: Path
    columns: list[str]
    rows: list[Row] = field(repr=False)


def of_pictures(root: Path) -> Table | None:
    """The folder's index.csv, if it is there and is the index of pictures, rather than somebody's list of DICOM files.

    Raises: LabelsMismatch, DataUnreadable.
    """
    path = root / INDEX
    if not path.is_file():
        return None
    columns, rows = read_csv(path)
    table = Table(path=path, columns=columns, rows=list(rows))
    names_pictures = "file" not in columns or any(_is_picture(cells["file"]) for _, cells in table.rows)
    return table if names_pictures else None


def _is_picture(cell: str) -> bool:
    return cell.strip().casefold().endswith(PICTURES)


def read(table: Table, plan: Plan) -> Index:
    """What an index says for a plan.

    Raises: LabelsMismatch for a missing column, a cell that means nothing, or two rows that disagree about one image.
    """
    path, columns = table.path, table.columns
    key: Literal["file", "row", "line"] = "line" if not plan.input.has_image else "file" if "file" in columns else "row"
    # First of all: without a header row the first patient would be taken for column names, and they are quoted.
    if key not in (*columns, "line"):
        raise LabelsMismatch(
            f"{path.name}: neither a column 'file' nor a column 'row'.",
            fix="Add one: it says where the image is. The first row must name the columns.",
        )
    kept = _columns_of_parts(plan)
    for column in (*plan.task.columns, *kept):
        if column != SECOND:
            need_column(path, columns, column)
    unit_source: UnitSource = next((name for name in UNITS if name in columns), "none")
    items: dict[str, Item] = {}
    rejected: Counter[Reason] = Counter()
    named: set[str] = set()
    paths = {"file", SECOND, *(plan.task.columns if isinstance(plan.task, SegmentationSpec) else ())}
    for number, cells in table.rows:
        named.update(plain_path(cell) for column, cell in cells.items() if column in paths or _is_picture(cell))
        item = _item(cells, key, unit_source, plan, kept, where=f"{path.name}, row {number}", line=str(number))
        if isinstance(item, Reason):
            rejected[item] += 1
        elif (first := items.setdefault(item.name, item)) is not item:
            if first != item:
                raise LabelsMismatch(
                    f"{path.name}, row {number}: a row further up says something else of this image (patient, label, another cell).",
                    fix="Keep one of the two.",
                )
            rejected[Reason.DUPLICATE] += 1
    return Index(
        key=key,
        unit_source=unit_source,
        items=tuple(items.values()),
        rejected=rejected,
        rows=len(table.rows),
        has_sites="site" in columns,
        has_splits="split" in columns,
        named=frozenset(named),
    )


def unlisted(table: Index, listing: Listing) -> list[tuple[str, Reason]]:
    """What lies below the root and no row names, with the reason why it is not used; nothing, for a plan without images."""
    if table.key == "line":
        return []
    known = table.named | (BESIDE if table.key == "row" else BESIDE - {ARCHIVE})
    left_out = [(file.path, Reason.NOT_LISTED) for file in listing.files if file.path not in known]
    return left_out + [(path, reason) for path, reason in listing.unopened if path not in table.named]


def _columns_of_parts(plan: Plan) -> tuple[str, ...]:
    """The columns beside label, patient and split that a plan's parts are made of."""
    image: InputSpec = plan.input
    return tuple(
        dict.fromkeys(
            [
                *(() if isinstance(plan.task, ClassificationSpec) else plan.task.columns),
                *(SIDES if isinstance(plan.task, DetectionSpec) else ()),
                *((CASE, POSITION) if image.sequence > 1 else ()),
                *((SECOND,) if image.second is not None else ()),
                *(each.column for each in image.record),
                *((image.text.column,) if image.text is not None else ()),
            ]
        )
    )


def _item(
    cells: Mapping[str, str], key: str, unit_source: UnitSource, plan: Plan, kept: Sequence[str], *, where: str, line: str
) -> Item | Reason:
    label: int | None = 0
    if isinstance(plan.task, ClassificationSpec):
        label = class_of(cells[plan.task.label_column], plan.task, where=where)
    if label is None or (plan.task.columns and not any(cells[column].strip() for column in plan.task.columns)):
        return Reason.NO_LABEL
    patient = "" if unit_source == "none" else cells[unit_source].strip()
    if unit_source != "none" and is_placeholder(patient):
        return Reason.NO_PATIENT_ID
    return Item(
        name=line if key == "line" else plain_path(cells[key]) if key == "file" else _row_number(cells[key], where),
        label=label,
        patient=patient,
        site=cells.get("site", "").strip(),
        split=_split(cells["split"], where) if "split" in cells else None,
        cells={column: cells.get(column, "").strip() for column in kept},
    )


def _row_number(cell: str, where: str) -> str:
    number = whole_number(cell.strip())
    if number is None:
        raise LabelsMismatch(f"{where}: column 'row' must hold a whole number from 0.", fix="Correct the cell.")
    return str(number)


def _split(cell: str, where: str) -> Split:
    split = SPELLINGS.get(cell.strip().casefold())
    if split is None:
        raise LabelsMismatch(
            f"{where}: the cell in column 'split' is none of train, validation and test.",
            fix="Correct the cell, or leave the whole column out to have patients split here.",
        )
    return split


def unpack(archive: bytes) -> NDArray[np.uint8]:
    """The images of an `images.npz`, without unpickling and without trusting what its header would allocate.

    Shapes: (N, Y, X) or (N, Y, X, 3). Raises: DataUnreadable.
    """
    try:
        with zipfile.ZipFile(BytesIO(archive)) as members:
            size = members.getinfo(MEMBER).file_size
            if size > LARGEST_ARCHIVE:
                raise ValueError("larger than an archive may be")
            content = members.read(MEMBER)
        stream = BytesIO(content)
        version = np.lib.format.read_magic(stream)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read_header(stream)
        if dtype != np.uint8 or fortran or len(shape) not in (3, 4) or shape[3:] not in ((), (3,)) or 0 in shape:
            raise ValueError("not an array of uint8 images")
        return np.frombuffer(content, dtype=np.uint8, offset=stream.tell()).reshape(shape)
    except Exception as error:  # zipfile and numpy's header parser raise many kinds, tokenize.TokenError among them
        raise DataUnreadable(
            f"{ARCHIVE}: no readable array 'images' of uint8, (N, Y, X) or (N, Y, X, 3), of at most {LARGEST_ARCHIVE >> 30} GiB.",
            fix="Write it with numpy.savez_compressed(file, images=array).",
        ) from error

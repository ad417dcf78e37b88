# SPDX-License-Identifier: Apache-2.0
"""What a further column of the table beside the images says of each: sex, scanner, referring ward; for scoring by group.

Read when it is asked for, and joined over the images' keyed names; it enters no cache and no data set. What a column of identifiers would
name are patients, so whoever shows values shows none of which there are few (common/tasks/scoring/groups.py).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from client.imaging.identity import PatientSecret, item_key
from client.imaging.index import INDEX
from client.imaging.labels import LABELS, plain_path, read_csv
from common.errors import LabelsMismatch

NOT_SAID = "(not said)"
_NAMES: Mapping[str, Callable[[str], str]] = {
    "file": plain_path,
    "row": lambda cell: str(int(cell)),
    "sop_instance_uid": str.strip,
    "path": plain_path,
}
"""The columns that name an image, as the intake chooses among them, and how a cell becomes a name."""


def column_of(root: Path, column: str, items: Sequence[str], secret: PatientSecret) -> tuple[str, ...]:
    """The column's value for each image; NOT_SAID for an empty cell. `items` are keyed names, as in `Dataset.items`.

    Raises: LabelsMismatch, for a column that is not there, or images that are not in a table of this folder.
    """
    path = _table(root)
    columns, rows = read_csv(path)
    key = next((name for name in _NAMES if name in columns), None)
    if key is None or not items:
        raise LabelsMismatch(f"{path.name}: its rows do not name the images, so column '{column}' cannot be used.", fix="Leave --by out.")
    if column not in columns:
        raise LabelsMismatch(f"{path.name}: no column '{column}' to score by, among {len(columns)} columns.", fix="Name one that is there.")
    said = {item_key(secret, key, _NAMES[key](cells[key])): cells[column].strip() for _, cells in rows if cells[key].strip()}
    return tuple(said.get(item) or NOT_SAID for item in items)


def has_splits(root: Path) -> bool:
    """Whether the folder's own table says on which side of a split each image lies."""
    return (root / INDEX).is_file() and "split" in read_csv(root / INDEX)[0]


def _table(root: Path) -> Path:
    return root / INDEX if (root / INDEX).is_file() else root / LABELS

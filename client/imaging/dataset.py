# SPDX-License-Identifier: Apache-2.0
"""What training reads: images as stored in the cache, and beside them what is known of each.

A `Dataset` is a value: aligned arrays and nothing that decodes. Its images stay on disk until rows are asked for, also after `subset`,
which only remembers the rows; so ten sites cut from one folder share its memory.

A row is a *case*: what the model is shown at once. Mostly that is one image; with the plan's [input] sequence it is several in their order,
and beside them may lie `parts`, each an array with a row for each case:

    mask      (N, H, W) uint8         class of each pixel
    boxes     (N, M, 5) float32       class, left, top, right, bottom, in parts of width and height; class -1: no box
    findings  (N, K) int8             1 there, 0 not there, -1 not known
    second    (N, C, H, W) uint16     another image of the same patient
    record    (N, F) float32          the record's numbers, as the plan encodes them
    tokens    (N, L) int32            hashed words; 0: none
    present   (N, 1) uint8            whether there is a second image

N cases, C channels, H by W pixels; value / 65535 is the intensity in [0, 1]. Patients are keyed hashes (identity.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from client.imaging.splits import Split, check_disjoint

UnitSource = Literal["patient_id", "group_id", "image_id", "none"]
Index = NDArray[Any] | slice | int


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Rows of an array, itself usually on disk: (M, C, H, W) uint16, or a part's own shape and type.

    `rows` is (N,), or for sequences (N, T): what is read is then (N, T, C, H, W), and an image that two cases show lies on disk once.
    Reads like an array; only what is indexed is copied.
    """

    base: NDArray[Any]
    rows: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.rows.shape, *self.base.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.base.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of these rows, were they all read."""
        return self.rows.size * int(np.prod(self.base.shape[1:])) * self.base.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """Shapes: (B,) rows or a slice -> (B, C, H, W) or (B, T, C, H, W); an int -> without B."""
        return np.asarray(self.base[self.rows[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.base[self.rows], dtype=dtype)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Images with labels, patients and splits, row by row.

    images (N, C, H, W) uint16; labels (N,) int64, index into the plan's classes; patients (N,) int32, index into `patient_keys`;
    splits (N,) int8, values of `Split`; site_index (N,) int32, index into `sites`, where the index names sites.
    `unit_source` says what a patient is here: a true PatientID, a group or an image of origin, or nothing ("none": every record its own,
    so only `unit = "record"` can be promised). `items` are keyed names of the images in the table they came from (columns.py), or none.
    Guarantees: aligned lengths; no patient on two sides.
    """

    images: Images
    labels: NDArray[np.int64]
    patients: NDArray[np.int32]
    patient_keys: tuple[str, ...]
    splits: NDArray[np.int8]
    unit_source: UnitSource
    sites: tuple[str, ...] | None = None
    site_index: NDArray[np.int32] | None = None
    parts: Mapping[str, Images] = field(default_factory=dict)
    items: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        columns: list[NDArray[Any]] = [self.labels, self.patients, self.splits]
        if self.site_index is not None:
            columns.append(self.site_index)
        if any(column.shape != (len(self.images),) for column in columns) or any(len(part) != len(self) for part in self.parts.values()):
            raise ValueError("dataset: its columns are not as long as its images")
        check_disjoint(self.patients, self.splits)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_patients(self) -> int:
        """Patients with at least one image here."""
        return int(np.unique(self.patients).size)

    def rows_of(self, split: Split) -> NDArray[np.int64]:
        """The rows on one side."""
        return np.flatnonzero(self.splits == split)

    def subset(self, rows: NDArray[Any]) -> "Dataset":
        """These rows (or a mask), in this order. `patient_keys` and `sites` stay whole, so that indices keep their meaning."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Dataset(
            images=_rows_of(self.images, rows),
            labels=self.labels[rows],
            patients=self.patients[rows],
            patient_keys=self.patient_keys,
            splits=self.splits[rows],
            unit_source=self.unit_source,
            sites=self.sites,
            site_index=None if self.site_index is None else self.site_index[rows],
            parts={name: _rows_of(part, rows) for name, part in self.parts.items()},
            items=tuple(self.items[row] for row in rows) if self.items else (),
        )


def whole(array: NDArray[Any]) -> Images:
    """All rows of an array."""
    return Images(array, np.arange(len(array)))


def _rows_of(images: Images, rows: NDArray[Any]) -> Images:
    return Images(images.base, images.rows[rows])

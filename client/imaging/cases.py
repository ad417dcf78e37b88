# SPDX-License-Identifier: Apache-2.0
"""Which images are shown together: the rows of each case in their order, and of these as many as the plan's model looks at.

An index of pictures says which belong together, and in which order. Of DICOM files the images do: those of a file with several frames are a
case, in the order of frames or of positions; else those of a series, by where they lie along it, or, where no file says so, in the
order of their paths. A series of several orientations should be divided before: each image's place is along its own normal.

    N  cases, or images      T  images of each
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from common.errors import LabelsMismatch

Rows = NDArray[np.int64]


def by_series(patients: Sequence[str], items: Sequence[str], series: Sequence[str], places: Sequence[float | None]) -> list[Rows]:
    """The rows of each case in their order; the four say of every row whose it is, of which file and series, and where in it.

    A number that two patients' series share, as careless tools give them, makes no case of both.

    >>> [rows.tolist() for rows in by_series("ppppp", ["a", "b", "c", "d", "d"], ["s", "s", "s", "t", "t"], [9.0, 3.0, 6.0, 1.0, 0.0])]
    [[1, 2, 0], [4, 3]]
    """
    frames: dict[str, int] = {}
    for item in items:
        frames[item] = frames.get(item, 0) + 1
    cases: dict[tuple[str, str, str], list[tuple[bool, float, int]]] = {}
    for row, (patient, item, of_series, place) in enumerate(zip(patients, items, series, places, strict=True)):
        case = (patient, "file", item) if frames[item] > 1 else (patient, "series", of_series)
        cases.setdefault(case, []).append((place is None, place or 0.0, row))
    return [np.array([row for *_, row in sorted(members)]) for members in cases.values()]


def evenly(cases: Sequence[Rows], length: int) -> Rows:
    """Of each case `length` images, evenly spread from its first to its last, (N, T); of fewer, some are taken twice.

    >>> evenly([np.array([7, 8, 9, 10, 11]), np.array([3])], 3).tolist()
    [[7, 9, 11], [3, 3, 3]]
    """
    return np.array([rows[np.linspace(0, len(rows) - 1, length).round().astype(int)] for rows in cases], dtype=np.int64).reshape(-1, length)


def neighbours(cases: Sequence[Rows], length: int) -> Rows:
    """Each image with those around it in its case, (N, T), for a truth that each image has of its own.

    The image itself stands at place (length - 1) // 2; beyond a case's ends the last image stands again.

    >>> neighbours([np.array([0, 2, 1])], 3).tolist()
    [[0, 0, 2], [2, 1, 1], [0, 2, 1]]
    """
    places = np.arange(length) - (length - 1) // 2
    around = np.zeros((sum(map(len, cases)), length), dtype=np.int64)
    for rows in cases:
        around[rows] = rows[np.clip(np.arange(len(rows))[:, None] + places, 0, len(rows) - 1)]
    return around


def shown(items: Sequence[str], rows: Rows) -> tuple[set[str], int]:
    """Of the files that images came from, those that give the model at least one image; and how many images they give it.

    `items` names each image's file, `rows` are (N, T).

    >>> shown(["a", "b", "c", "c", "d"], np.array([[0, 1], [3, 3]])) == ({"a", "b", "c"}, 3)
    True
    """
    used = np.unique(rows).tolist()
    return {items[row] for row in used}, len(used)


def require_one_truth(cases: Sequence[Rows], truth: Sequence[Hashable], *, where: str) -> None:
    """Raises: LabelsMismatch, if images of one case are not labelled alike, or not on one side; `where` is the table that says so."""
    apart = sum(len({truth[row] for row in rows}) > 1 for rows in cases)
    if apart:
        raise LabelsMismatch(
            f"{where}: {apart} of {len(cases)} cases have images that differ in label, site or split.",
            fix="Give every image of a case the same ones; or plan with [input] sequence = 1, where each image is a case.",
        )

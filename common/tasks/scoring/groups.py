# SPDX-License-Identifier: Apache-2.0
"""The same figures by group: by site, by sex, by scanner, by whatever a column of the data names.

A model can be good on the whole and bad for some; that is looked for here. Two things are guarded against.

Few patients say nothing, and tell too much: of a group of fewer than ten nothing is given, neither size nor name. And if those left out are
so few that they could be had by subtracting the shown from the whole, the smallest group shown is left out too, until those left out are
ten patients together (complementary suppression, as statistical offices do).

Many groups find differences by chance: with twenty groups one is expected outside of its 95 % interval. A group is worth a second look,
not a verdict, and its interval says how little its figures may mean.

    N  images
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

S = TypeVar("S")
FEWEST_PATIENTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScores(Generic[S]):
    """One group that may be shown."""

    name: str
    patients: int
    scores: S


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups(Generic[S]):
    """The groups that may be shown, in the order of their names, and how many others there are.

    Those have no name here either: of a column of record numbers, the names would be the patients.
    """

    shown: tuple[GroupScores[S], ...]
    hidden: int


def by_group(
    groups: Sequence[str],
    patients: NDArray[np.integer],
    score: Callable[[NDArray[np.int64]], S],
    *,
    fewest: int = FEWEST_PATIENTS,
) -> Groups[S]:
    """Score each group on its own rows. Shapes: groups (N,), patients (N,).

    A patient of several groups (a radiograph in two views) is in each of them.
    Guarantees: no group of fewer than `fewest` patients is shown; those not shown are none, or at least `fewest` patients together, or all.
    """
    named = np.array(groups, dtype=object)
    rows = {name: np.flatnonzero(named == name) for name in sorted(set(groups))}
    sizes = {name: int(np.unique(patients[found]).size) for name, found in rows.items()}
    hidden = _hidden(rows, patients, sizes, fewest)
    return Groups(
        shown=tuple(
            GroupScores(name=name, patients=sizes[name], scores=score(found)) for name, found in rows.items() if name not in hidden
        ),
        hidden=len(hidden),
    )


def _hidden(rows: dict[str, NDArray[np.int64]], patients: NDArray[np.integer], sizes: dict[str, int], fewest: int) -> set[str]:
    smallest_first = sorted(sizes, key=lambda name: (sizes[name], name))
    hidden = {name for name in smallest_first if sizes[name] < fewest}
    for name in smallest_first:
        if not hidden or np.unique(patients[np.concatenate([rows[one] for one in hidden])]).size >= fewest:
            break
        hidden.add(name)
    return hidden

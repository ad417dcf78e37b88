# SPDX-License-Identifier: Apache-2.0
"""Slices of a series in their order, with what is missing and what is there twice.

Neither file names nor Instance Numbers say where a slice lies: archives rename files, and scanners number in the order of reconstruction.
Its position does. Slices of one series that are parallel are sorted along their normal, n . position (PS3.3 C.7.6.2.1.1); the usual
distance between neighbours is the median, a larger one is a gap, none at all a duplicate. A series of several orientations (scouts, MPRs)
becomes several volumes. Slices without a position stay together in the order in which they came, and no gap is claimed of them.

    >>> axial = (0.0, 0.0, 1.0)
    >>> volume, = sort_slices([Slice(name=i, normal=axial, place_mm=mm) for i, mm in enumerate([5.0, 0.0, 2.5, 10.0, 5.0])])
    >>> volume.order, volume.spacing_mm, volume.missing, volume.duplicates
    ((1, 2, 0, 4, 3), 2.5, 1, 1)
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Generic, TypeVar

from client.imaging.geometry import Vector

Named = TypeVar("Named", bound=Hashable)
SAME_PLACE_MM = 0.01
GAP = 1.5  # times the usual distance
PARALLEL_DIGITS = 2  # scanners write cosines with five, and round


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice(Generic[Named]):
    """One slice; `name` is the caller's."""

    name: Named
    normal: Vector | None
    place_mm: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Generic[Named]):
    """Parallel slices in their order. `missing`: how many would fill the gaps; `duplicates`: how many lie where another one does."""

    order: tuple[Named, ...]
    spacing_mm: float | None
    missing: int
    duplicates: int

    @property
    def is_whole(self) -> bool:
        return not self.missing and not self.duplicates


def sort_slices(slices: Iterable[Slice[Named]]) -> list[Volume[Named]]:
    """The volumes of one series, those with the most slices first. Every slice is in exactly one."""
    stacks: defaultdict[Vector | None, list[Slice[Named]]] = defaultdict(list)
    for each in slices:
        stacks[_direction(each)].append(each)
    volumes = [_volume(stack, is_placed=direction is not None) for direction, stack in stacks.items()]
    return sorted(volumes, key=lambda volume: -len(volume.order))


def _direction(each: Slice[Named]) -> Vector | None:
    if each.normal is None or each.place_mm is None:
        return None
    x, y, z = (round(part, PARALLEL_DIGITS) + 0.0 for part in each.normal)
    return (x, y, z)


def _volume(stack: Sequence[Slice[Named]], *, is_placed: bool) -> Volume[Named]:
    if not is_placed:
        return Volume(order=tuple(each.name for each in stack), spacing_mm=None, missing=0, duplicates=0)
    ordered = sorted(stack, key=lambda each: each.place_mm or 0.0)
    places = [each.place_mm or 0.0 for each in ordered]
    steps = [after - before for before, after in pairwise(places)]
    distances = [step for step in steps if step > SAME_PLACE_MM]
    usual = median(distances) if distances else None
    return Volume(
        order=tuple(each.name for each in ordered),
        spacing_mm=usual,
        missing=sum(round(step / usual) - 1 for step in distances if step > GAP * usual) if usual else 0,
        duplicates=len(steps) - len(distances),
    )

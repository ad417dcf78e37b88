# SPDX-License-Identifier: Apache-2.0
"""Precision, recall and F1: of one class against the rest, and averaged over classes in the three usual ways.

    macro       every class counts alike, however rare: says how rare findings fare
    weighted    every class counts as often as it occurs
    micro       every case counts alike; with one label for a case all three are the accuracy

Averages are over the classes that occur or were answered. A class that occurs and was never answered has no precision of its own (nothing
was claimed), and counts as zero in an average: a model must not look more precise for never naming a class. scikit-learn averages so too.

    C  classes
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """Precision, recall and F1 of several classes in one, each None where there is nobody."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Averages:
    """The three usual ways."""

    macro: Average
    micro: Average
    weighted: Average


def averages(right: Counts, answered: Counts, support: Counts) -> Averages:
    """From how often each class was answered rightly, answered at all, and true. Shapes: (C,) each.

    >>> found = averages(np.array([8, 1]), np.array([10, 2]), np.array([9, 3]))
    >>> round(found.micro.f1, 3), round(found.macro.recall, 3), round(found.weighted.precision, 3)
    (0.75, 0.611, 0.725)
    """
    there = (answered + support) > 0
    right, answered, support = right[there], answered[there], support[there]
    precision, recall = _shares(right, answered), _shares(right, support)
    f1 = _shares(2 * right, answered + support)
    weights = support / support.sum() if support.sum() else None
    return Averages(
        macro=Average(precision=_mean(precision), recall=_mean(recall), f1=_mean(f1)),
        micro=Average(
            precision=ratio(right.sum(), answered.sum()),
            recall=ratio(right.sum(), support.sum()),
            f1=ratio(2 * right.sum(), (answered + support).sum()),
        ),
        weighted=Average(precision=_mean(precision, weights), recall=_mean(recall, weights), f1=_mean(f1, weights))
        if weights is not None
        else Average(precision=None, recall=None, f1=None),
    )


def ratio(part: float, whole: float) -> float | None:
    """None where there is nothing to divide by."""
    return float(part) / float(whole) if whole else None


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of what could be said."""
    said = [value for value in values if value is not None]
    return sum(said) / len(said) if said else None


def _shares(part: Counts, whole: Counts) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> float | None:
    return float(np.average(values, weights=weights)) if len(values) else None

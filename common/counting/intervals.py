# SPDX-License-Identifier: Apache-2.0
"""How sure one can be of a figure that was read off noised counts.

Two things make it uncertain: which patients happened to be counted, and the noise. Both are played again, a thousand times: counts are
drawn anew around the table that was most likely seen (each cell Poisson, the parametric bootstrap; Efron and Tibshirani 1993, chapter 6),
noise of the known size is added, and the figure is worked out as before. The middle 95 % of what comes out, laid around the figure itself,
is the interval. The noise is public, so nothing is hidden in it; what a noised table most likely was is the nearest one without negative
cells whose rows have the same sums.

A figure that cannot be said, for want of patients beside the noise, is None.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

COVERAGE: Final = 0.95
RESAMPLES: Final = 1000
_SEED: Final = 0

Table = NDArray[np.float64]
Figure = Callable[[Table], NDArray[np.float64]]
"""From tables (..., rows, columns) to a number for each, (...)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def played_again(table: Table, noise_sd: float, *, patients: bool) -> Table:
    """Tables like this one, (resamples, rows, columns); with `patients`, as other patients would have filled it.

    The same table gives the same ones. Shapes: table (rows, columns).
    """
    rng = np.random.default_rng(_SEED)
    shape = (RESAMPLES, *table.shape)
    drawn = rng.poisson(nearest(table), size=shape).astype(np.float64) if patients else np.broadcast_to(table, shape)
    return drawn + rng.normal(0.0, noise_sd, size=shape)


def estimate(figure: Figure, table: Table, again: Table, *, most: float = np.inf) -> Estimate:
    """A figure of a table, from 0 to `most`, with the interval that the tables played again allow."""
    value, spread = float(figure(table)), figure(again)
    low, middle, high = np.quantile(spread, [(1 - COVERAGE) / 2, 0.5, (1 + COVERAGE) / 2])
    shown = np.clip([value, value + low - middle, value + high - middle], 0.0, most)
    return Estimate(value=float(shown[0]), low=float(shown[1]), high=float(shown[2]))


def nearest(table: Table) -> Table:
    """The nearest table without negative cells whose rows have the same sums; a row whose sum is not positive is empty.

    Euclidean projection on a simplex, a row at a time (Duchi et al. 2008, https://doi.org/10.1145/1390156.1390191, figure 1).

    >>> nearest(np.array([[3.0, -1.0, 2.0], [-1.0, 0.0, 0.5]])).tolist()
    [[2.5, 0.0, 1.5], [0.0, 0.0, 0.0]]
    """
    total = np.maximum(table.sum(axis=1), 0.0)
    ordered = -np.sort(-table, axis=1)
    excess = (np.cumsum(ordered, axis=1) - total[:, None]) / np.arange(1, table.shape[1] + 1)
    kept = np.maximum((ordered > excess).sum(axis=1), 1)
    return np.asarray(np.maximum(table - np.take_along_axis(excess, kept[:, None] - 1, axis=1), 0.0))

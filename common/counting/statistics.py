# SPDX-License-Identifier: Apache-2.0
"""STAT: what the training data are like, asked once, before the first round.

One unit writes its class (a one in one cell; without classes, in the only one) and, if asked, the mean and the mean square of its images'
stored intensity, each less a half. Intensities are in [0, 1], so both are within a half of zero, and a form is at most

    sqrt(1 + 1/4 + 1/4)        units long; without the halves taken away it would be sqrt(3)

The federation's mean is then 1/2 + sum / number, and so the mean square: every patient counts alike, however many images there are.
Rounding is to the nearest step of the lattice and never carries a value past its half.

A later plan may take its [input] mean and std from this; the plan that asked must not, since it was agreed before.
"""

import math
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from common.counting.form import Counted, Form, Steps, grid_of
from common.counting.intervals import Estimate, Table, estimate, played_again
from common.plan import Plan
from common.privacy import statistic_charge
from common.secagg.terms import Kind

_HALF = 0.5
_SAYABLE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatisticFigures:
    """What the noised sum says. Intervals are of the noise alone: the patients counted are all that there are.

    `classes` are units of each class in the plan's order, empty if they were not asked for; `mean` and `std` of the stored intensity in
    [0, 1], None if not asked for, or not to be said beside the noise.
    """

    units: Estimate
    noise_sd: float
    num_sites: int
    classes: tuple[Estimate, ...]
    mean: Estimate | None
    std: Estimate | None


def form(plan: Plan) -> Form:
    """Raises: EpsilonImpossible."""
    spec = plan.statistics
    assert spec is not None
    intensity = ("intensity - 1/2", "squared intensity - 1/2") if spec.intensity else ()
    norm_squared = 1.0 + len(intensity) * _HALF**2
    cells = (*_classes(plan), *intensity)
    charge = statistic_charge(plan)
    return Form(kind=Kind.STAT, rounds=range(1, 2), cells=cells, norm_squared=norm_squared, charge=charge, grid=grid_of(plan))


def count(plan: Plan, labels: NDArray[np.int64], means: NDArray[np.float64], squares: NDArray[np.float64]) -> Steps:
    """The sum of the forms of these units, without noise.

    Shapes: labels, means and squares (U,), the latter of each unit's intensity in [0, 1]; result (cells,), in steps.
    """
    filled, classes = form(plan), len(_classes(plan))
    written = np.bincount(labels if classes > 1 else np.zeros_like(labels), minlength=classes).astype(np.int64) * filled.steps
    if len(filled.cells) == classes:
        return written
    values = np.stack([means, squares]).clip(0.0, 1.0) - _HALF
    return np.concatenate([written, np.rint(values * filled.steps).astype(np.int64).sum(axis=1)])


def figures(plan: Plan, counted: Counted) -> StatisticFigures:
    """What a noised sum says of the data. The same sum gives the same figures."""
    classes = len(_classes(plan))
    table = counted.values[None, :]
    again = played_again(table, counted.noise_sd, patients=False)

    def units(t: Table) -> NDArray[np.float64]:
        return np.asarray(t[..., 0, :classes].sum(axis=-1))

    def moment(t: Table, which: int) -> NDArray[np.float64]:
        return np.asarray(_HALF + t[..., 0, classes + which] / units(t))

    def std(t: Table) -> NDArray[np.float64]:
        return np.sqrt(np.maximum(moment(t, 1) - moment(t, 0) ** 2, 0.0))

    spec = plan.statistics
    assert spec is not None
    sayable = spec.intensity and float(units(table)) >= max(1.0, _SAYABLE * counted.noise_sd * math.sqrt(classes))
    return StatisticFigures(
        units=estimate(units, table, again),
        noise_sd=counted.noise_sd,
        num_sites=counted.num_sites,
        classes=tuple(estimate(itemgetter((..., 0, cell)), table, again) for cell in range(classes)) if spec.classes else (),
        mean=estimate(lambda t: moment(t, 0), table, again, most=1.0) if sayable else None,
        std=estimate(std, table, again, most=_HALF) if sayable else None,
    )


def _classes(plan: Plan) -> tuple[str, ...]:
    spec = plan.statistics
    assert spec is not None
    return plan.classification.classes if spec.classes else ("all",)

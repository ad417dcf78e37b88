# SPDX-License-Identifier: Apache-2.0
"""How well noised counts will tell trials apart: worked out before anybody is asked.

The counts that a middling model would give of the patients who will be judged are filled in, without patients; the noise is known; the rest
is the interval that the same figures will carry later (common/counting). A search whose scores could not be read at all is refused.

Middling is an area under the curve of 0.85 (two Gaussians of log-odds, as a well calibrated model would give), or of more classes seven in
ten right.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from common.counting import evaluation, form_of
from common.counting.form import Counted
from common.counting.intervals import Estimate
from common.plan import Plan
from common.secagg.terms import Kind
from simulations.tuning.space import Metric

_AUC: Final = 0.85
_RIGHT: Final = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """Standard deviation of the noise in a count, and half the width of a score's 95 % interval; None if no score could be read."""

    noise_sd: float
    half_width: float | None


def foresee(plan: Plan, judged: Sequence[Sequence[int]], *, num_sites: int, metric: Metric) -> Precision:
    """For the plan of a trial, and the patients of each class that each fold judges. The score is a mean over folds."""
    noise_sd = form_of(plan, Kind.EVAL).noise_sd(num_sites)
    found = [_estimate(plan, classes, num_sites, noise_sd, metric) for classes in judged]
    widths = [(each.high - each.low) / 2 for each in found if each is not None]
    if len(widths) < len(found):
        return Precision(noise_sd=noise_sd, half_width=None)
    return Precision(noise_sd=noise_sd, half_width=math.sqrt(sum(width**2 for width in widths)) / len(widths))


def figure(found: evaluation.EvaluationFigures, metric: Metric) -> Estimate | None:
    """The figure by which trials are chosen."""
    return found.auc if metric == "auc" else found.balanced_accuracy


def _estimate(plan: Plan, classes: Sequence[int], num_sites: int, noise_sd: float, metric: Metric) -> Estimate | None:
    table = _two(plan, classes) if len(classes) == 2 else _more(classes)
    counted = Counted(values=table.reshape(-1), num_sites=num_sites, noise_sd=noise_sd)
    return figure(evaluation.figures(plan, counted), metric)


def _two(plan: Plan, classes: Sequence[int]) -> NDArray[np.float64]:
    """Log-odds are Gaussian, of variance d^2 around -d^2/2 and d^2/2: an area under the curve of Phi(d / sqrt(2)); (2, bins)."""
    apart = math.sqrt(2) * float(norm.ppf(_AUC))
    between = [math.log(edge / (1 - edge)) for edge in evaluation.edges(plan)[1:-1]]
    centre = between[(len(between) + 1) // 2 - 1]  # the plan's threshold
    edges = [-math.inf, *(edge - centre for edge in between), math.inf]
    shares = [
        [norm.cdf(high, mean, apart) - norm.cdf(low, mean, apart) for low, high in pairwise(edges)]
        for mean in (-(apart**2) / 2, apart**2 / 2)
    ]
    return np.asarray(shares, dtype=np.float64) * np.asarray(classes, dtype=np.float64)[:, None]


def _more(classes: Sequence[int]) -> NDArray[np.float64]:
    """A confusion matrix whose errors are spread evenly, (C, C)."""
    wrong = (1 - _RIGHT) / (len(classes) - 1)
    return (np.full((len(classes), len(classes)), wrong) + np.eye(len(classes)) * (_RIGHT - wrong)) * np.asarray(classes, dtype=np.float64)[
        :, None
    ]

# SPDX-License-Identifier: Apache-2.0
"""Whether acting on a model does more good than acting on everyone or on no one: the decision curve.

A doctor who would work up a finding at a probability of p_t holds one missed finding to be as bad as (1 - p_t) / p_t needless work-ups.
Counted in findings, whoever acts on the model at that threshold gains, for each patient seen,

    net benefit = true positives / N  -  false positives / N * p_t / (1 - p_t)

beside nothing for acting on no one, and  prevalence - (1 - prevalence) * p_t / (1 - p_t)  for acting on everyone (Vickers and Elkin 2006,
https://doi.org/10.1177/0272989X06295361). A model is of use at the thresholds where it lies above both. The comparison is of the
probabilities as they are: a badly calibrated model can order patients well and still do harm at a given threshold.

The prevalence is that of the patients judged; where a hold-out has more ill patients than a clinic, so has the curve.

    N  patients      T  thresholds      R  resamples
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.tasks.bootstrap import Interval, interval_of, resampled

THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPoint:
    """One threshold: the model's net benefit with its 95 % interval over patients, and that of acting on everyone. On no one: 0."""

    threshold: float
    model: float
    interval: Interval | None
    everyone: float


def decision_curve(
    scores: NDArray[np.floating],
    positive: NDArray[np.bool_],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    resamples: int = 0,
    seed: int = 0,
) -> tuple[DecisionPoint, ...]:
    """Shapes: scores (N,) in [0, 1], positive (N,). Empty where nobody is. Thresholds lie inside (0, 1).

    >>> found = decision_curve(np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, False, True, False]), thresholds=[0.25, 0.5])
    >>> [(point.threshold, round(point.model, 3), round(point.everyone, 3)) for point in found]
    [(0.25, 0.417, 0.333), (0.5, 0.0, 0.0)]
    """
    if len(scores) == 0:
        return ()
    at = np.asarray(thresholds, dtype=np.float64)
    gains = _gain_of_each(scores, positive, at)
    means = resampled(len(scores), resamples=resamples, seed=seed) @ gains.T / len(scores)
    prevalence, odds = float(positive.mean()), at / (1 - at)
    return tuple(
        DecisionPoint(
            threshold=float(threshold),
            model=float(gains[place].mean()),
            interval=interval_of(means[:, place]) if resamples else None,
            everyone=prevalence - (1 - prevalence) * float(odds[place]),
        )
        for place, threshold in enumerate(at)
    )


def useful_range(curve: Sequence[DecisionPoint]) -> tuple[float, float] | None:
    """The longest run of thresholds at which the model does better than acting on everyone and on no one; None if there is none."""
    runs: list[list[float]] = [[]]
    for point in curve:
        if point.model > max(point.everyone, 0.0):
            runs[-1].append(point.threshold)
        elif runs[-1]:
            runs.append([])
    longest = max(runs, key=len)
    return (longest[0], longest[-1]) if longest else None


def _gain_of_each(scores: NDArray[np.floating], positive: NDArray[np.bool_], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """What acting on each patient gains at each threshold, (T, N): 1 for a finding, minus the odds for none, 0 where nobody acts."""
    acted = scores.astype(np.float64)[None, :] >= at[:, None]
    return np.where(acted, np.where(positive[None, :], 1.0, -(at / (1 - at))[:, None]), 0.0)

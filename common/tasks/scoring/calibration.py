# SPDX-License-Identifier: Apache-2.0
"""Whether a probability can be taken at its word: of the patients told 20 %, do 20 % have the finding?

    ECE         sum over bins of  share of cases * |mean probability - frequency|  (Naeini et al. 2015); the gap on average, and 0 at best
    largest     the largest such gap of a bin
    Brier       mean squared distance of the probability from what was so (Brier 1950); falls with better order and with better calibration
    slope       of the logistic regression of the finding on the log-odds foretold (Cox 1958): below 1, probabilities are too extreme
    intercept   of the same with the slope held at 1 ("in the large"): below 0, the finding is foretold too often

They are of the second class of two; of more classes, of whether the likeliest class is right, and Brier's score sums over classes (0 to 2).
The ECE is of the bins that the report draws. It is never 0 on few patients, however good the model, and is larger still on resamples of
them, so a percentile interval of it would not hold the truth as often as it says: it has none. Brier's score, a mean, has.

    N  images or patients      C  classes
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.tasks.curves import calibration_bins

_EXTREME = 1e-6
"""Log-odds of a probability of 0 or 1 would be infinite; rounded to six decimals it is this far from either."""
_STEPS, _SETTLED = 100, 1e-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Each None where it cannot be said: nobody there, or findings that a threshold parts without error (no slope then exists)."""

    ece: float | None
    largest_gap: float | None
    brier: float | None
    slope: float | None
    intercept: float | None


def calibration(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> Calibration:
    """Shapes: probabilities (N, C), rows summing to 1; labels (N,)."""
    if len(labels) == 0:
        return Calibration(ece=None, largest_gap=None, brier=None, slope=None, intercept=None)
    foretold, so = confidence(probabilities, labels)
    bins = calibration_bins(foretold, so)
    gaps = [(group.count / len(so), abs(group.mean_probability - group.frequency)) for group in bins]
    log_odds = _log_odds(foretold)
    both = so.any() and not so.all()
    fitted = (
        _logistic(np.stack([np.ones(len(so)), log_odds], axis=1), so, np.zeros(len(so))) if both and not _parted(log_odds, so) else None
    )
    shifted = _logistic(np.ones((len(so), 1)), so, log_odds) if both else None
    return Calibration(
        ece=float(sum(share * gap for share, gap in gaps)),
        largest_gap=max(gap for _, gap in gaps),
        brier=float(brier_of_each(probabilities, labels).mean()),
        slope=None if fitted is None else float(fitted[1]),
        intercept=None if shifted is None else float(shifted[0]),
    )


def confidence(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What was foretold of each case, (N,), and whether it was so, (N,): the second class of two, or the likeliest of more."""
    if probabilities.shape[1] == 2:
        return probabilities[:, 1].astype(np.float32), labels == 1
    return probabilities.max(axis=1).astype(np.float32), probabilities.argmax(axis=1) == labels


def brier_of_each(probabilities: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared distance of each case, (N,): of the second class's probability, or with more classes summed over them."""
    distances = (probabilities.astype(np.float64) - np.eye(probabilities.shape[1])[labels]) ** 2
    return distances[:, 1] if probabilities.shape[1] == 2 else distances.sum(axis=1)


def _log_odds(probability: NDArray[np.float32]) -> NDArray[np.float64]:
    clipped = np.clip(probability.astype(np.float64), _EXTREME, 1 - _EXTREME)
    return np.log(clipped) - np.log1p(-clipped)


def _parted(log_odds: NDArray[np.float64], so: NDArray[np.bool_]) -> bool:
    """Whether a threshold parts the two kinds, so that the steeper a curve is the likelier it is, without end."""
    return bool(log_odds[~so].max() <= log_odds[so].min() or log_odds[so].max() <= log_odds[~so].min())


def _logistic(columns: NDArray[np.float64], so: NDArray[np.bool_], offset: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Coefficients of greatest likelihood by Newton's steps, halved where they overshoot; None where there is no finite greatest one."""
    beta = np.zeros(columns.shape[1])
    for _ in range(_STEPS):
        fitted = _sigmoid(columns @ beta + offset)
        information = columns.T @ (columns * (fitted * (1 - fitted))[:, None])
        try:
            step = np.linalg.solve(information, columns.T @ (so - fitted))
        except np.linalg.LinAlgError:
            return None
        likelihood = _log_likelihood(columns @ beta + offset, so)
        while _log_likelihood(columns @ (beta + step) + offset, so) < likelihood and np.abs(step).max() > _SETTLED:
            step /= 2
        beta = beta + step
        if np.abs(step).max() < _SETTLED:
            return beta
    return None


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -z))


def _log_likelihood(z: NDArray[np.float64], so: NDArray[np.bool_]) -> float:
    return float(-np.logaddexp(0, np.where(so, -z, z)).sum())

# SPDX-License-Identifier: Apache-2.0
"""The points that a report draws: the ROC curve and the calibration of probabilities.

N  images or patients
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """Corners of the curve from (0, 0) to (1, 1); at each, everything scored at least `threshold` is called positive."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    threshold: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Predictions of a similar probability: what was said on average, and how often it was so."""

    count: int
    mean_probability: float
    frequency: float


def roc_curve(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> RocCurve | None:
    """Shapes: scores (N,), positive (N,). None if one of the two classes is absent. Equal scores make one straight line."""
    if positive.all() or not positive.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], positive[order]
    last_of_equals = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    true, false = np.cumsum(hits)[last_of_equals], np.cumsum(~hits)[last_of_equals]
    return RocCurve(
        false_positive_rate=(0.0, *(false / false[-1]).tolist()),
        true_positive_rate=(0.0, *(true / true[-1]).tolist()),
        threshold=(1.0, *ordered[last_of_equals].astype(float).tolist()),
    )


def calibration_bins(scores: NDArray[np.float32], positive: NDArray[np.bool_], *, bins: int = 10) -> tuple[CalibrationBin, ...]:
    """Equal-width bins of the probability, empty ones left out. Shapes: scores (N,) in [0, 1], positive (N,)."""
    index = np.minimum((scores * bins).astype(np.int64), bins - 1)
    return tuple(
        CalibrationBin(
            count=int((index == b).sum()),
            mean_probability=float(scores[index == b].mean()),
            frequency=float(positive[index == b].mean()),
        )
        for b in range(bins)
        if (index == b).any()
    )

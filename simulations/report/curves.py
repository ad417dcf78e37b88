# SPDX-License-Identifier: Apache-2.0
"""What the ROC and calibration drawings are made of, from one row of probabilities and one label per held-out patient.

The points are those of `common.tasks`. Added here: the operating point, and an interval for each bin of the calibration. That is Wilson's
(1927), which stays inside [0, 1] and says something even of a bin in which everyone, or no one, has the finding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.tasks import CalibrationBin, calibration_bins, roc_curve
from common.tasks.scoring.proportion import wilson
from simulations.report import numbers
from simulations.report.folder import Predictions
from simulations.report.scores import ModelScores

NUM_BINS = 10
CLASSES_DRAWN = 6
"""As many as can be told apart in one drawing; the table of classes has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """One class against the rest; the operating point is (1 - specificity, sensitivity) at the plan's threshold."""

    label: str
    false_positive: tuple[float, ...]
    true_positive: tuple[float, ...]
    operating_point: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Predictions of a similar probability: the mean foretold, the share found with its 95 % interval, and how many they are."""

    left: float
    right: float
    foretold: float
    found: float
    low: float
    high: float
    count: int


def roc(predictions: Predictions, names: Sequence[str], federated: ModelScores | None) -> list[RocCurve]:
    """A curve for the positive class of two, or for each of the first few of many; none for a class that everyone or no one has."""
    probabilities_NC, labels_N = arrays(predictions)
    classes = range(probabilities_NC.shape[1])
    drawn = [1] if len(classes) == 2 else list(classes)[:CLASSES_DRAWN]
    point = _operating_point(federated) if len(classes) == 2 else None
    found = []
    for index in drawn:
        curve = roc_curve(probabilities_NC[:, index], labels_N == index)
        if curve is not None:
            label = names[index] if index < len(names) else f"class {index}"
            false, true = curve.false_positive_rate, curve.true_positive_rate
            found.append(RocCurve(label=label, false_positive=false, true_positive=true, operating_point=point))
    return found


def arrays(predictions: Predictions) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities (N, C) and labels (N,)."""
    return np.array(predictions.federated, dtype=np.float32), np.array(predictions.labels, dtype=np.int64)


def describe(curve: RocCurve) -> str:
    """The numbers that a reader takes from the drawing."""
    at_90 = max(true for false, true in zip(curve.false_positive, curve.true_positive, strict=True) if false <= 0.1)
    words = f"{curve.label}, sensitivity {numbers.decimals(at_90, 2)} at a specificity of at least 0.90"
    if curve.operating_point is None:
        return words
    false, true = curve.operating_point
    return f"{words}; at the threshold sensitivity {numbers.decimals(true, 2)}, specificity {numbers.decimals(1 - false, 2)}"


def calibration(predictions: Predictions) -> list[Bin]:
    """Bins that hold anyone: of the positive class of two, else of the likeliest class and whether it was right."""
    probabilities_NC, labels_N = arrays(predictions)
    if probabilities_NC.shape[1] == 2:
        found = calibration_bins(probabilities_NC[:, 1], labels_N == 1, bins=NUM_BINS)
    else:
        found = calibration_bins(probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1) == labels_N, bins=NUM_BINS)
    return [_with_interval(group) for group in found]


def _operating_point(federated: ModelScores | None) -> tuple[float, float] | None:
    if federated is None or [len(row) for row in federated.confusion] != [2, 2]:
        return None
    (true_negative, false_positive), (false_negative, true_positive) = federated.confusion
    if not true_negative + false_positive or not true_positive + false_negative:
        return None
    return false_positive / (true_negative + false_positive), true_positive / (true_positive + false_negative)


def _with_interval(group: CalibrationBin) -> Bin:
    interval = wilson(round(group.frequency * group.count), group.count)
    assert interval is not None  # empty bins are left out
    index = min(int(group.mean_probability * NUM_BINS), NUM_BINS - 1)
    return Bin(
        left=index / NUM_BINS,
        right=(index + 1) / NUM_BINS,
        foretold=group.mean_probability,
        found=group.frequency,
        low=interval.low,
        high=interval.high,
        count=group.count,
    )

# SPDX-License-Identifier: Apache-2.0
"""Points of the ROC and calibration drawings, from one row of probabilities and one label per held-out patient.

Patients with equal probabilities enter the ROC curve together, so its corners do not depend on the order of the file. Calibration counts
patients in ten bins of equal width; the interval of the share found is Wilson's (1927), which stays inside [0, 1] and says something even
of a bin in which everyone, or no one, has the finding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.report import numbers
from simulations.report.folder import Predictions
from simulations.report.scores import ModelScores

NUM_BINS = 10
CLASSES_DRAWN = 6
"""As many as can be told apart in one drawing; the table of classes has all of them."""
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """One class against the rest; the operating point is (1 - specificity, sensitivity) at the plan's threshold."""

    label: str
    false_positive: tuple[float, ...]
    true_positive: tuple[float, ...]
    operating_point: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Patients of similar foretold probability: the mean foretold, the share found with its 95 % interval."""

    left: float
    right: float
    foretold: float
    found: float
    low: float
    high: float
    patients: int


def roc(predictions: Predictions, names: Sequence[str], federated: ModelScores | None) -> list[RocCurve]:
    """A curve for the positive class of two, or for each of the first few of many; none for a class that everyone or no one has."""
    probabilities_NC, labels_N = np.array(predictions.federated), np.array(predictions.labels)
    classes = range(probabilities_NC.shape[1])
    drawn = [1] if len(classes) == 2 else list(classes)[:CLASSES_DRAWN]
    point = _operating_point(federated) if len(classes) == 2 else None
    return [
        _curve(probabilities_NC[:, index], labels_N == index, names[index] if index < len(names) else f"class {index}", point)
        for index in drawn
        if 0 < np.count_nonzero(labels_N == index) < labels_N.size
    ]


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
    probabilities_NC, labels_N = np.array(predictions.federated), np.array(predictions.labels)
    if probabilities_NC.shape[1] == 2:
        foretold_N, found_N = probabilities_NC[:, 1], labels_N == 1
    else:
        foretold_N, found_N = probabilities_NC.max(axis=1), probabilities_NC.argmax(axis=1) == labels_N
    bin_N = np.clip((foretold_N * NUM_BINS).astype(int), 0, NUM_BINS - 1)
    return [_bin(index, foretold_N[bin_N == index], found_N[bin_N == index]) for index in np.unique(bin_N)]


def _curve(scores_N: NDArray[np.float64], positive_N: NDArray[np.bool_], label: str, point: tuple[float, float] | None) -> RocCurve:
    order = np.argsort(-scores_N, kind="stable")
    last_of_equals = np.append(np.diff(scores_N[order]) != 0, True)
    true, false = (np.cumsum(hits[order])[last_of_equals] / np.count_nonzero(hits) for hits in (positive_N, ~positive_N))
    return RocCurve(label=label, false_positive=(0.0, *false.tolist()), true_positive=(0.0, *true.tolist()), operating_point=point)


def _operating_point(federated: ModelScores | None) -> tuple[float, float] | None:
    if federated is None or len(federated.confusion) != 2:
        return None
    (true_negative, false_positive), (false_negative, true_positive) = federated.confusion
    if not true_negative + false_positive or not true_positive + false_negative:
        return None
    return false_positive / (true_negative + false_positive), true_positive / (true_positive + false_negative)


def _bin(index: int, foretold_n: NDArray[np.float64], found_n: NDArray[np.bool_]) -> Bin:
    low, high = wilson(int(np.count_nonzero(found_n)), found_n.size)
    return Bin(
        left=index / NUM_BINS,
        right=(index + 1) / NUM_BINS,
        foretold=float(foretold_n.mean()),
        found=float(found_n.mean()),
        low=low,
        high=high,
        patients=found_n.size,
    )


def wilson(hits: int, size: int) -> tuple[float, float]:
    """The 95 % score interval of a share.

    >>> [round(edge, 3) for edge in wilson(0, 10)]
    [0.0, 0.278]
    """
    share, z2 = hits / size, _Z95**2
    centre = (share + z2 / (2 * size)) / (1 + z2 / size)
    half = _Z95 * math.sqrt(share * (1 - share) / size + z2 / (4 * size**2)) / (1 + z2 / size)
    return max(0.0, centre - half), min(1.0, centre + half)

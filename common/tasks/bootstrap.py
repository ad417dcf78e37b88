# SPDX-License-Identifier: Apache-2.0
"""How sure one can be of a score: percentile intervals by resampling patients.

A resample of M patients with replacement is a vector of M counts, so a thousand resamples are one matrix, and every score is linear algebra
on it: the confusion matrix is a product, and the AUC a cumulative sum over patients in the order of their score,

    AUC = sum over positives p of  w_p * (weight of negatives below p  +  half of those level with p)  /  (W_pos * W_neg).

(Efron and Tibshirani 1993, chapter 13.) A resample in which a score cannot be said, for want of a class, is left out of that score; the
interval is None if more than half of them are.

    M  patients      R  resamples      C  classes
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COVERAGE = 0.95

PatientWeights = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def intervals(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], said: NDArray[np.int64], *, resamples: int, seed: int
) -> dict[str, Interval | None]:
    """Intervals of AUC, accuracy and balanced accuracy.

    Shapes: probabilities (M, C), labels (M,), said (M,) the class decided on. The same seed gives the same resamples for any predictions
    on the same patients, so that differences between models are paired.
    """
    if len(labels) == 0:
        return dict.fromkeys(("auc", "accuracy", "balanced_accuracy"))
    counts = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=resamples).astype(np.float64)
    return {
        "auc": interval_of(auc_by_weight(probabilities, labels, counts)),
        "accuracy": interval_of(counts @ (said == labels) / len(labels)),
        "balanced_accuracy": interval_of(_balanced_accuracy(labels, said, counts, probabilities.shape[1])),
    }


def sensitivity_by_weight(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], weights: PatientWeights, *, false_positive: float
) -> NDArray[np.float64]:
    """The largest share of positives found at a false-positive rate of at most `false_positive`, for each row of weights, (R,).

    Shapes: scores (M,), positive (M,), weights (R, M). NaN where a resample lacks one of the two classes. Equal scores are told apart by
    no threshold.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, weights, positive = scores[order], weights[:, order], positive[order]
    last_of_equals = np.append(ordered[1:] != ordered[:-1], True)
    found, wrong = np.cumsum(weights * positive, axis=1), np.cumsum(weights * ~positive, axis=1)
    allowed = last_of_equals & (wrong <= false_positive * wrong[:, -1:])
    share = _quotient(np.where(allowed, found, 0).max(axis=1), found[:, -1])
    share[wrong[:, -1] == 0] = np.nan
    return share


def auc_by_weight(probabilities: NDArray[np.float32], labels: NDArray[np.int64], weights: PatientWeights) -> NDArray[np.float64]:
    """AUC for each row of patients' weights, (R,); NaN where it cannot be said.

    With more than two classes, the mean over classes of one against the rest.
    """
    num_classes = probabilities.shape[1]
    if num_classes == 2:
        return _binary_auc(probabilities[:, 1], labels == 1, weights)
    return _mean_of_said(np.stack([_binary_auc(probabilities[:, c], labels == c, weights) for c in range(num_classes)]))


def interval_of(values: NDArray[np.float64]) -> Interval | None:
    """The interval that resampled values (R,) span; None if more than half of them are NaN."""
    said = values[~np.isnan(values)]
    if 2 * len(said) <= len(values):
        return None
    low, high = np.quantile(said, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(low=float(low), high=float(high))


def _binary_auc(scores: NDArray[np.float32], positive: NDArray[np.bool_], weights: PatientWeights) -> NDArray[np.float64]:
    order = np.argsort(scores, kind="stable")
    # Where a run of equal scores begins, and one past its end, for each place in the order.
    ordered = scores[order]
    begin, end = np.searchsorted(ordered, ordered, side="left"), np.searchsorted(ordered, ordered, side="right")
    weights, is_positive = weights[:, order], positive[order]
    negatives = np.pad(np.cumsum(weights * ~is_positive, axis=1), ((0, 0), (1, 0)))
    below = (negatives[:, begin] + negatives[:, end]) / 2
    positives = weights * is_positive
    return _quotient((positives * below).sum(axis=1), positives.sum(axis=1) * negatives[:, -1])


def _balanced_accuracy(
    labels: NDArray[np.int64], said: NDArray[np.int64], weights: PatientWeights, num_classes: int
) -> NDArray[np.float64]:
    recalls = [_quotient(weights @ ((labels == c) & (said == c)), weights @ (labels == c)) for c in range(num_classes)]
    return _mean_of_said(np.stack(recalls))


def _quotient(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def _mean_of_said(values: NDArray[np.float64]) -> NDArray[np.float64]:
    said = ~np.isnan(values)
    return _quotient(np.where(said, values, 0).sum(axis=0), said.sum(axis=0).astype(np.float64))

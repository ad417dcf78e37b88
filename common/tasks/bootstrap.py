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
FALSE_ALARMS = 0.1
"""One in ten of those without the finding, a specificity of 90 %: where the sensitivities of two models are compared."""

PatientWeights = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def resampled(patients: int, *, resamples: int, seed: int) -> PatientWeights:
    """How often each patient is drawn in each resample, (R, M).

    The same seed gives the same resamples for any predictions on the same patients, so that differences between models are paired.
    """
    if patients == 0:
        return np.zeros((resamples, 0))
    drawn = np.random.default_rng(seed).multinomial(patients, np.full(patients, 1 / patients), size=resamples)
    return drawn.astype(np.float64)


def mean_by_weight(values: NDArray[np.floating], weights: PatientWeights) -> NDArray[np.float64]:
    """The mean of patients' own figures for each row of weights, (R,). Shapes: values (M,), NaN for who has none; weights (R, M)."""
    said = ~np.isnan(values)
    return quotient(weights[:, said] @ values[said].astype(np.float64), weights[:, said].sum(axis=1))


def intervals(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], said: NDArray[np.int64], *, resamples: int, seed: int
) -> dict[str, Interval | None]:
    """Intervals of what is read first of a classification; with two classes also of the second one's probability.

    Shapes: probabilities (M, C), labels (M,), said (M,) the class decided on.
    """
    weights = resampled(len(labels), resamples=resamples, seed=seed)
    named = {
        "auc": auc_by_weight(probabilities, labels, weights),
        "accuracy": mean_by_weight((said == labels).astype(np.float64), weights),
        "balanced_accuracy": _balanced_accuracy(labels, said, weights, probabilities.shape[1]),
        "macro_f1": macro_f1_by_weight(labels, said, weights, probabilities.shape[1]),
    }
    if probabilities.shape[1] == 2:
        ill, chance = labels == 1, probabilities[:, 1]
        named |= {
            "sensitivity_at_90_specificity": sensitivity_by_weight(chance, ill, weights, false_positive=FALSE_ALARMS),
        }
    return {name: interval_of(values) for name, values in named.items()}


def macro_f1_by_weight(
    labels: NDArray[np.int64], said: NDArray[np.int64], weights: PatientWeights, num_classes: int
) -> NDArray[np.float64]:
    """The mean F1 of the classes that occur or were answered, for each row of weights, (R,)."""
    each = []
    for c in range(num_classes):
        true, answered = labels == c, said == c
        each.append(quotient(2 * (weights @ (true & answered)), weights @ true + weights @ answered))
    return mean_of_said(np.stack(each))


def sensitivity_by_weight(
    scores: NDArray[np.floating], positive: NDArray[np.bool_], weights: PatientWeights, *, false_positive: float
) -> NDArray[np.float64]:
    """The largest share of positives found at a false-positive rate of at most `false_positive`, for each row of weights, (R,).

    Shapes: scores (M,), positive (M,), weights (R, M). NaN where a resample lacks one of the two classes. Equal scores are told apart by
    no threshold.
    """
    if len(scores) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(-scores, kind="stable")
    ordered, weights, positive = scores[order], weights[:, order], positive[order]
    last_of_equals = np.append(ordered[1:] != ordered[:-1], True)
    found, wrong = np.cumsum(weights * positive, axis=1), np.cumsum(weights * ~positive, axis=1)
    allowed = last_of_equals & (wrong <= false_positive * wrong[:, -1:])
    share = quotient(np.where(allowed, found, 0).max(axis=1), found[:, -1])
    share[wrong[:, -1] == 0] = np.nan
    return share


def auc_by_weight(probabilities: NDArray[np.float32], labels: NDArray[np.int64], weights: PatientWeights) -> NDArray[np.float64]:
    """AUC for each row of patients' weights, (R,); NaN where it cannot be said.

    With more than two classes, the mean over classes of one against the rest.
    """
    num_classes = probabilities.shape[1]
    if num_classes == 2:
        return binary_auc(probabilities[:, 1], labels == 1, weights)
    return mean_of_said(np.stack([binary_auc(probabilities[:, c], labels == c, weights) for c in range(num_classes)]))


def interval_of(values: NDArray[np.float64]) -> Interval | None:
    """The interval that resampled values (R,) span; None if more than half of them are NaN."""
    said = values[~np.isnan(values)]
    if 2 * len(said) <= len(values):
        return None
    low, high = np.quantile(said, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Interval(low=float(low), high=float(high))


def binary_auc(scores: NDArray[np.float32], positive: NDArray[np.bool_], weights: PatientWeights) -> NDArray[np.float64]:
    """AUC of one class against the rest for each row of weights, (R,). Shapes: scores (M,), positive (M,), weights (R, M)."""
    order = np.argsort(scores, kind="stable")
    # Where a run of equal scores begins, and one past its end, for each place in the order.
    ordered = scores[order]
    begin, end = np.searchsorted(ordered, ordered, side="left"), np.searchsorted(ordered, ordered, side="right")
    weights, is_positive = weights[:, order], positive[order]
    negatives = np.pad(np.cumsum(weights * ~is_positive, axis=1), ((0, 0), (1, 0)))
    below = (negatives[:, begin] + negatives[:, end]) / 2
    positives = weights * is_positive
    return quotient((positives * below).sum(axis=1), positives.sum(axis=1) * negatives[:, -1])


def _balanced_accuracy(
    labels: NDArray[np.int64], said: NDArray[np.int64], weights: PatientWeights, num_classes: int
) -> NDArray[np.float64]:
    recalls = [quotient(weights @ ((labels == c) & (said == c)), weights @ (labels == c)) for c in range(num_classes)]
    return mean_of_said(np.stack(recalls))


def quotient(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def mean_of_said(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the first axis of what is not NaN. Shapes: (C, R) -> (R,)."""
    said = ~np.isnan(values)
    return quotient(np.where(said, values, 0).sum(axis=0), said.sum(axis=0).astype(np.float64))

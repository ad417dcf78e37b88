# SPDX-License-Identifier: Apache-2.0
"""From which probability on a finding is called: a threshold chosen on validation patients, and what it does there.

    youden              the largest sensitivity + specificity - 1 (Youden 1950): misses and false alarms weigh alike
    sensitivity=0.95    the highest threshold that misses at most so many: screening
    specificity=0.95    the lowest threshold that alarms falsely at most so often: confirming
    f1                  the largest F1: where what is not there cannot be counted, as of boxes, false alarms are weighed against finds

A threshold chosen on the patients that it is then judged on looks better than it is. So whoever chooses gives validation patients, and
whoever judges gives others; what the validation patients' own figures were is kept only to be compared with the others'.

Thresholds lie half way between two neighbouring scores, so that rounding decides about nobody.

    N  patients      K  thresholds worth trying
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import TooFewPatients
from common.tasks.curves import roc_curve

Aim = Literal["youden", "sensitivity", "specificity", "f1"]
FEWEST_OF_EACH = 5
"""With fewer patients of either kind, a threshold follows single patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How a threshold is chosen. `least` is the sensitivity or specificity to keep; the others have none.

    >>> str(Rule(aim="sensitivity", least=0.95)), str(Rule(aim="youden"))
    ('sensitivity=0.95', 'youden')
    """

    aim: Aim
    least: float | None = None

    def __str__(self) -> str:
        return self.aim if self.least is None else f"{self.aim}={self.least:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """A threshold, and what it did to the `patients` on whom it was chosen. Of boxes there is a precision and no specificity."""

    threshold: float
    rule: str
    sensitivity: float
    specificity: float | None
    patients: int
    precision: float | None = None


def choose(scores: NDArray[np.floating], positive: NDArray[np.bool_], rule: Rule) -> OperatingPoint:
    """The threshold that the rule names, on validation patients. Shapes: scores (N,) in [0, 1], positive (N,).

    Guarantees: `sensitivity` and `specificity` are those of calling everyone whose score reaches `threshold`, and keep `rule.least`.
    Raises: TooFewPatients, with fewer than five patients with the finding, or without.
    """
    with_finding, without = int(positive.sum()), int((~positive).sum())
    if min(with_finding, without) < FEWEST_OF_EACH:
        raise TooFewPatients(
            f"validation: {with_finding} patients with the finding and {without} without; a threshold needs {FEWEST_OF_EACH} of each.",
            fix="Keep the plan's own threshold, or give more validation patients.",
        )
    thresholds, sensitivity, specificity = _candidates(scores, positive)
    best = _best(sensitivity, specificity, rule, odds=without / with_finding)
    return OperatingPoint(
        threshold=float(thresholds[best]),
        rule=str(rule),
        sensitivity=float(sensitivity[best]),
        specificity=float(specificity[best]),
        patients=len(scores),
    )


def _candidates(
    scores: NDArray[np.floating], positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds (K,) from the highest, which calls nobody, to the lowest, which calls everyone, and what each does."""
    curve = roc_curve(scores.astype(np.float32), positive)
    assert curve is not None  # both kinds of patients are there
    upper = np.array(curve.threshold, dtype=np.float32)
    lower = np.append(upper[1:], np.float32(0))
    thresholds = between(upper, lower)
    if lower[0] >= thresholds[0]:
        thresholds[0] = np.nextafter(np.float32(1), np.float32(2))  # somebody scores 1, and this one calls nobody
    return thresholds, np.array(curve.true_positive_rate), 1 - np.array(curve.false_positive_rate)


def between(upper: NDArray[np.float32], lower: NDArray[np.float32]) -> NDArray[np.float32]:
    """What parts scores from the next lower ones. Two may be neighbours even as numbers of 32 bits; then the upper one itself does."""
    middle = (upper + lower) / 2
    return np.where(middle > lower, middle, upper)


def _best(sensitivity: NDArray[np.float64], specificity: NDArray[np.float64], rule: Rule, *, odds: float) -> int:
    """Sensitivity rises and specificity falls along the candidates, so the first, or last, that keeps a promise is the best that does.

    `odds`: patients without the finding for each with it.
    """
    if rule.aim == "youden":
        return int(np.argmax(sensitivity + specificity))
    if rule.aim == "f1":
        return int(np.argmax(2 * sensitivity / (sensitivity + odds * (1 - specificity) + 1)))
    assert rule.least is not None
    if rule.aim == "sensitivity":
        return int(np.argmax(sensitivity >= rule.least))
    return int(np.flatnonzero(specificity >= rule.least)[-1])

# SPDX-License-Identifier: Apache-2.0
"""One class against the rest: what is said of it where a case has one class, and of a finding that is there or not by itself.

What cannot be said is None: the recall of a class that nobody has, the precision of one that was never answered. The arithmetic on whole
sets is torchmetrics', which is imported when it is first needed: it takes a second, and a process that only trains never needs it.

    N  images or patients
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from common.tasks.bootstrap import FALSE_ALARMS, sensitivity_by_weight
from common.tasks.scoring.averages import ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """One class against the others. `support` is how many are truly of it; `recall` is also called sensitivity.

    `average_precision` is the area under precision over recall, which a rare class is better judged by than by the AUC.
    `sensitivity_at_90_specificity`: of those with the class, the share found when one in ten of the others is called falsely.
    """

    name: str
    auc: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    specificity: float | None = None
    average_precision: float | None = None
    sensitivity_at_90_specificity: float | None = None


def class_scores(name: str, scores: NDArray[np.floating], positive: NDArray[np.bool_], said: NDArray[np.bool_]) -> ClassScores:
    """Shapes: scores (N,) probability of the class, positive (N,) whether it is so, said (N,) whether it was called. N may be 0."""
    right, answers, support = int((positive & said).sum()), int(said.sum()), int(positive.sum())
    others = len(positive) - support
    both = 0 < support < len(positive)
    return ClassScores(
        name=name,
        auc=_auc(scores, positive) if both else None,
        precision=ratio(right, answers),
        recall=ratio(right, support),
        f1=ratio(2 * right, support + answers),
        support=support,
        specificity=ratio(others - (answers - right), others),
        average_precision=_average_precision(scores, positive) if both else None,
        sensitivity_at_90_specificity=_sensitivity(scores, positive) if both else None,
    )


def _auc(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    from torchmetrics.functional.classification import binary_auroc

    return float(binary_auroc(_tensor(scores), torch.from_numpy(positive).long()))


def _average_precision(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    from torchmetrics.functional.classification import binary_average_precision

    return float(binary_average_precision(_tensor(scores), torch.from_numpy(positive).long()))


def _sensitivity(scores: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    everyone = np.ones((1, len(scores)))
    return float(sensitivity_by_weight(scores, positive, everyone, false_positive=FALSE_ALARMS)[0])


def _tensor(scores: NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(scores, dtype=np.float32))

# SPDX-License-Identifier: Apache-2.0
"""How good a model is at several findings at once, each there or not by itself (effusion, nodule, cardiomegaly in one radiograph).

Every finding is a question with two answers and is judged like one, on the patients of whom the answer is known: reports leave findings
out, and what was not written is neither there nor absent. A patient's probability is the mean over their images; a finding is there if any
image shows it, absent if it is known of at least one image and shown by none.

    headline        mean AUC over the findings of which it can be said
    exact           share of patients with every finding right, among those of whom all are known (subset accuracy)
    hamming         share of single answers that are wrong

    N  images      M  patients      F  findings
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.tasks.bootstrap import Interval, binary_auc, interval_of, mean_of_said, resampled
from common.tasks.scoring.averages import Averages, averages, mean, ratio
from common.tasks.scoring.classes import ClassScores, class_scores
from common.tasks.scoring.headline import Headline

UNKNOWN = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiLabelScores:
    """Per patient where patients are known, else per image. `known[f]` is of how many finding f is known."""

    count: int
    findings: tuple[ClassScores, ...]
    known: tuple[int, ...]
    auc: float | None
    auc_interval: Interval | None
    averages: Averages
    exact: float | None
    hamming: float | None

    @property
    def headline(self) -> Headline:
        return Headline(name="mean AUC", value=self.auc, interval=self.auc_interval)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and None, ready for JSON."""
        return asdict(self)


def score_findings(
    names: Sequence[str],
    probabilities: NDArray[np.floating],
    findings: NDArray[np.integer],
    patients: NDArray[np.int32] | None = None,
    *,
    threshold: float | Sequence[float] = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> MultiLabelScores:
    """Judge predictions.

    Shapes: probabilities (N, F), findings (N, F) of 1, 0 and UNKNOWN, patients (N,) any index that is equal for images of one patient.
    `threshold`: one for all findings, or one for each. Without patients there is no interval.
    """
    if patients is not None:
        probabilities, findings = of_patients(probabilities, findings, patients)
    called, known, there = probabilities >= np.asarray(threshold, dtype=np.float32), findings != UNKNOWN, findings == 1
    each = tuple(
        class_scores(name, probabilities[rows, f], there[rows, f], called[rows, f])
        for f, name in enumerate(names)
        for rows in (np.flatnonzero(known[:, f]),)
    )
    wrong, whole = (called != there) & known, known.all(axis=1)
    return MultiLabelScores(
        count=len(findings),
        findings=each,
        known=tuple(int(number) for number in known.sum(axis=0)),
        auc=mean(one.auc for one in each),
        auc_interval=None
        if patients is None
        else _interval(probabilities, there, known, resampled(len(there), resamples=resamples, seed=seed)),
        averages=averages((called & there & known).sum(axis=0), (called & known).sum(axis=0), (there & known).sum(axis=0)),
        exact=ratio(int((whole & ~wrong.any(axis=1)).sum()), int(whole.sum())),
        hamming=ratio(int(wrong.sum()), int(known.sum())),
    )


def of_patients(
    probabilities: NDArray[np.floating], findings: NDArray[np.integer], patients: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Mean probability and known findings of each patient, (M, F) both."""
    _, owner, images = np.unique(patients, return_inverse=True, return_counts=True)
    sums = np.zeros((len(images), probabilities.shape[1]))
    shown = np.full((len(images), probabilities.shape[1]), UNKNOWN, dtype=np.int64)
    np.add.at(sums, owner, probabilities)
    np.maximum.at(shown, owner, findings)
    return (sums / images[:, None]).astype(np.float32), shown


def _interval(
    probabilities: NDArray[np.floating], there: NDArray[np.bool_], known: NDArray[np.bool_], weights: NDArray[np.float64]
) -> Interval | None:
    each = [
        binary_auc(probabilities[rows, f].astype(np.float32), there[rows, f], weights[:, rows])
        for f in range(there.shape[1])
        for rows in (np.flatnonzero(known[:, f]),)
    ]
    return interval_of(mean_of_said(np.stack(each)))

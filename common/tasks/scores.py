# SPDX-License-Identifier: Apache-2.0
"""How good predictions are, per image and per patient.

A patient's slices resemble each other, so images are not independent and an interval over images would be too narrow. Patients are: the
intervals resample patients (see `bootstrap`). A patient's probability is the mean over its images; its label, with two classes, is the
second one if any image shows it, and with more the commonest (the first of equals).

What cannot be said is None, never NaN: the AUC of one class, the recall of a class that is absent, anything about nobody. Averages are
over the classes that are present. The arithmetic on whole sets is torchmetrics'; what is resampled a thousand times is in `bootstrap`.

    N  images or patients      C  classes
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.plan import TaskSpec
from common.tasks.bootstrap import Interval, intervals
from common.tasks.classification import decide

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]

RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """One class against the others. `support` is how many are truly of it."""

    name: str
    auc: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelScores:
    """All images, or all patients. `auc` with more than two classes: mean of one against the rest. `confusion[true][said]`."""

    count: int
    auc: float | None
    accuracy: float | None
    balanced_accuracy: float | None
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Both levels; `patients` and `intervals` (95 %, of the patients' figures) are None where patients are not known."""

    images: LevelScores
    patients: LevelScores | None
    intervals: dict[str, Interval | None] | None

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and None, ready for JSON."""
        return asdict(self)


def evaluate(
    spec: TaskSpec,
    probabilities: Probabilities,
    labels: Labels,
    patients: NDArray[np.int32] | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Scores:
    """Judge predictions.

    Shapes: probabilities (N, C), labels (N,), patients (N,) any index that is equal for images of one patient. N may be 0.
    """
    images = _level(spec, probabilities, labels)
    if patients is None:
        return Scores(images=images, patients=None, intervals=None)
    patient_probabilities, patient_labels = by_patient(probabilities, labels, patients)
    said = decide(patient_probabilities, spec.threshold)
    return Scores(
        images=images,
        patients=_level(spec, patient_probabilities, patient_labels),
        intervals=intervals(patient_probabilities, patient_labels, said, resamples=resamples, seed=seed),
    )


def by_patient(probabilities: Probabilities, labels: Labels, patients: NDArray[np.int32]) -> tuple[Probabilities, Labels]:
    """Mean probability (M, C) and label (M,) of each of M patients, in the order of their index."""
    num_classes = probabilities.shape[1]
    _, patient, images = np.unique(patients, return_inverse=True, return_counts=True)
    sums, votes = np.zeros((len(images), num_classes)), np.zeros((len(images), num_classes), dtype=np.int64)
    np.add.at(sums, patient, probabilities)
    np.add.at(votes, (patient, labels), 1)
    label = (votes[:, 1] > 0).astype(np.int64) if num_classes == 2 else votes.argmax(axis=1)
    return (sums / images[:, None]).astype(np.float32), label


def _level(spec: TaskSpec, probabilities: Probabilities, labels: Labels) -> LevelScores:
    # torchmetrics takes a second to import, and a process that only trains never needs it.
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    num_classes = len(spec.classes)
    said, truth = torch.from_numpy(decide(probabilities, spec.threshold)), torch.from_numpy(labels)
    confusion = multiclass_confusion_matrix(said, truth, num_classes).numpy()
    right, supports, answers = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    classes = tuple(
        ClassScores(
            name=name,
            auc=_auc(probabilities[:, c], labels == c),
            precision=_ratio(right[c], answers[c]),
            recall=_ratio(right[c], supports[c]),
            f1=_ratio(2 * right[c], supports[c] + answers[c]),
            support=int(supports[c]),
        )
        for c, name in enumerate(spec.classes)
    )
    return LevelScores(
        count=len(labels),
        auc=classes[1].auc if num_classes == 2 else _mean(one.auc for one in classes),
        accuracy=_ratio(right.sum(), len(labels)),
        balanced_accuracy=_mean(one.recall for one in classes),
        classes=classes,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _auc(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float | None:
    if positive.all() or not positive.any():
        return None
    from torchmetrics.functional.classification import binary_auroc

    return float(binary_auroc(torch.from_numpy(np.ascontiguousarray(scores)), torch.from_numpy(positive).long()))


def _ratio(part: int, whole: int) -> float | None:
    return int(part) / int(whole) if whole else None


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of what could be said."""
    said = [value for value in values if value is not None]
    return sum(said) / len(said) if said else None

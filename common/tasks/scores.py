# SPDX-License-Identifier: Apache-2.0
"""How good predictions are, per image and per patient.

A patient's slices resemble each other, so images are not independent and an interval over images would be too narrow. Patients are: the
intervals resample patients (see `bootstrap`). A patient's probability is the mean over its images; its label, with two classes, is the
second one if any image shows it, and with more the commonest (the first of equals).

What cannot be said is None, never NaN: the AUC of one class, the recall of a class that is absent, anything about nobody. Averages are
over the classes that are present. The arithmetic on whole sets is torchmetrics'; what is resampled a thousand times is in `bootstrap`.

    N  images or patients      C  classes
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.plan import ClassificationSpec
from common.tasks.bootstrap import Interval, interval_of, intervals, mean_by_weight, resampled
from common.tasks.classification import decide
from common.tasks.scoring.averages import Averages, averages, mean, ratio
from common.tasks.scoring.calibration import Calibration, brier_of_each, calibration
from common.tasks.scoring.classes import ClassScores, class_scores
from common.tasks.scoring.headline import Headline
from common.tasks.scoring.proportion import wilson

Probabilities = NDArray[np.float32]
Labels = NDArray[np.int64]

RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelScores:
    """All images, or all patients. `auc` with more than two classes: mean of one against the rest. `confusion[true][said]`.

    `averages` and `calibration` are None in scores that an earlier version wrote.
    """

    count: int
    auc: float | None
    accuracy: float | None
    balanced_accuracy: float | None
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    averages: Averages | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Both levels; `patients` and `intervals` (95 %, of the patients' figures) are None where patients are not known."""

    images: LevelScores
    patients: LevelScores | None
    intervals: dict[str, Interval | None] | None

    @property
    def headline(self) -> Headline:
        level = self.patients or self.images
        return Headline(name="AUC", value=level.auc, interval=(self.intervals or {}).get("auc"))

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and None, ready for JSON."""
        return asdict(self)


def evaluate(
    spec: ClassificationSpec,
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
    brier = mean_by_weight(brier_of_each(patient_probabilities, patient_labels), resampled(len(said), resamples=resamples, seed=seed))
    return Scores(
        images=images,
        patients=_level(spec, patient_probabilities, patient_labels),
        intervals=intervals(patient_probabilities, patient_labels, said, resamples=resamples, seed=seed)
        | {"brier": interval_of(brier)}
        | _shares(patient_labels, said, two=len(spec.classes) == 2),
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


def _shares(labels: Labels, said: Labels, *, two: bool) -> dict[str, Interval | None]:
    """Intervals of sensitivity and specificity of the second of two classes: plain shares of patients, so Wilson's."""
    if not two:
        return {}
    ill, called = labels == 1, said == 1
    return {
        "sensitivity": wilson(int((ill & called).sum()), int(ill.sum())),
        "specificity": wilson(int((~ill & ~called).sum()), int((~ill).sum())),
    }


def _level(spec: ClassificationSpec, probabilities: Probabilities, labels: Labels) -> LevelScores:
    # torchmetrics takes a second to import, and a process that only trains never needs it.
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    num_classes, said = len(spec.classes), decide(probabilities, spec.threshold)
    confusion = multiclass_confusion_matrix(torch.from_numpy(said), torch.from_numpy(labels), num_classes).numpy()
    right, supports, answers = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    classes = tuple(class_scores(name, probabilities[:, c], labels == c, said == c) for c, name in enumerate(spec.classes))
    return LevelScores(
        count=len(labels),
        auc=classes[1].auc if num_classes == 2 else mean(one.auc for one in classes),
        accuracy=ratio(right.sum(), len(labels)),
        balanced_accuracy=mean(one.recall for one in classes),
        classes=classes,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        averages=averages(right, answers, supports),
        calibration=calibration(probabilities, labels),
    )

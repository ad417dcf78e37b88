# SPDX-License-Identifier: Apache-2.0
"""What a prediction means: the loss that trains it, what it stands for, and how good it is.

`task` is what all have in common; each kind has a file of its own, and a line in `task_of`. Of classification, `scores` judges
probabilities against labels, per image and per patient; `bootstrap` says how sure one can be of that; `curves` gives the points that a
report draws.
"""

from common.models import outputs_for
from common.plan import ClassificationSpec, DetectionSpec, MultiLabelSpec, Plan, RestorationSpec, SegmentationSpec
from common.tasks.bootstrap import Interval
from common.tasks.classification import Binary, Multiclass, decide
from common.tasks.curves import CalibrationBin, RocCurve, calibration_bins, roc_curve
from common.tasks.detection import Detection
from common.tasks.multilabel import MultiLabel
from common.tasks.restoration import Restoration
from common.tasks.scores import LevelScores, Scores, by_patient, evaluate
from common.tasks.scoring.classes import ClassScores
from common.tasks.segmentation import Segmentation
from common.tasks.task import Target, Task

__all__ = [
    "Binary",
    "CalibrationBin",
    "ClassScores",
    "Detection",
    "Interval",
    "LevelScores",
    "MultiLabel",
    "Multiclass",
    "Restoration",
    "RocCurve",
    "Scores",
    "Segmentation",
    "Target",
    "Task",
    "by_patient",
    "calibration_bins",
    "decide",
    "evaluate",
    "roc_curve",
    "task_of",
]


def task_of(plan: Plan) -> Task:
    """The task that a plan's [task] section names."""
    outputs, spec = outputs_for(plan), plan.task
    match spec:
        case ClassificationSpec():
            if outputs == 1:
                return Binary(weights=spec.weights, smoothing=spec.label_smoothing)
            return Multiclass(outputs=outputs, weights=spec.weights, smoothing=spec.label_smoothing)
        case MultiLabelSpec():
            return MultiLabel(outputs=outputs, weights=spec.weights, smoothing=spec.label_smoothing)
        case SegmentationSpec():
            return Segmentation(outputs=outputs, dice=spec.dice, weights=spec.weights)
        case RestorationSpec():
            return Restoration(outputs=outputs)
        case DetectionSpec():
            return Detection(outputs=outputs, most_boxes=spec.most_boxes)

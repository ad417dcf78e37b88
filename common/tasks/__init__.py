# SPDX-License-Identifier: Apache-2.0
"""What a prediction means: the loss that trains it, the probability it stands for, and how good it is.

`classification` turns logits into losses and probabilities; `scores` judges probabilities against labels, per image and per patient;
`bootstrap` says how sure one can be of that; `curves` gives the points that a report draws.
"""

from common.tasks.bootstrap import Interval
from common.tasks.classification import Binary, Multiclass, Task, decide, task_of
from common.tasks.curves import CalibrationBin, RocCurve, calibration_bins, roc_curve
from common.tasks.scores import ClassScores, LevelScores, Scores, by_patient, evaluate

__all__ = [
    "Binary",
    "CalibrationBin",
    "ClassScores",
    "Interval",
    "LevelScores",
    "Multiclass",
    "RocCurve",
    "Scores",
    "Task",
    "by_patient",
    "calibration_bins",
    "decide",
    "evaluate",
    "roc_curve",
    "task_of",
]

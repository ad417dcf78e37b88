# SPDX-License-Identifier: Apache-2.0
"""What a prediction means: the loss that trains it, the probability it stands for, and how good it is.

`classification` turns logits into losses and probabilities; `scores` judges probabilities against labels, per image and per patient;
`bootstrap` says how sure one can be of that; `curves` gives the points that a report draws.
"""

from common.tasks.classification import Binary, Multiclass, Task, task_of

__all__ = ["Binary", "Multiclass", "Task", "task_of"]

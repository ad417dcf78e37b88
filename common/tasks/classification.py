# SPDX-License-Identifier: Apache-2.0
"""Classification of a case into two or more classes.

A case's loss may be weighted by its class, and its truth smoothed: a part `s` of it is spread evenly over the classes (Szegedy et al. 2016,
https://arxiv.org/abs/1512.00567, section 7). Losses are never divided by the weights of a batch, as torch's mean is: a case's loss would
then depend on who else is in it.

B  batch      K  logits of the model (1 for two classes)      C  classes
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from common.tasks.task import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """Two classes, one logit: the log-odds of the second class. A prediction is each class's probability, (B, 2)."""

    outputs: int = 1
    target: Target = "label"
    weights: tuple[float, ...] = ()
    smoothing: float = 0.0

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        truth = labels.to(logits.dtype)
        if self.smoothing:
            truth = truth * (1 - self.smoothing) + self.smoothing / 2
        weights = logits.new_tensor(self.weights)[labels] if self.weights else None
        return functional.binary_cross_entropy_with_logits(logits.squeeze(1), truth, weight=weights, reduction="none")

    def predict(self, logits: Tensor) -> Tensor:
        # softmax of (0, z) is (1 - sigmoid(z), sigmoid(z)), without losing the small one to rounding.
        return functional.softmax(functional.pad(logits, (1, 0)), dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiclass:
    """C classes, C logits. A prediction is each class's probability, (B, C)."""

    outputs: int
    target: Target = "label"
    weights: tuple[float, ...] = ()
    smoothing: float = 0.0

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.smoothing)
        return losses * logits.new_tensor(self.weights)[labels] if self.weights else losses

    def predict(self, logits: Tensor) -> Tensor:
        return functional.softmax(logits, dim=1)


def decide(probabilities: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """The class of each row of (N, C): the second of two if its probability reaches the threshold; of more, the most probable."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= threshold).astype(np.int64)
    classes: NDArray[np.int64] = probabilities.argmax(axis=1)
    return classes

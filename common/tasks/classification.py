# SPDX-License-Identifier: Apache-2.0
"""Classification of an image into two or more classes.

Losses are given one per sample, never averaged: private training clips each sample's gradient on its own, and only the caller knows by
which constant the sum is to be divided.

    B  batch      K  logits of the model (1 for two classes)      C  classes
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from common.models import outputs_for
from common.plan import TaskSpec


class Task(Protocol):
    """A head of `outputs` logits and what they mean. Shapes: logits (B, K) float32, labels (B,) int64."""

    @property
    def outputs(self) -> int: ...

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Loss of each sample, (B,)."""
        ...

    def probabilities(self, logits: Tensor) -> Tensor:
        """Probability of each class, (B, C); rows sum to 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """Two classes, one logit: the log-odds of the second class."""

    outputs: int = 1

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(logits.squeeze(1), labels.to(logits.dtype), reduction="none")

    def probabilities(self, logits: Tensor) -> Tensor:
        # softmax of (0, z) is (1 - sigmoid(z), sigmoid(z)), without losing the small one to rounding.
        return functional.softmax(functional.pad(logits, (1, 0)), dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiclass:
    """C classes, C logits."""

    outputs: int

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, reduction="none")

    def probabilities(self, logits: Tensor) -> Tensor:
        return functional.softmax(logits, dim=1)


def task_of(spec: TaskSpec) -> Task:
    """The task that a plan's [task] section names."""
    outputs = outputs_for(spec)
    return Binary() if outputs == 1 else Multiclass(outputs=outputs)


def decide(probabilities: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """The class of each row of (N, C): the second of two if its probability reaches the threshold; of more, the most probable."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= threshold).astype(np.int64)
    classes: NDArray[np.int64] = probabilities.argmax(axis=1)
    return classes

# SPDX-License-Identifier: Apache-2.0
"""SGD and Adam on one flat vector.

A gradient step on a flat model is one or a few vector operations, so it is written out here. `torch.optim` would do the same arithmetic
(a test compares them), but its first use imports torch's compiler: 0.8 s and 100 MB in every worker process.

State is born with a round and dies with it: momentum over a former round's global model would be a memory of patients that no ledger
knows about, and adds nothing measurable over a few steps.

    P  values of the model
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from common.plan import TrainingSpec

ADAM_BETAS = (0.9, 0.999)  # Kingma and Ba 2014, https://arxiv.org/abs/1412.6980, algorithm 1
ADAM_EPSILON = 1e-8


class Optimiser(Protocol):
    """Something that moves a model's values against a gradient."""

    def step(self, values_P: Tensor, gradient_P: Tensor) -> None: ...


class Sgd:
    """v <- momentum * v + g;  w <- w - learning_rate * v."""

    def __init__(self, spec: TrainingSpec) -> None:
        self._spec = spec
        self._velocity_P: Tensor | None = None

    def step(self, values_P: Tensor, gradient_P: Tensor) -> None:
        with torch.no_grad():
            if self._spec.weight_decay:
                gradient_P = gradient_P.add(values_P, alpha=self._spec.weight_decay)
            if self._spec.momentum:
                if self._velocity_P is None:
                    self._velocity_P = torch.zeros_like(gradient_P)
                gradient_P = self._velocity_P.mul_(self._spec.momentum).add_(gradient_P)
            values_P.add_(gradient_P, alpha=-self._spec.learning_rate)


class Adam:
    """Means of g and g^2, corrected for their start at zero;  w <- w - learning_rate * m / (sqrt(v) + eps)."""

    def __init__(self, spec: TrainingSpec) -> None:
        self._spec = spec
        self._steps = 0
        self._mean_P: Tensor | None = None
        self._square_P: Tensor | None = None

    def step(self, values_P: Tensor, gradient_P: Tensor) -> None:
        first, second = ADAM_BETAS
        self._steps += 1
        with torch.no_grad():
            if self._mean_P is None or self._square_P is None:
                self._mean_P, self._square_P = torch.zeros_like(values_P), torch.zeros_like(values_P)
            if self._spec.weight_decay:
                gradient_P = gradient_P.add(values_P, alpha=self._spec.weight_decay)
            self._mean_P.lerp_(gradient_P, 1 - first)
            self._square_P.mul_(second).addcmul_(gradient_P, gradient_P, value=1 - second)
            scale_P = (self._square_P.sqrt() / math.sqrt(1 - second**self._steps)).add_(ADAM_EPSILON)
            values_P.addcdiv_(self._mean_P, scale_P, value=-self._spec.learning_rate / (1 - first**self._steps))


def optimiser_of(spec: TrainingSpec) -> Optimiser:
    """A fresh optimiser, without memory."""
    return Sgd(spec) if spec.optimiser == "sgd" else Adam(spec)

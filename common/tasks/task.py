# SPDX-License-Identifier: Apache-2.0
"""What every task has, whatever it predicts: so many outputs of the model, a loss for each case, and a way from outputs to a prediction.

Losses are given one per case, never averaged: private training clips each patient's gradient on its own, and only the caller knows by
which constant the sum is to be divided.

    B  batch
"""

from typing import Literal, Protocol

from torch import Tensor

Target = Literal["label", "findings", "mask", "boxes", "clean"]
"""What a loss is measured against: the case's label, one of the data set's parts, or the image before it was made worse."""


class Task(Protocol):
    """Shapes: the model's outputs (B, ...) float32; targets (B, ...) as the data set has that target."""

    @property
    def outputs(self) -> int:
        """How many values the model's head gives: for a case, or for each of its pixels."""
        ...

    @property
    def target(self) -> Target: ...

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each case, (B,)."""
        ...

    def predict(self, outputs: Tensor) -> Tensor:
        """What is shown and judged, (B, ...)."""
        ...

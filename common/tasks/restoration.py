# SPDX-License-Identifier: Apache-2.0
"""Restoration: the image as it was, from one that was made worse (noise as at low dose, or a lost resolution).

B  batch      C  channels      H, W  height and width
"""

from dataclasses import dataclass

from torch import Tensor

from common.tasks.task import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """Images (B, C, H, W), normalised like the model's input; the loss of one is its mean squared error."""

    outputs: int
    target: Target = "clean"

    def loss(self, restored: Tensor, clean: Tensor) -> Tensor:
        return (restored - clean).square().mean(dim=(1, 2, 3))

    def predict(self, restored: Tensor) -> Tensor:
        return restored

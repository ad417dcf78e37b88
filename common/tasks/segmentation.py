# SPDX-License-Identifier: Apache-2.0
"""Segmentation: a class for each pixel.

The loss of an image is the mean cross-entropy of its pixels, plus `dice` times one minus the mean over the classes but the background of
the soft Dice coefficient (Milletari et al. 2016, https://arxiv.org/abs/1606.04797), taken of this image alone: no image looks at another.

    B  batch      C  classes, the first is the background      H, W  height and width
"""

from dataclasses import dataclass
from typing import Final

from torch import Tensor
from torch.nn import functional

from common.tasks.task import Target

_SMOOTH: Final = 1.0
"""A pixel of each: an image without the class, which is not found there either, has Dice 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """C logits for each pixel, (B, C, H, W); masks (B, H, W). A prediction is each class's probability, (B, C, H, W)."""

    outputs: int
    dice: float
    target: Target = "mask"
    weights: tuple[float, ...] = ()

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        masks = masks.long()
        weights = logits.new_tensor(self.weights) if self.weights else None
        entropy = functional.cross_entropy(logits, masks, weight=weights, reduction="none").mean(dim=(1, 2))
        if self.dice == 0:
            return entropy
        said = functional.softmax(logits, dim=1)[:, 1:]
        truth = functional.one_hot(masks, self.outputs).movedim(-1, 1)[:, 1:].to(said.dtype)
        overlap = (said * truth).sum(dim=(2, 3))
        dice = (2 * overlap + _SMOOTH) / (said.sum(dim=(2, 3)) + truth.sum(dim=(2, 3)) + _SMOOTH)
        return entropy + self.dice * (1 - dice.mean(dim=1))

    def predict(self, logits: Tensor) -> Tensor:
        return functional.softmax(logits, dim=1)

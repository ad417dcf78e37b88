# SPDX-License-Identifier: Apache-2.0
"""The U-Net (Ronneberger et al. 2015, https://arxiv.org/abs/1505.04597) with GroupNorm, for an answer at each pixel.

Down: two 3 x 3 convolutions a stage, then 2 x 2 max pooling. Up: nearest-neighbour enlargement and a convolution (transposed ones leave a
chequerboard, and are no layer whose gradients by patient are cheap), the shortcut of that stage, two convolutions. Sides that do not
halve evenly are enlarged to the shortcut's size.

With `residual` the input is added to the answer: a network for restoration then learns what is wrong with an image (Zhang et al. 2017,
https://arxiv.org/abs/1608.03981).

    B  batch      C  channels      H, W  height and width of the image      K  outputs
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.models.layers import group_norm
from common.plan import InputSpec, UNetSpec


class Stage(nn.Module):
    """Two convolutions, each with its norm and ReLU."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution_1 = nn.Conv2d(before, after, 3, padding=1)
        self.norm_1 = group_norm(after)
        self.convolution_2 = nn.Conv2d(after, after, 3, padding=1)
        self.norm_2 = group_norm(after)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm_1(self.convolution_1(x)))
        return functional.relu(self.norm_2(self.convolution_2(x)))


class UNet(nn.Module):
    """(B, C, H, W) -> (B, K, H, W)."""

    def __init__(self, spec: UNetSpec, image: InputSpec, outputs: int) -> None:
        super().__init__()
        self.residual = spec.residual
        widths = (image.channels * image.sequence, *spec.widths)
        self.down = nn.ModuleList(Stage(before, after) for before, after in pairwise(widths))
        upwards = list(pairwise(spec.widths))[::-1]
        self.shrink = nn.ModuleList(nn.Conv2d(below, above, 1) for above, below in upwards)
        self.up = nn.ModuleList(Stage(2 * above, above) for above, _ in upwards)
        self.head = nn.Conv2d(spec.widths[0], outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = x_BCHW.flatten(1, -3)  # neighbouring slices are channels: 2.5 D
        shortcuts: list[Tensor] = []
        for stage in self.down:
            x = stage(functional.max_pool2d(x, 2) if shortcuts else x)
            shortcuts.append(x)
        shortcuts.pop()
        for shrink, stage in zip(self.shrink, self.up, strict=True):
            shortcut = shortcuts.pop()
            x = functional.interpolate(shrink(x), size=shortcut.shape[-2:], mode="nearest")
            x = stage(torch.cat([shortcut, x], dim=1))
        answer: Tensor = self.head(x)
        return answer + x_BCHW if self.residual else answer

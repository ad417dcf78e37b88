# SPDX-License-Identifier: Apache-2.0
"""The detector without anchors (CenterNet: Zhou et al. 2019, https://arxiv.org/abs/1904.07850): for each cell, what has its centre there.

A stem that halves the image, U-Net stages down, and up again as far as maps of one value for `stride` x `stride` pixels; then a head of two
convolutions. A cell answers a logit for each class, and of the box whose centre lies in it the two sides and the centre's place in the
cell; `common.tasks.detection` says what these mean. The stage above the last pooling decides how much of the image a cell sees: choose so
many widths that it is more than a large box.

    B  batch      C  channels      H, W  height and width of the image      h, w  of the map: H, W over stride, rounded up      K  outputs
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.models.layers import group_norm
from common.models.unet import Stage
from common.plan import CentreSpec, InputSpec


class Centre(nn.Module):
    """(B, C, H, W) -> (B, K, h, w)."""

    def __init__(self, spec: CentreSpec, image: InputSpec, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image.channels * image.sequence, spec.widths[0], 5, stride=2, padding=2)
        self.norm = group_norm(spec.widths[0])
        self.down = nn.ModuleList(Stage(before, after) for before, after in pairwise((spec.widths[0], *spec.widths)))
        upwards = list(pairwise(spec.widths[spec.stride.bit_length() - 2 :]))[::-1]
        self.shrink = nn.ModuleList(nn.Conv2d(below, above, 1) for above, below in upwards)
        self.up = nn.ModuleList(Stage(2 * above, above) for above, _ in upwards)
        kept = upwards[-1][0] if upwards else spec.widths[-1]
        self.hidden = nn.Conv2d(kept, spec.hidden, 3, padding=1)
        self.head = nn.Conv2d(spec.hidden, outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x_BCHW.flatten(1, -3))))
        shortcuts: list[Tensor] = []
        for stage in self.down:
            x = stage(functional.max_pool2d(x, 2, ceil_mode=True) if shortcuts else x)
            shortcuts.append(x)
        shortcuts.pop()
        for shrink, stage in zip(self.shrink, self.up, strict=True):
            shortcut = shortcuts.pop()
            x = functional.interpolate(shrink(x), size=shortcut.shape[-2:], mode="nearest")
            x = stage(torch.cat([shortcut, x], dim=1))
        answer: Tensor = self.head(functional.relu(self.hidden(x)))
        return answer

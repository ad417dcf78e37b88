# SPDX-License-Identifier: Apache-2.0
"""The fully convolutional network (Long et al. 2015, https://arxiv.org/abs/1411.4038): an answer for each place, from convolutions alone.

3 x 3 convolutions with GroupNorm and ReLU, three unless the plan says otherwise, then one of 1 x 1. As it has no dense layer, it takes
images of any size with the same weights: patches of tissue in training, a whole one afterwards.

What a convolution sees doubles from one to the next. With `pooling` because the image is halved between them, which is cheap, and an answer
for each pixel is then enlarged again; without because its nine weights stand twice as far apart (dilation; Yu and Koltun 2016,
https://arxiv.org/abs/1511.07122), which keeps every edge where it is. With `answer = "image"` the places' answers are averaged: each place
votes, and a map of the votes shows where a class was seen (global average pooling: Lin et al. 2014, https://arxiv.org/abs/1312.4400).

    B  batch      C  channels      H, W  height and width of the image      h, w  of the last map      K  outputs
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from common.models.layers import Dropout, group_norm
from common.plan import FcnSpec, InputSpec


class Fcn(nn.Module):
    """(B, C, H, W) -> (B, K) for an image, or (B, K, H, W) for each pixel. Of a sequence, neighbouring images are channels."""

    def __init__(self, spec: FcnSpec, image: InputSpec, outputs: int) -> None:
        super().__init__()
        self.pooling, self.by_pixel = spec.pooling, spec.answer == "pixel"
        reach = [1 if spec.pooling else 1 << stage for stage in range(len(spec.widths))]
        widths = pairwise((image.channels * image.sequence, *spec.widths))
        self.convolutions = nn.ModuleList(nn.Conv2d(c, d, 3, padding=r, dilation=r) for (c, d), r in zip(widths, reach, strict=True))
        self.norms = nn.ModuleList(group_norm(d) for d in spec.widths)
        self.dropout = Dropout(spec.dropout)
        self.head = nn.Conv2d(spec.widths[-1], outputs, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        votes_BKhw = self.votes(x_BCHW)
        if not self.by_pixel:
            return votes_BKhw.mean(dim=(2, 3))
        return functional.interpolate(votes_BKhw, size=x_BCHW.shape[-2:], mode="bilinear") if self.pooling else votes_BKhw

    def votes(self, x_BCHW: Tensor) -> Tensor:
        """What each place answers, (B, K, h, w)."""
        x = x_BCHW.flatten(1, -3)
        for stage, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = functional.relu(norm(convolution(functional.max_pool2d(x, 2) if stage and self.pooling else x)))
        votes: Tensor = self.head(self.dropout(x))
        return votes

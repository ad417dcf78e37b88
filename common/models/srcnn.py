# SPDX-License-Identifier: Apache-2.0
"""SRCNN (Dong et al. 2014, https://arxiv.org/abs/1501.00092): an image made better by three convolutions.

The first takes patches to features, the second features to those of a better patch, the third puts patches together; kernels of 9, 1 and 5
pixels, and no norm, which would lose how bright the image is. The image comes in at its full size already.

With `residual` the network answers what is to be added (Kim et al. 2016, https://arxiv.org/abs/1511.04587): it learns in a tenth of the
steps, as it need not learn to copy first.

    B  batch      C  channels      H, W  height and width of the image
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from common.plan import InputSpec, SrcnnSpec


class Srcnn(nn.Module):
    """(B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, spec: SrcnnSpec, image: InputSpec, outputs: int) -> None:
        super().__init__()
        self.residual = spec.residual
        widths = pairwise((image.channels, *spec.widths, outputs))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, side, padding=side // 2) for (before, after), side in zip(widths, spec.kernels, strict=True)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        *inner, last = self.convolutions
        x = x_BCHW
        for convolution in inner:
            x = functional.relu(convolution(x))
        answer: Tensor = last(x)
        return answer + x_BCHW if self.residual else answer

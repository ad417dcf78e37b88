# SPDX-License-Identifier: Apache-2.0
"""A small residual network with GroupNorm.

Basic blocks as in He et al. 2015 (https://arxiv.org/abs/1512.03385, section 3.3 and figure 5, left), with GroupNorm for BatchNorm. The
stem is one 3 x 3 convolution at full resolution, as the paper uses for 32 x 32 images; each stage after the first halves the image; the
last map is averaged, so any input size gives the same number of weights.

    B  batch      C  channels      H, W  height and width of the image      D  channels of the last stage      K  outputs
"""

from torch import Tensor, nn
from torch.nn import functional

from common.models.layers import Dropout, every, group_norm
from common.plan import InputSpec, ResNetSpec


class Block(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))); the shortcut is projected where the shape changes."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.convolution_1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm_1 = group_norm(after)
        self.convolution_2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm_2 = group_norm(after)
        same_shape = before == after and stride == 1
        self.stride = stride
        self.shortcut: nn.Module = nn.Identity() if same_shape else nn.Conv2d(before, after, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm_1(self.convolution_1(x)))
        y = self.norm_2(self.convolution_2(y))
        return functional.relu(y + self.shortcut(every(self.stride, x)))


class ResNet(nn.Module):
    """(B, C, H, W) -> (B, K)."""

    def __init__(self, spec: ResNetSpec, image: InputSpec, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image.channels, spec.widths[0], 3, padding=1, bias=False)
        self.norm = group_norm(spec.widths[0])
        self.blocks = nn.Sequential(*_blocks(spec))
        self.dropout = Dropout(spec.dropout)
        self.head = nn.Linear(spec.widths[-1], outputs)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.blocks(functional.relu(self.norm(self.stem(x_BCHW))))
        x_BD = self.dropout(x.mean(dim=(2, 3)))
        logits_BK: Tensor = self.head(x_BD)
        return logits_BK


def _blocks(spec: ResNetSpec) -> list[Block]:
    blocks, before = [], spec.widths[0]
    for stage, after in enumerate(spec.widths):
        for index in range(spec.blocks):
            halves = stage > 0 and index == 0
            blocks.append(Block(before, after, stride=2 if halves else 1))
            before = after
    return blocks

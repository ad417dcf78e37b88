# SPDX-License-Identifier: Apache-2.0
"""What families for more than one image share: an encoder of one image, a dense layer of many, and attention, all of simple layers.

The encoder is the classifier's (cnn.py) without its head: stages of a 3 x 3 convolution, GroupNorm, 2 x 2 max pooling and ReLU, then one
dense layer. Images of a case lie side by side in the batch, so one pass of the convolutions serves them all, and a case's gradient is that
of a layer with more positions.

Attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1, one head) is written out: its weights stand in dense
layers alone, which private training knows how to clip, and who looked at what can be read. Where something lies, in an order or on a
map, is told by the paper's fixed waves (section 3.5).

    B  batch      C  channels      H, W  height and width of the image      D  values that stand for an image      M, N  places
"""

import math
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.models.layers import group_norm

_LONGEST_WAVE: Final = 10_000  # times 2 pi, in places: the paper's own


class Encoder(nn.Module):
    """(B, C, H, W) -> (B, D). `anywhere`: what is found counts alike wherever in the image it lies, as in tiles that were cut at random."""

    def __init__(self, widths: tuple[int, ...], size_CHW: tuple[int, int, int], features: int, *, anywhere: bool = False) -> None:
        super().__init__()
        self.anywhere = anywhere
        C, H, W = size_CHW
        S = len(widths)
        self.convolutions = nn.ModuleList(nn.Conv2d(c, d, 3, padding=1) for c, d in pairwise((C, *widths)))
        self.norms = nn.ModuleList(group_norm(d) for d in widths)
        self.dense = nn.Linear(widths[-1] * (1 if anywhere else (H >> S) * (W >> S)), features)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.summary(self.maps(x_BCHW))

    def maps(self, x_BCHW: Tensor) -> Tensor:
        """What the last stage leaves, (B, widths[-1], H >> S, W >> S)."""
        x = x_BCHW
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = functional.relu(functional.max_pool2d(norm(convolution(x)), 2))
        return x

    def summary(self, maps: Tensor) -> Tensor:
        """The image as D values, from its maps."""
        return functional.relu(self.dense(maps.amax(dim=(2, 3)) if self.anywhere else maps.flatten(1)))


class Attention(nn.Module):
    """Queries (B, M, D) over places (B, N, D) -> what they gather (B, M, D), and with which weights, (B, M, N)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.query = nn.Linear(features, features)
        self.key = nn.Linear(features, features)
        self.value = nn.Linear(features, features)

    def forward(self, queries_BMD: Tensor, places_BND: Tensor, visible_BMN: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scores_BMN = self.query(queries_BMD) @ self.key(places_BND).mT * queries_BMD.shape[-1] ** -0.5
        if visible_BMN is not None:
            scores_BMN = without(scores_BMN, ~visible_BMN)
        weights_BMN = torch.softmax(scores_BMN, dim=-1)
        return weights_BMN @ self.value(places_BND), weights_BMN


def without(scores: Tensor, hidden: Tensor) -> Tensor:
    """Scores of which softmax gives the hidden places exactly 0; where every place is hidden, all alike, and never NaN."""
    return scores.masked_fill(hidden, torch.finfo(scores.dtype).min)


def places(length: int, features: int) -> Tensor:
    """Where in the order each of T images lies, as waves of D frequencies, (T, D): a constant, so nothing that is learnt or kept.

    >>> places(2, 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    pairs = (features + 1) // 2
    rates = torch.exp(torch.arange(pairs) * (-math.log(_LONGEST_WAVE) / pairs))
    angles = torch.arange(length).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :features]


def grid(height: int, width: int, features: int) -> Tensor:
    """Where on a map each of its places lies, (height * width, D): half of the values tell the row, the others the column."""
    rows_HD, columns_WD = places(height, features // 2), places(width, features - features // 2)
    both = (rows_HD.unsqueeze(1).expand(-1, width, -1), columns_WD.unsqueeze(0).expand(height, -1, -1))
    return torch.cat(both, dim=2).flatten(0, 1)

# SPDX-License-Identifier: Apache-2.0
"""The two layers that patients' privacy shapes, shared by every family, and one step that a library gets wrong.

*Norm.* BatchNorm mixes the patients of a batch and keeps running statistics of them: a gradient then belongs to no single patient, and
the statistics would leave with the weights. GroupNorm (Wu and He 2018, https://arxiv.org/abs/1803.08494) looks at one image alone.

*Dropout.* torch's dropout draws from the process-wide generator; ours has its own, so that a run repeats exactly and leaves no trace in
global state. Private training must seed it from a secret: a mask goes by position in the batch, so if the masks were known beforehand,
removing one record would hand its mask to the next one and so on, and move the sum by more than one clip.

    C  channels      G  groups
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

MOST_GROUPS = 8
CHANNELS_PER_GROUP = 4


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm over C channels: at most 8 groups, each of at least 4 channels where C allows it.

    >>> [group_norm(C).num_groups for C in (3, 8, 16, 20, 64)]
    [1, 2, 4, 5, 8]
    """
    groups = math.gcd(channels, min(MOST_GROUPS, max(1, channels // CHANNELS_PER_GROUP)))
    return nn.GroupNorm(groups, channels)


def every(stride: int, x: Tensor) -> Tensor:
    """Every so many rows and columns: a convolution of 1 x 1 behind it is one with this stride.

    (Written with a stride, its backward pass on a processor writes past its memory for some widths and odd batches: torch 2.13, oneDNN.)
    """
    return x if stride == 1 else x[..., ::stride, ::stride]


class Dropout(nn.Module):
    """While training, sets each value to zero with probability p and scales the others by 1 / (1 - p)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.rng = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.from_numpy(self.rng.random(x.shape, dtype=np.float32) >= self.p)
        return x * keep.to(x.device, x.dtype).mul_(1 / (1 - self.p))


def seed_dropout(model: nn.Module, seed: bytes) -> None:
    """Start the masks of every dropout layer from these bytes."""
    layers = [module for module in model.modules() if isinstance(module, Dropout)]
    for layer, stream in zip(layers, np.random.SeedSequence(int.from_bytes(seed)).spawn(len(layers)), strict=True):
        layer.rng = np.random.default_rng(stream)

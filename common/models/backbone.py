# SPDX-License-Identifier: Apache-2.0
"""A residual network that was trained elsewhere: its first stages are constants, its last ones and a new head learn.

ResNet-18 and ResNet-50 (He et al. 2015, https://arxiv.org/abs/1512.03385), laid out as torchvision does, the stride of a bottleneck in its
3 x 3 convolution. Many images taught them edges, textures and shapes, and a hospital's few patients need to teach the rest only
(Yosinski et al. 2014, https://arxiv.org/abs/1411.1792). So privacy's noise has fewer weights to spoil (Tramèr and Boneh 2021,
https://arxiv.org/abs/2011.11660), and only these travel.

*Frozen stages are not part of the module.* They are held beside it: no parameter, no buffer and no gradient of theirs exists for a layout,
an optimiser or a hook, and their features are computed without a record for going backwards. They come from a file whose digest is in the
plan (`pretrained`), so every site computes the same features.

*Norms.* BatchNorm would mix patients and remember them. What it once measured, on images that are nobody's here, is a constant: the
converter folds it into the convolution before it (`norm = "frozen"`). A network that was trained with GroupNorm keeps it
(`norm = "group"`; Wu and He 2018, https://arxiv.org/abs/1803.08494, 32 groups).

Features are brought to mean 0 and variance 1 by image before the head, so that one learning rate fits whatever was trained elsewhere.

    B  batch      C  channels      H, W  height and width of the image      W0 width of the first stage      F  features      K  outputs
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from common.errors import ModelLayout
from common.models.layers import Dropout, every
from common.plan import BackboneSpec, InputSpec

Tensors = Mapping[str, NDArray[np.float32]]
BLOCKS: Final[Mapping[str, tuple[int, int, int, int]]] = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}
EXPANSION: Final[Mapping[str, int]] = {"resnet18": 1, "resnet50": 4}
GROUPS: Final = 32
STEM_CHANNELS: Final = 3
PARTS: Final = ("stem", "stage_1", "stage_2", "stage_3", "stage_4")


def _normed(before: int, after: int, size: int, *, stride: int, group: bool) -> nn.Sequential:
    """A convolution and its norm; frozen statistics are in the convolution's own weight and bias."""
    convolution = nn.Conv2d(before, after, size, stride=stride, padding=size // 2, bias=not group)
    return nn.Sequential(convolution, nn.GroupNorm(min(GROUPS, after), after)) if group else nn.Sequential(convolution)


class Stem(nn.Module):
    """A 7 x 7 convolution and a pooling: a quarter of the height and width is left. A grey image is given thrice."""

    def __init__(self, width: int, *, group: bool) -> None:
        super().__init__()
        self.convolution = _normed(STEM_CHANNELS, width, 7, stride=2, group=group)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = functional.relu(self.convolution(x_BCHW.expand(-1, STEM_CHANNELS, -1, -1)))
        return functional.max_pool2d(x, 3, stride=2, padding=1)


class Block(nn.Module):
    """relu(x + convolutions(x)): two of 3 x 3, or, as a bottleneck, 1 x 1, 3 x 3, 1 x 1; the shortcut is projected where it must be."""

    def __init__(self, before: int, inner: int, after: int, *, bottleneck: bool, stride: int, group: bool) -> None:
        super().__init__()
        layers = (
            [(before, inner, 1, 1), (inner, inner, 3, stride), (inner, after, 1, 1)]
            if bottleneck
            else [(before, inner, 3, stride), (inner, after, 3, 1)]
        )
        self.convolutions = nn.ModuleList(_normed(c, d, size, stride=step, group=group) for c, d, size, step in layers)
        same_shape = before == after and stride == 1
        self.stride = stride
        self.shortcut: nn.Module = nn.Identity() if same_shape else _normed(before, after, 1, stride=1, group=group)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.convolutions[:-1]:
            y = functional.relu(layer(y))
        return functional.relu(self.convolutions[-1](y) + self.shortcut(every(self.stride, x)))


def part_of_trunk(spec: BackboneSpec, number: int) -> nn.Module:
    """The stem, or one of the four stages, as torch makes it."""
    bottleneck, group = spec.architecture == "resnet50", spec.norm == "group"
    if number == 0:
        return Stem(spec.width, group=group)
    inner, expansion = spec.width << (number - 1), EXPANSION[spec.architecture]
    after = inner * expansion
    before = spec.width if number == 1 else after // 2
    kind = {"bottleneck": bottleneck, "group": group}
    blocks = [Block(before, inner, after, stride=1 if number == 1 else 2, **kind)]
    blocks += [Block(after, inner, after, stride=1, **kind) for _ in range(BLOCKS[spec.architecture][number - 1] - 1)]
    return nn.Sequential(*blocks)


class Backbone(nn.Module):
    """(B, C, H, W) -> (B, K). Says nothing before `furnish` has given it what was trained elsewhere."""

    def __init__(self, spec: BackboneSpec, image: InputSpec, outputs: int) -> None:
        del image  # any size and either number of channels will do
        super().__init__()
        self._spec = spec
        self._frozen: tuple[nn.Module, ...] = ()  # a tuple is no place where torch looks for layers
        first = len(PARTS) - spec.trained_stages
        self.stages = nn.ModuleDict({PARTS[number]: part_of_trunk(spec, number) for number in range(first, len(PARTS))})
        self.dropout = Dropout(spec.dropout)
        self.head = nn.Linear((spec.width << 3) * EXPANSION[spec.architecture], outputs)

    def furnish(self, tensors: Tensors) -> None:
        """Take over weights that were trained elsewhere, for frozen stages and as the start of the others. Raises: ModelLayout."""
        frozen = [part_of_trunk(self._spec, number) for number in range(len(PARTS) - len(self.stages))]
        parts = dict(zip(PARTS, (*frozen, *self.stages.values()), strict=True))
        wanted = {f"{name}.{key}": (part, key) for name, part in parts.items() for key, _ in part.named_parameters()}
        if wanted.keys() != tensors.keys():
            odd = sorted(wanted.keys() ^ tensors.keys())
            raise ModelLayout(
                f"pre-trained weights: {len(odd)} tensors do not match the plan's architecture, such as '{odd[0][:64]}'.",
                fix="Make the file anew from the network that the plan names: fedward model convert.",
            )
        for name, (part, key) in wanted.items():
            parameter = part.get_parameter(key)
            if tuple(tensors[name].shape) != tuple(parameter.shape):
                raise ModelLayout(
                    f"pre-trained weights: '{name}' has shape {tuple(tensors[name].shape)}, expected {tuple(parameter.shape)}.",
                    fix="Give [model] architecture, norm and width as the file was made with.",
                )
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(tensors[name].copy()))
        self._frozen = tuple(part.eval().requires_grad_(False) for part in frozen)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self._frozen:
            raise ModelLayout("a backbone was asked without its pre-trained weights.", fix="Build it with `common.models.build`.")
        with torch.no_grad():
            x = x_BCHW
            for part in self._frozen:
                x = part.to(x_BCHW.device, x_BCHW.dtype)(x)  # the input's own type: autocast would round the constants for good
        for stage in self.stages.values():
            x = stage(x)
        pooled_BF = x.mean(dim=(2, 3))
        x_BF = self.dropout(functional.layer_norm(pooled_BF, pooled_BF.shape[1:]))
        logits_BK: Tensor = self.head(x_BF)
        return logits_BK

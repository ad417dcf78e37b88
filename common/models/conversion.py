# SPDX-License-Identifier: Apache-2.0
"""A ResNet's weights as torchvision names them, turned into those that a backbone starts from.

    conv1, bn1                      ->  stem.convolution
    layer2.0.conv1, layer2.0.bn1    ->  stage_2.0.convolutions.0
    layer2.0.downsample.0, .1       ->  stage_2.0.shortcut

What BatchNorm measured becomes part of the convolution before it: with mean m and variance v, scale g and shift b,

    g * (w * x - m) / sqrt(v + eps) + b   =   (w g / sqrt(v + eps)) * x   +   b - m g / sqrt(v + eps).

Files whose norms have measured nothing are those of networks with GroupNorm (as timm names them, under the same names); it is kept. The
classifier is left out, since the plan brings its own. A first convolution for grey images is spread over three equal channels.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from common.errors import ModelLayout

Tensors = Mapping[str, NDArray[np.floating]]
Architecture = Literal["resnet18", "resnet50"]
BATCH_NORM_EPSILON: Final = 1e-5  # torchvision's
_CLASSIFIER: Final = re.compile(r"(fc|classifier|head)\.|.*num_batches_tracked$")
_LAYER: Final = re.compile(r"layer([1-4])\.(\d+)\.(?:(conv|bn)([1-3])|downsample\.([01]))\.(\w+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """Tensors under our names, and what a plan's [model] must say of them."""

    tensors: dict[str, NDArray[np.float32]]
    norm: Literal["frozen", "group"]
    width: int


def from_torchvision(tensors: Tensors) -> Converted:
    """Raises: ModelLayout, if these are not the weights of such a ResNet."""
    layers: dict[str, dict[str, NDArray[np.float64]]] = {}
    for name, values in tensors.items():
        if _CLASSIFIER.match(name):
            continue
        layer, kind = _place(name)
        layers.setdefault(layer, {})[kind] = np.asarray(values, dtype=np.float64)
    if "stem.convolution" not in layers:
        raise _foreign("it has no tensor 'conv1.weight'")
    group = not any("norm.running_mean" in parts for parts in layers.values())
    converted: dict[str, NDArray[np.float32]] = {}
    for layer, parts in layers.items():
        try:
            converted |= _kept(layer, parts) if group else _folded(layer, parts)
        except (KeyError, ValueError) as error:
            raise _foreign(f"the layer '{layer}' lacks a weight, or its shapes do not fit each other") from error
    stem = converted["stem.convolution.0.weight"]
    if stem.ndim != 4 or stem.shape[1] not in (1, 3):
        raise _foreign(f"its first convolution has the shape {stem.shape}")
    if stem.shape[1] == 1:
        converted["stem.convolution.0.weight"] = np.repeat(stem / np.float32(3), 3, axis=1)
    return Converted(tensors=converted, norm="group" if group else "frozen", width=int(stem.shape[0]))


def _place(name: str) -> tuple[str, str]:
    """Our layer, and which of its tensors this is."""
    if stem := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return "stem.convolution", f"{'norm' if stem[1] == 'bn' else 'convolution'}.{stem[2]}"
    if not (found := _LAYER.fullmatch(name)):
        raise _foreign(f"it has the tensor '{name[:64]}'")
    stage, block, kind, number, projected, which = found.groups()
    is_norm = kind == "bn" or projected == "1"
    inside = "shortcut" if projected is not None else f"convolutions.{int(number) - 1}"
    return f"stage_{stage}.{block}.{inside}", f"{'norm' if is_norm else 'convolution'}.{which}"


def _folded(layer: str, parts: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float32]]:
    scale = parts["norm.weight"] / np.sqrt(parts["norm.running_var"] + BATCH_NORM_EPSILON)
    before = parts.get("convolution.bias", np.zeros_like(scale))
    return {
        f"{layer}.0.weight": (parts["convolution.weight"] * scale[:, None, None, None]).astype(np.float32),
        f"{layer}.0.bias": (parts["norm.bias"] + (before - parts["norm.running_mean"]) * scale).astype(np.float32),
    }


def _kept(layer: str, parts: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float32]]:
    return {
        f"{layer}.0.weight": parts["convolution.weight"].astype(np.float32),
        f"{layer}.1.weight": parts["norm.weight"].astype(np.float32),
        f"{layer}.1.bias": parts["norm.bias"].astype(np.float32),
    }


def _foreign(why: str) -> ModelLayout:
    return ModelLayout(
        f"this is not a ResNet as torchvision names it: {why}.",
        fix="Give the weights of torchvision's resnet18 or resnet50 (or timm's resnet50_gn) as .safetensors.",
    )

# SPDX-License-Identifier: Apache-2.0
"""Made weights of small ResNets under torchvision's names, and torchvision's network written out, to compare with."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor
from torch.nn import functional

from common.models.backbone import BLOCKS, EXPANSION
from common.models.conversion import Architecture, from_torchvision
from common.plan import BackboneSpec

Tensors = dict[str, NDArray[np.float32]]


def torchvision_weights(architecture: Architecture, *, width: int = 8, group: bool = False, seed: int = 0) -> Tensors:
    """Random weights and statistics, named and shaped as torchvision's; with `group` as timm's resnet50_gn."""
    rng, found = np.random.default_rng(seed), Tensors()

    def layer(convolution: str, norm: str, before: int, after: int, size: int) -> None:
        bound = np.sqrt(2 / (before * size * size))
        found[f"{convolution}.weight"] = rng.normal(0, bound, (after, before, size, size)).astype(np.float32)
        found[f"{norm}.weight"] = rng.uniform(0.5, 1.0, after).astype(np.float32)
        found[f"{norm}.bias"] = rng.normal(0, 0.1, after).astype(np.float32)
        if not group:
            found[f"{norm}.running_mean"] = rng.normal(0, 0.2, after).astype(np.float32)
            found[f"{norm}.running_var"] = rng.uniform(0.5, 2, after).astype(np.float32)
            found[f"{norm}.num_batches_tracked"] = np.array(7, dtype=np.int64)  # as torchvision has it

    layer("conv1", "bn1", 3, width, 7)
    before, expansion = width, EXPANSION[architecture]
    for stage, blocks in enumerate(BLOCKS[architecture], start=1):
        inner = width << (stage - 1)
        for block in range(blocks):
            sizes = [(before, inner, 1), (inner, inner, 3), (inner, inner * expansion, 1)]
            if expansion == 1:
                sizes = [(before, inner, 3), (inner, inner, 3)]
            for number, (c, d, size) in enumerate(sizes, start=1):
                layer(f"layer{stage}.{block}.conv{number}", f"layer{stage}.{block}.bn{number}", c, d, size)
            if block == 0 and (stage > 1 or before != inner * expansion):
                layer(f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1", before, inner * expansion, 1)
            before = inner * expansion
    found["fc.weight"], found["fc.bias"] = rng.normal(size=(10, before)).astype(np.float32), np.zeros(10, dtype=np.float32)
    return found


def torchvision_features(weights: Mapping[str, NDArray[np.float32]], architecture: Architecture, x: Tensor) -> Tensor:
    """What torchvision's network computes before its classifier, with norms in their own right: (B, 3, H, W) -> (B, F)."""
    tensors = {name: torch.from_numpy(np.asarray(values)).to(x.dtype) for name, values in weights.items()}

    def normed(x: Tensor, convolution: str, norm: str, stride: int) -> Tensor:
        kernel = tensors[f"{convolution}.weight"]
        y = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        scale, shift = tensors[f"{norm}.weight"], tensors[f"{norm}.bias"]
        if f"{norm}.running_mean" not in tensors:
            return functional.group_norm(y, min(32, len(scale)), scale, shift)
        return functional.batch_norm(y, tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"], scale, shift)

    y = functional.max_pool2d(functional.relu(normed(x, "conv1", "bn1", 2)), 3, 2, 1)
    for stage, blocks in enumerate(BLOCKS[architecture], start=1):
        for block in range(blocks):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            z = y
            strides = [1, stride, 1] if EXPANSION[architecture] == 4 else [stride, 1]
            for number, step in enumerate(strides, start=1):
                z = normed(z, f"{name}.conv{number}", f"{name}.bn{number}", step)
                z = functional.relu(z) if number < len(strides) else z
            if f"{name}.downsample.0.weight" in tensors:
                y = normed(y, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            y = functional.relu(z + y)
    return y.mean(dim=(2, 3))


def made_backbone(
    folder: Path, architecture: Architecture = "resnet18", *, width: int = 8, group: bool = False, trained_stages: int = 0, seed: int = 0
) -> BackboneSpec:
    """A converted file of made weights in `folder`, and the [model] that names it."""
    converted = from_torchvision(torchvision_weights(architecture, width=width, group=group, seed=seed))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{architecture}-{converted.norm}-{seed}.safetensors"
    save_file(converted.tensors, path)
    return BackboneSpec(
        family="backbone",
        architecture=architecture,
        weights=path.name,
        weights_digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        trained_stages=trained_stages,
        norm=converted.norm,
        width=width,
    )

# SPDX-License-Identifier: Apache-2.0
"""A model's weights as one flat vector, and back.

The order is the one of `named_parameters()`, each tensor in C order; it is what travels, what is hashed and what is averaged.
`flatten` goes one step further: it moves a module's parameters into one vector of which they become views. Reading and writing the
weights is then one copy, an optimiser step one operation on one vector, and noise one draw. (Convolution weights stay in NCHW order
even where images are channels_last; measured on the CPU, that costs nothing.)

A layer that keeps buffers is refused here by name: what BatchNorm remembers of patients must neither travel nor stay behind unseen.
BatchNorm that remembers nothing is refused as well: it mixes the patients of a batch, so that no gradient is one patient's alone.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.errors import ModelLayout
from common.update import Layout, Vector, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatModel:
    """A module whose parameters are views of `values`, (P,), and whose gradients are views of `gradient`, (P,)."""

    module: nn.Module
    layout: Layout
    values: Tensor
    gradient: Tensor


def layout_of(model: nn.Module) -> Layout:
    """Names and shapes in flat order. Raises: ModelLayout, if a layer keeps buffers or mixes patients."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            raise ModelLayout(
                f"layer '{name}' ({type(module).__name__}) mixes the images of a batch and remembers them.",
                fix="Use GroupNorm in its place; in this house no image looks at another.",
            )
        for buffer, _ in module.named_buffers(recurse=False):
            raise ModelLayout(
                f"layer '{name}' ({type(module).__name__}) keeps the buffer '{buffer}', expected layers that remember nothing.",
                fix="A model in this house has parameters only.",
            )
    named = list(model.named_parameters())
    return Layout(names=tuple(name for name, _ in named), shapes=tuple(tuple(parameter.shape) for _, parameter in named))


def read_weights(model: nn.Module) -> Weights:
    """A copy of the model's weights, (P,) float32. Raises: ModelLayout, UpdateNonFinite."""
    return Weights(layout=layout_of(model), values=_concatenated(model))


def write_weights(model: nn.Module, weights: Weights) -> None:
    """Set the model's weights. Raises: ModelLayout, if they are another model's."""
    require_layout(layout_of(model), weights)
    values = _as_tensor(weights.values)
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), parts_of(values, weights.layout), strict=True):
            parameter.copy_(part)


def flatten(model: nn.Module) -> FlatModel:
    """Move the parameters into one vector, and prepare one for their gradients; the module is used as before."""
    layout = layout_of(model)
    values = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    gradient = torch.zeros_like(values)
    for parameter, value, slope in zip(model.parameters(), parts_of(values, layout), parts_of(gradient, layout), strict=True):
        parameter.data = value
        parameter.grad = slope
    return FlatModel(module=model, layout=layout, values=values, gradient=gradient)


def load(model: FlatModel, weights: Weights) -> None:
    """`write_weights` for a flat model: one copy. Raises: ModelLayout."""
    require_layout(model.layout, weights)
    model.values.copy_(_as_tensor(weights.values))


def parts_of(values: Tensor, layout: Layout) -> list[Tensor]:
    """A flat vector (P,) as the model's tensors, in layout order: views, of any type."""
    sizes = [int(np.prod(shape)) for shape in layout.shapes]
    return [part.view(shape) for part, shape in zip(torch.split(values, sizes), layout.shapes, strict=True)]


def require_layout(layout: Layout, weights: Weights) -> None:
    """Raises: ModelLayout, if the weights are not in this layout."""
    if weights.layout is not layout and weights.layout != layout:
        raise ModelLayout(
            f"the weights have {len(weights.layout.names)} tensors and {weights.layout.size} values in another layout than the model's "
            f"{len(layout.names)} tensors and {layout.size} values.",
            fix="Use the plan with which these weights were trained.",
        )


def _concatenated(model: nn.Module) -> Vector:
    flat: Vector = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()]).cpu().numpy()
    return flat


def _as_tensor(values: Vector) -> Tensor:
    # A vector from the wire is a read-only view of its message; torch has no such notion and would warn. It is only ever read.
    return torch.from_numpy(values if values.flags.writeable else values.copy())

# SPDX-License-Identifier: Apache-2.0
"""The gradient of each unit on its own, from one forward and one backward pass over many.

The backward pass computes what reaches each layer's output and no gradient of a weight; with what the layer was given, that makes the
gradient of its weights unit by unit (Goodfellow 2015, https://arxiv.org/abs/1510.01799; book-keeping: Bu et al. 2022,
https://arxiv.org/abs/2210.00038). A unit's images are further positions: k images of Q output positions are k Q rows of one product, so a
patient's gradient costs what the plain gradient of its images costs, and nothing is ever held image by image.

Convolutions, dense layers, GroupNorm and tables of words are here. Any other layer is Opacus's (Yousefpour et al. 2021, https://arxiv.org/abs/2109.12298),
image by image, and summed over each unit's images.

    U  units      k  images of each      I = U k  images      C, O  channels in and out      K, L  height and width of the kernel
    Q  output positions of an image      T = k Q      D = K L C
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from client.training.clipping import Kept, Product, UnitGradients
from common.errors import ModelLayout

_LOG = logging.getLogger(__name__)

OfLayer = dict[Tensor, UnitGradients]
Seen = tuple[Tensor, ...]
Formula = Callable[[Any, Seen, Tensor, int], OfLayer]
"""(layer, what was seen of it, gradient of what it gave (I, ...), U) -> gradients of its parameters."""

_CALL: Final = 1_000_000
_WRITE: Final = 150
"""What a call of the library's own weight gradient costs beyond its products, counted in products: once, and for each weight."""
_SMALL, _NARROW = 20_480, 3
"""Values and width up to which PyTorch takes its plain algorithm for one image: what the product does, image by image."""


class UnitHooks:
    """Hooks on a module for as long as it lives: hanging new ones each round would leave the old behind."""

    def __init__(self, module: nn.Module) -> None:
        self._names = {parameter: name for name, parameter in module.named_parameters()}
        self._units = 0
        self._ends: list[Tensor] = []
        self._collected: dict[Tensor, list[UnitGradients]] = {}
        self.alike: dict[tuple[int, int], bool] = {}
        """What `company` found out: with so many images each, so many units at once do not feel each other."""
        for name, layer in module.named_modules():
            if next(layer.parameters(recurse=False), None) is not None:
                formula = formula_of(layer)
                layer.register_forward_hook(partial(self._forward, formula))
                _LOG.info("layer '%s' (%s): gradients by unit from %s", name, type(layer).__name__, formula.__name__)

    def gradients(self, losses: Callable[[], Tensor], units: int) -> list[UnitGradients]:
        """The gradient of the sum of each unit's losses for each parameter, in layout order.

        Shapes: `losses` runs the module and gives (I,), the same number for each of the `units`, those of one unit side by side.
        Raises: ModelLayout, if a parameter takes no part.
        """
        self._units = units
        try:
            total = losses().sum()
            # Backwards as far as the layers that see the images: their outputs' gradients are the last that anybody needs.
            torch.autograd.grad(total, self._ends)
            return [self._one(parameter, name) for parameter, name in self._names.items()]
        finally:
            self._units, self._ends, self._collected = 0, [], {}

    def _forward(self, formula: Formula, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not self._units:
            return
        if not inputs[0].requires_grad:
            self._ends.append(output)
        observe: Any = output.register_hook  # torch leaves it untyped
        observe(partial(self._backward, formula, layer, _seen(layer, inputs[0], output)))

    def _backward(self, formula: Formula, layer: nn.Module, seen: Seen, slopes: Tensor) -> None:
        for parameter, gradients in formula(layer, seen, slopes, self._units).items():
            self._collected.setdefault(parameter, []).append(gradients)

    def _one(self, parameter: Tensor, name: str) -> UnitGradients:
        match self._collected.get(parameter, []):
            case [gradients]:
                return gradients
            case [*several] if several:  # a layer that was used more than once
                return Kept(torch.stack([gradients.whole() for gradients in several]).sum(dim=0))
        raise ModelLayout(
            f"weight '{name}' got no gradient of its own for each unit, expected every weight to take part in the loss.",
            fix="Use each layer of the model in its forward pass, by calling it.",
        )


def formula_of(layer: nn.Module) -> Formula:
    """How the gradients of this layer's parameters are found. A subclass may do anything with its weights, so it is not its parent."""
    kind = type(layer)
    if kind is nn.Linear:
        return dense
    if kind is nn.GroupNorm:
        return group_norm
    if isinstance(layer, nn.Embedding) and kind is nn.Embedding and _is_plain(layer):
        return table
    if isinstance(layer, nn.Conv2d) and kind is nn.Conv2d and _is_simple(layer):
        return convolution
    return by_opacus(layer)


def _is_simple(layer: nn.Conv2d) -> bool:
    return layer.groups == 1 and layer.padding_mode == "zeros" and isinstance(layer.padding, tuple)


def _is_plain(layer: nn.Embedding) -> bool:
    return layer.padding_idx is None and layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse


def _seen(layer: nn.Module, given: Tensor, output: Tensor) -> Seen:
    """What a layer was given; and the mean and inverse deviation that a norm took of it, which autograd has kept for its own use."""
    if isinstance(layer, nn.GroupNorm):
        node: Any = output.grad_fn
        return given.detach(), node._saved_result1.detach(), node._saved_result2.detach()
    return (given.detach(),)


def dense(layer: nn.Linear, seen: Seen, slopes: Tensor, units: int) -> OfLayer:
    """A dense layer on (I, ..., D); its gradients are multiplied out at once where that is cheaper than Gram matrices."""
    inputs_UTD = seen[0].reshape(units, -1, seen[0].shape[-1])
    slopes_UTO = slopes.reshape(units, -1, slopes.shape[-1])
    few = inputs_UTD.shape[1] * (layer.in_features + layer.out_features) < layer.weight.numel()
    weight: UnitGradients = Product(slopes_UTO, inputs_UTD) if few else Kept(slopes_UTO.mT @ inputs_UTD)
    gradients: OfLayer = {layer.weight: weight}
    if layer.bias is not None:
        gradients[layer.bias] = Kept(slopes_UTO.sum(dim=1))
    return gradients


def table(layer: nn.Embedding, seen: Seen, slopes: Tensor, units: int) -> OfLayer:
    """A table of rows (V, D), looked up at (I, ...): each row gets what reached it wherever a unit used it."""
    places_UT, slopes_UTD = seen[0].reshape(units, -1), slopes.reshape(units, -1, layer.embedding_dim)
    sums_UVD = slopes.new_zeros(units, *layer.weight.shape)
    return {layer.weight: Kept(sums_UVD.scatter_add_(1, places_UT.unsqueeze(2).expand_as(slopes_UTD), slopes_UTD))}


def group_norm(layer: nn.GroupNorm, seen: Seen, slopes: Tensor, units: int) -> OfLayer:
    """GroupNorm on (I, C, ...): y = weight * (x - mean) / deviation + bias, with mean and deviation of each image and group (I, G)."""
    given, *statistics = seen
    mean_IC, inverse_IC = (each.repeat_interleave(layer.num_channels // layer.num_groups, dim=1) for each in statistics)
    slopes_IQC, given_IQC = _rows(slopes, len(slopes)), _rows(given, len(slopes))
    bias_IC = slopes_IQC.sum(dim=1)
    weight_IC = (torch.linalg.vecdot(slopes_IQC, given_IQC, dim=1) - mean_IC * bias_IC) * inverse_IC
    return {
        layer.weight: Kept(torch.unflatten(weight_IC, 0, (units, -1)).sum(dim=1)),
        layer.bias: Kept(torch.unflatten(bias_IC, 0, (units, -1)).sum(dim=1)),
    }


def convolution(layer: nn.Conv2d, seen: Seen, slopes: Tensor, units: int) -> OfLayer:
    """A convolution on (I, C, H, W): by the library, unit after unit, where that saves more than its calls cost; else as one product."""
    given, slopes_UTO = seen[0], _rows(slopes, units)
    weights = layer.weight.numel()
    plainly = len(given) == units and given[0].numel() <= _SMALL and max(layer.kernel_size) <= _NARROW
    called = given.device.type == "cpu" and not plainly and slopes_UTO.shape[1] * weights > _CALL + _WRITE * weights
    gradients: OfLayer = {layer.weight: _by_calls(layer, given, slopes, units) if called else _by_product(layer, given, slopes_UTO)}
    if layer.bias is not None:
        gradients[layer.bias] = Kept(slopes_UTO.sum(dim=1))
    return gradients


def _by_calls(layer: nn.Conv2d, given: Tensor, slopes: Tensor, units: int) -> Kept:
    """The library's weight gradient, once for each unit."""
    k, weight_only = len(given) // units, (False, True, False)
    each = [
        torch.ops.aten.convolution_backward(
            slope, images, layer.weight, None, layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups, weight_only
        )[1]
        for images, slope in zip(torch.split(given, k), torch.split(slopes, k), strict=True)
    ]
    return Kept(torch.stack([weight.permute(0, 2, 3, 1) for weight in each]), axes=(0, 3, 1, 2))


def _by_product(layer: nn.Conv2d, given: Tensor, slopes_UTO: Tensor) -> Kept:
    """Patches (U, T, D) times slopes, for all units at once."""
    (K, L), (down, right), (apart, aside) = layer.kernel_size, layer.stride, layer.dilation
    assert isinstance(layer.padding, tuple)
    top, left = layer.padding
    padded = functional.pad(given.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
    spread = padded.unfold(1, (K - 1) * apart + 1, down).unfold(2, (L - 1) * aside + 1, right)
    patches = spread[..., ::apart, ::aside].permute(0, 1, 2, 4, 5, 3)
    patches_UTD = patches.reshape(*slopes_UTO.shape[:2], -1)
    return Kept(torch.unflatten(patches_UTD.mT @ slopes_UTO, 1, (K, L, -1)), axes=(3, 2, 0, 1))


def _rows(values: Tensor, units: int) -> Tensor:
    """(I, C, ...) as (U, T, C); for channels_last images nothing is copied."""
    return values.movedim(1, -1).reshape(units, -1, values.shape[1])


def by_opacus(layer: nn.Module) -> Formula:
    """Opacus's own gradients for each image, or functorch's where it has none."""
    from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer  # a second to import: only where it is needed
    from opacus.grad_sample.grad_sample_module import GradSampleHooks

    sampler = GradSampleHooks.GRAD_SAMPLERS.get(type(layer))
    if sampler is None:
        prepare_layer(layer)
        sampler = ft_compute_per_sample_gradient

    def opacus(layer: nn.Module, seen: Seen, slopes: Tensor, units: int) -> OfLayer:
        # Opacus 1.6 reads images as if they stood in NCHW order, whatever the order is.
        by_image = sampler(layer, [each.contiguous() for each in seen], slopes.contiguous())
        return {parameter: Kept(torch.unflatten(each, 0, (units, -1)).sum(dim=1)) for parameter, each in by_image.items()}

    return opacus

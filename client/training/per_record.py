# SPDX-License-Identifier: Apache-2.0
"""The gradient of each record on its own, by Opacus's hooks (Yousefpour et al. 2021, https://arxiv.org/abs/2109.12298).

A forward hook keeps each layer's input, a backward hook gets the gradient of its output, and their product, taken image by image, is the
gradient of the layer's weights for that image. Opacus brings hooks and formulas; two things are ours:

- The convolution. Opacus 1.6 unfolds its input with the strides of NCHW memory, whatever the memory is: for channels_last images the
  result is silently wrong (a test shows it). Ours unfolds in channels_last order, where a patch is runs of whole channels.
- The collecting. Opacus zeroes and copies each gradient once more to allow for recurrent layers; we have none.

    B  batch      C, O  channels in and out      K, L  height and width of the kernel      Q  output positions
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import Tensor, nn
from torch.nn import functional

from common.errors import ModelLayout


class RecordHooks(GradSampleHooks):  # type: ignore[misc]  # Opacus has no types
    """Hooks on a module for as long as it lives: hanging new ones each round would leave the old behind."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, loss_reduction="sum")
        self._named = dict(module.named_parameters())
        self._last_reached = _last_reached(module)
        self._collected: dict[Tensor, Tensor] = {}

    def gradients(self, losses_B: Tensor) -> list[Tensor]:
        """The gradient of each record's loss for each parameter, (B, *shape), in layout order; the graph is freed.

        Raises: ModelLayout, if a parameter took no part in the loss.
        """
        self._collected = {}
        with _first_layer_warning_unsaid():
            # Asking for one gradient of the first layer makes autograd visit every layer, yet sum no weight gradients but that one.
            torch.autograd.backward(losses_B.sum(), inputs=[self._last_reached])
        collected, self._collected = self._collected, {}
        for name, parameter in self._named.items():
            if parameter not in collected:
                raise ModelLayout(
                    f"weight '{name}' got no gradient by record, expected every weight to take part in the loss.",
                    fix="Define layers in the order in which the forward pass uses them, each of a kind that Opacus knows.",
                )
        return [collected[parameter] for parameter in self._named.values()]

    def capture_backprops_hook(self, module: Any, _: Any, gradients: tuple[Tensor, ...], *, loss_reduction: str, batch_first: bool) -> None:
        """Called by torch for each layer in the backward pass."""
        inputs = module.activations.pop()
        for parameter, of_each in self.GRAD_SAMPLERS[type(module)](module, inputs, gradients[0].detach()).items():
            # A layer that is used twice in one pass adds up.
            self._collected[parameter] = self._collected[parameter] + of_each if parameter in self._collected else of_each


def convolution_gradients(layer: nn.Conv2d, inputs: Sequence[Tensor], output_gradient: Tensor) -> Mapping[Tensor, Tensor]:
    """Gradients of a convolution's weight (B, O, C, K, L) and bias (B, O), for any memory order."""
    patches_BQP = _patches(inputs[0], layer)
    slopes_BQO = output_gradient.permute(0, 2, 3, 1).flatten(1, 2)
    weight_BOP = slopes_BQO.transpose(1, 2) @ patches_BQP
    B, O, _ = weight_BOP.shape  # noqa: E741  # output channels
    gradients = {layer.weight: weight_BOP.view(B, O, *layer.kernel_size, -1).permute(0, 1, 4, 2, 3)}
    if layer.bias is not None:
        gradients[layer.bias] = slopes_BQO.sum(dim=1)
    return gradients


def _patches(images_BCHW: Tensor, layer: nn.Conv2d) -> Tensor:
    """What each output position sees, (B, Q, K * L * C)."""
    assert layer.groups == 1
    assert layer.dilation == (1, 1)
    assert not isinstance(layer.padding, str)
    (K, L), (down, right), (top, left) = layer.kernel_size, layer.stride, layer.padding
    padded = functional.pad(images_BCHW.permute(0, 2, 3, 1), (0, 0, left, left, top, top))
    return padded.unfold(1, K, down).unfold(2, L, right).permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(1, 2)


RecordHooks.GRAD_SAMPLERS = {**GradSampleHooks.GRAD_SAMPLERS, nn.Conv2d: convolution_gradients}


def _last_reached(module: nn.Module) -> nn.Parameter:
    """The smallest parameter of the layer that stands first, where back-propagation ends."""
    first = next(layer for layer in module.modules() if next(layer.parameters(recurse=False), None) is not None)
    return min(first.parameters(recurse=False), key=torch.numel)


@contextmanager
def _first_layer_warning_unsaid() -> Iterator[None]:
    """Images need no gradient, so torch warns that the first layer's hook sees the gradient of its output: which is all it needs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        yield

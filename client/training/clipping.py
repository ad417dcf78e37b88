# SPDX-License-Identifier: Apache-2.0
"""The bound on what one unit can do: its gradient is clipped, and cut to the lattice, before anything is summed.

    t_u = trunc( g_u * min(1, C' / |g_u|) / step )        sum_u t_u, whole numbers

(Abadi et al. 2016, https://arxiv.org/abs/1607.00133, algorithm 1, with a lattice.) Truncation towards zero lengthens no vector, and
C' = C (1 - 2^-10) leaves room for floating point: a norm is summed in float32 over at most 1,024 values and in float64 beyond, so it is
right to 2^-14; scales and products in float32 are to 2^-22. So |t_u| <= C / step whatever g_u is: leaving a unit out moves the sum by at
most C, however units were divided over physical batches, because a sum of integers has no order. A gradient that is not finite, or beyond
10^18, counts as zero: one broken image neither stops training nor escapes its bound, and no scale is so small that float32 rounds it up.
Squares below 10^-38 are lost; a plan's C is at least 10^-6, beside which they are nothing.

What is not in this bound: that g_u depends on nobody but u. It is computed in floating point, where that does not go without saying;
`company` sees to it.

A unit's gradient for one of the model's tensors is held whole (`Kept`) or, for a dense layer, as the factors of which it is the product
(`Product`): cheaper to measure, and multiplied out a few units at a time when it is added.

    U  units in a physical batch      P  values of the model      n  values of one tensor      T  images or positions of a unit
    D, O  inputs and outputs of a dense layer
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from common.privacy import Lattice

ROOM_FOR_ROUNDING: Final = 1 - 2.0**-10
_RUN: Final = 1024
_LONGEST: Final = 1e18
_CACHED: Final = 2**17
"""Values that stay in a processor's cache from one operation to the next."""


class UnitGradients(Protocol):
    """The gradients of U units for one of the model's tensors."""

    def squares(self) -> Tensor:
        """Squared norms, (U,) float64, not below those of what `add_to` multiplies, but for one part in 2^13."""
        ...

    def add_to(self, total: Tensor, scales_U: Tensor) -> None:
        """total += sum over units of trunc(scale * gradient), for an int64 total of the tensor's shape. All must be finite."""
        ...

    def only(self, units_U: Tensor) -> "UnitGradients":
        """The same with zeros for the units at which this mask is false, in the same shape: what is computed of others stays as it was."""
        ...

    def whole(self) -> Tensor:
        """(U, *shape), in the order of the model's tensor."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Gradients held whole: (U, *shape) float32, contiguous; `axes` permutes `shape` into the order of the model's tensor."""

    values: Tensor
    axes: tuple[int, ...] | None = None

    def squares(self) -> Tensor:
        flat_Un = self.values.flatten(1)
        runs = flat_Un.shape[1] // _RUN
        whole, rest = torch.unflatten(flat_Un[:, : runs * _RUN], 1, (runs, _RUN)), flat_Un[:, runs * _RUN :]
        runs_U, rest_U = _square(torch.linalg.vector_norm(whole, dim=2)).sum(dim=1), _square(torch.linalg.vector_norm(rest, dim=1))
        return runs_U + rest_U

    def add_to(self, total: Tensor, scales_U: Tensor) -> None:
        flat_Un, scales_U1 = self.values.flatten(1), scales_U.unsqueeze(1)
        width = _at_once(self.values, len(flat_Un))
        added_n = torch.cat([_truncated_sum(block * scales_U1) for block in torch.split(flat_Un, width, dim=1)])
        added = added_n.view(self.values.shape[1:])
        total += added if self.axes is None else added.permute(self.axes)

    def only(self, units_U: Tensor) -> "Kept":
        return Kept(_zeroed(self.values, units_U), self.axes)

    def whole(self) -> Tensor:
        return self.values if self.axes is None else self.values.permute(0, *(axis + 1 for axis in self.axes))


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """Gradients of a dense layer's weight, (O, D) for each unit, as slopes (U, T, O) and inputs (U, T, D): sum_t slope_t x input_t."""

    slopes: Tensor
    inputs: Tensor

    def squares(self) -> Tensor:
        """By Gram matrices in float64: |sum_t s_t x_t|^2 = sum_tt' (s_t . s_t') (x_t . x_t').

        Where images of one unit cancel, float32 loses more of the product than of its factors; T 2^-23 sum_t |s_t| |x_t| bounds that.
        """
        slopes, inputs = self.slopes.double(), self.inputs.double()
        gram_U = ((slopes @ slopes.mT) * (inputs @ inputs.mT)).sum(dim=(1, 2)).clamp_(min=0)
        lost_U = (slopes.norm(dim=2) * inputs.norm(dim=2)).sum(dim=1) * (slopes.shape[1] * 2.0**-23)
        bound_U: Tensor = gram_U.sqrt_() + lost_U
        return bound_U.square_()

    def add_to(self, total: Tensor, scales_U: Tensor) -> None:
        scaled_UTO = self.slopes * scales_U.view(-1, 1, 1)
        width = _at_once(total, len(scales_U) * total.shape[1])
        for rows, slopes in zip(torch.split(total, width), torch.split(scaled_UTO, width, dim=2), strict=True):
            rows += _truncated_sum(slopes.mT * self.inputs if slopes.shape[1] == 1 else slopes.mT @ self.inputs)

    def only(self, units_U: Tensor) -> "Product":
        return Product(_zeroed(self.slopes, units_U), _zeroed(self.inputs, units_U))

    def whole(self) -> Tensor:
        return self.slopes.mT @ self.inputs


def add_clipped(totals: Iterable[Tensor], gradients: Sequence[UnitGradients], lattice: Lattice, there_U: Tensor) -> None:
    """Add units' clipped gradients, counted in steps of the lattice, to sums; of those units that are `there`.

    Shapes: one int64 total and one U for each of the model's tensors, in the same order; there_U (U,) bool.
    Guarantees: one unit's part is at most `lattice.clip_steps` long (L2), whatever the values, and a function of its own gradient.
    """
    norms_U = torch.stack([gradient.squares() for gradient in gradients]).sum(dim=0).sqrt_()
    if not (sound_U := norms_U < _LONGEST).all():
        gradients = [gradient.only(sound_U) for gradient in gradients]
    scales_U = (lattice.clip_norm * ROOM_FOR_ROUNDING / norms_U).clamp_(max=1).div_(lattice.step)
    scales_U = scales_U.where(sound_U & there_U, 0).float()
    for total, gradient in zip(totals, gradients, strict=True):
        gradient.add_to(total, scales_U)


def _zeroed(values: Tensor, units_U: Tensor) -> Tensor:
    return values.where(units_U.view(-1, *[1] * (values.dim() - 1)), 0)


def _square(norms: Tensor) -> Tensor:
    return norms.double().square_()


def _truncated_sum(scaled: Tensor) -> Tensor:
    """Sum over the first axis of values truncated towards zero, as whole numbers: exact up to 2^15 units of 2^16 steps."""
    return scaled.to(torch.int32).sum(dim=0, dtype=torch.int32)


def _at_once(tensor: Tensor, each: int) -> int:
    """How many times `each` values to take at once: as fit a processor's cache; all, on a device that hides its memory's latency."""
    most = _CACHED if tensor.device.type == "cpu" else 2**31
    return max(1, most // max(1, each))

# SPDX-License-Identifier: Apache-2.0
"""The bound on what one unit can do: its gradient is clipped, and cut to the lattice, before anything is summed.

    t_u = trunc( g_u * min(1, C' / |g_u|) / step )        sum_u t_u, whole numbers

(Abadi et al. 2016, https://arxiv.org/abs/1607.00133, algorithm 1, with a lattice.) Truncation towards zero lengthens no vector. The norm
is taken in float64, and C' = C (1 - 2^-10) leaves a thousand times the room that float32 products need. So |t_u| <= C / step whatever g_u
is: leaving a unit out moves the sum by at most C, however units were divided over physical batches, because a sum of integers has no
order. A gradient that is not finite counts as zero: one broken image neither stops training nor escapes its bound.

What is not in this bound: g_u itself is computed in floating point, and in its last bits may depend on which other units were in the same
physical batch, because libraries choose their order of summing by shape. That moves t_v of others by a step here and there; the rest of
the 2^-10 is there for it, and a test measures how much of it is used.

    U  units in a physical batch      P  values of the model
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from common.privacy import Lattice

ROOM_FOR_ROUNDING = 1 - 2.0**-10
_EXACT = 2**24  # up to here float32 has every integer, so a sum that stays below it is exact in any order
_CACHE_BLOCK = 2**17  # values that stay in cache from one operation to the next


def add_clipped(total_P: Tensor, gradients: Sequence[Tensor], lattice: Lattice) -> None:
    """Add the units' clipped gradients, counted in steps of the lattice, to a sum. The gradients are overwritten.

    Shapes: total (P,) int64; one float32 tensor (U, *shape) for each of the model's tensors, in layout order.
    Guarantees: one unit's part is at most `lattice.clip_steps` long (L2), whatever the values.
    """
    parts = [gradient.flatten(1) for gradient in gradients]
    norms_U = torch.stack([_squares(part) for part in parts]).sum(dim=0).sqrt_()
    finite_U = norms_U.isfinite()
    if not finite_U.all():
        parts, norms_U = [part[finite_U] for part in parts], norms_U[finite_U]
    factors_U = (lattice.clip_norm * ROOM_FOR_ROUNDING / norms_U).clamp_(max=1)
    scales_U1 = (factors_U / lattice.step).float().unsqueeze(1)
    widths = [part.shape[1] for part in parts]
    for total, part in zip(torch.split(total_P, widths), parts, strict=True):
        _add_truncated(total, part, scales_U1, most=lattice.clip_steps)


def _squares(part_UP: Tensor) -> Tensor:
    """Sums of squares, (U,) float64."""
    return torch.stack([torch.linalg.vecdot(block, block) for block in map(Tensor.double, _blocks(part_UP))]).sum(dim=0)


def _add_truncated(total_P: Tensor, part_UP: Tensor, scales_U1: Tensor, *, most: int) -> None:
    """total += sum over units of trunc(scale * gradient), each at most `most`."""
    exact = torch.float32 if len(part_UP) * most <= _EXACT else torch.float64
    for total, block in zip(_blocks(total_P.unsqueeze(0), units=len(part_UP)), _blocks(part_UP), strict=True):
        total += block.mul_(scales_U1).trunc_().sum(dim=0, dtype=exact).to(torch.int64)


def _blocks(part_UP: Tensor, units: int | None = None) -> Iterator[Tensor]:
    """Columns, as many at once as fit the cache of a processor; all, on a device that hides its memory's latency."""
    width = max(1, _CACHE_BLOCK // max(1, units or len(part_UP))) if part_UP.device.type == "cpu" else part_UP.shape[1]
    return iter(torch.split(part_UP, width, dim=1))

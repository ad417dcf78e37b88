# SPDX-License-Identifier: Apache-2.0
"""The bound on what one unit can do: its gradient is scaled to a norm of at most the clip norm before anything is summed.

    sum_u  g_u * min(1, C / |g_u|)

(Abadi et al. 2016, https://arxiv.org/abs/1607.00133, algorithm 1.) C is lowered by 2^-10 of itself, a hundred times more than float32 can
lose in norm and product, so that rounding never carries a unit past it. A gradient that is not finite counts as zero: one broken image
neither stops training nor escapes its bound.

    U  units in a physical batch      P  values of the model
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ROOM_FOR_ROUNDING = 1 - 2.0**-10


def clipped_sum(gradients: Sequence[Tensor], clip_norm: float) -> Tensor:
    """Clip each unit's gradient and add them up.

    Shapes: one tensor (U, *shape) for each of the model's tensors, in layout order; result (P,).
    Guarantees: taking one unit away moves the result by at most `clip_norm` (L2), whatever the values.
    """
    flat = [gradient.reshape(len(gradient), -1) for gradient in gradients]
    norms_U = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part, dim=1) for part in flat]), dim=0)
    if not norms_U.isfinite().all():
        flat = [part[norms_U.isfinite()] for part in flat]
        norms_U = norms_U[norms_U.isfinite()]
    factors_U = (clip_norm * ROOM_FOR_ROUNDING / norms_U).clamp(max=1)
    return torch.cat([factors_U @ part for part in flat])

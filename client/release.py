# SPDX-License-Identifier: Apache-2.0
"""The only door out.

Training hands over a `RawDelta`; what leaves is a `ReleasedDelta`, and this module makes every one of them. Whatever must be true of what
leaves the building is checked here: the values are finite and the whole update is no longer than the plan's bound.

Both are post-processing of a delta whose privacy has already been paid for; with `unit = "none"` nothing here makes it private.
"""

import numpy as np

from common.errors import UpdateNonFinite
from common.update import RawDelta, ReleasedDelta


def release(delta: RawDelta, *, max_norm: float) -> ReleasedDelta:
    """Scale a delta to an L2 norm of at most `max_norm`; shorter ones keep their values.

    Shapes: (P,) float32 in and out. Guarantees: finite, norm <= max_norm to float32 rounding.
    Raises: UpdateNonFinite, if a value is NaN or infinite: a diverged site sends nothing.
    """
    norm = float(np.linalg.norm(delta.values))
    if not np.isfinite(norm):
        raise UpdateNonFinite(
            "local training ended in NaN or infinite weights.",
            fix="Lower the plan's learning_rate or clip_norm; the round goes on without this site.",
        )
    values = delta.values if norm <= max_norm else delta.values * np.float32(max_norm / norm)
    return ReleasedDelta(values=values)

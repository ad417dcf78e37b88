# SPDX-License-Identifier: Apache-2.0
"""The only door out.

    RawDelta --release--> ReleasedDelta --quantise--> QuantisedDelta --masked--> MaskedUpdate
    NoisedSum -----------------------on_lattice----------^
    NoisedCounts --------------------counts_on_lattice---^

Training hands over a `RawDelta`; what leaves is a `MaskedUpdate`, and this module makes every one of them and of the stages in between.
Whatever must be true of what leaves the building is checked here: the values are finite, the whole update is no longer than the plan's
bound, and the protocol has masked it for a cohort that it checked.

The steps before the masks are post-processing of what has already been paid for; with `unit = "none"` nothing here makes it private.
A `ReleasedDelta` or a `QuantisedDelta` leaves only a simulated site whose own file says so (`client.site`).
"""

import math

import numpy as np

from common.errors import UpdateNonFinite, WrongStage
from common.secagg import quantise as lattice
from common.secagg.quantise import Grid
from common.secagg.shamir import Entropy
from common.secagg.site import Outcome
from common.update import MaskedUpdate, NoisedCounts, NoisedSum, QuantisedDelta, RawDelta, ReleasedDelta


def release(delta: RawDelta, *, max_norm: float) -> ReleasedDelta:
    """Scale a delta to an L2 norm of at most `max_norm`; shorter ones keep their values.

    Shapes: (P,) float32 in and out. Guarantees: finite, norm <= max_norm to float32 rounding.
    Raises: UpdateNonFinite, if a value is NaN or infinite: a diverged site sends nothing.
    """
    norm = lattice.norm(delta.values)
    if not math.isfinite(norm):
        raise UpdateNonFinite(
            "local training ended in NaN or infinite weights.",
            fix="Lower the plan's learning_rate or clip_norm; the round goes on without this site.",
        )
    values = delta.values if norm <= max_norm else delta.values * np.float32(max_norm / norm)
    return ReleasedDelta(values=values)


def quantise(delta: ReleasedDelta, grid: Grid, *, weight: int, entropy: Entropy) -> QuantisedDelta:
    """Put a released delta on the plan's lattice; the error of a coordinate is at most half a step, and below one where words have 16 bits.

    Those are rounded at random, so the result is what must be stored: quantised again, the same delta gives other words, and the two
    together would say more than one. Shapes: (P,) float32 to (P,) ring words. Raises: UpdateNorm, for a weight that the grid does not hold.
    """
    update = lattice.quantise(delta.values, grid, weight=weight, entropy=entropy)
    return QuantisedDelta(words=update.body, weight=update.weight)


def on_lattice(noised: NoisedSum, grid: Grid) -> QuantisedDelta:
    """Whole numbers enter the ring as they are: what was accounted is what leaves.

    Shapes: (P,) int64 to (P,) ring words. Raises: UpdateNorm, for one beyond the ring, which the plan's lattice makes rarer than 2^-99.
    """
    update = lattice.on_lattice(noised.values, grid)
    return QuantisedDelta(words=update.body, weight=update.weight)


def counts_on_lattice(noised: NoisedCounts, grid: Grid, *, weight: int) -> QuantisedDelta:
    """Noised counts enter the ring as they are, and are never scaled; the roster's weight only stands beside them.

    Shapes: (cells,) int64 to (cells,) ring words. Raises: UpdateNorm, for one beyond the ring.
    """
    return QuantisedDelta(words=lattice.on_lattice(noised.values, grid).body, weight=weight)


def masked(outcome: Outcome) -> MaskedUpdate:
    """The vector that the protocol masked. Raises: WrongStage, if this step has none."""
    if outcome.vector is None:
        raise WrongStage("this step sends no vector.", fix="Only step MASK does.")
    return MaskedUpdate(words=outcome.vector)

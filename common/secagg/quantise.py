# SPDX-License-Identifier: Apache-2.0
"""From a released delta to ring words, and from their sum back to a mean.

Masks need a finite group. A coordinate x in [-r, r] becomes the integer q = round_half_even(x * w/w_max * (2^(b-1) - 1) / r), b bits,
two's complement in the ring. With b = ring bits - ceil(log2 cohort) no sum of the cohort can wrap, whatever the sites send within
range; b is never above 24, which float32 can fill. The error is at most half a step, r * 2^-24 at b = 24: below float32's own.

Bandwidth mode: the body is in Z_2^16, two bytes a parameter, b = 12 for ten sites. A step is then coarse, and rounding to the nearest
would lose every small coordinate for good, so it rounds up or down at random, right on average, with bits from a cryptographic source
(Gupta et al. 2015, https://arxiv.org/abs/1502.02551, section 3).

Weights are public bands of the roster, at most w_max: each site scales itself by w/w_max, and mean = w_max * sum(q) * step / sum(w).

Under distributed noise nothing here rounds: the noised integers are on the ring's lattice already and enter by `on_lattice`.

    >>> grid = Grid.for_cohort(4, coordinate_range=1.0)
    >>> update = quantise(np.float32([0.0, 1.0, -3.0]), grid, weight=1)
    >>> mean(update.body, grid, total_weight=1).tolist()
    [0.0, 1.0, -1.0]
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from common import canonical
from common.errors import ModelLayout, UpdateNonFinite, UpdateNorm
from common.secagg.masks import Body, Mask, apply
from common.secagg.shamir import Entropy

SLACK: Final = 1 + 2.0**-10
"""What a norm may exceed its bound by: float32 arithmetic at the site, and nothing else."""
_MOST_BITS: Final = 24
_BLOCK: Final = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The lattice on which updates are summed. `coordinate_range` is r, the largest coordinate that is not cut off."""

    ring_bits: Literal[16, 32]
    bits: int
    coordinate_range: float
    max_weight: int = 1

    @classmethod
    def for_cohort(cls, max_cohort: int, *, coordinate_range: float, ring_bits: Literal[16, 32] = 32, max_weight: int = 1) -> "Grid":
        """The finest grid on which `max_cohort` sites cannot wrap the ring."""
        room = ring_bits - math.ceil(math.log2(max(2, max_cohort)))
        return cls(ring_bits=ring_bits, bits=min(_MOST_BITS, room), coordinate_range=coordinate_range, max_weight=max_weight)

    @property
    def largest(self) -> int:
        """The largest integer that a coordinate becomes."""
        return (1 << (self.bits - 1)) - 1

    @property
    def step(self) -> float:
        """The width of the lattice, in the delta's units."""
        return self.coordinate_range / self.largest

    @property
    def word(self) -> np.dtype[Any]:
        return np.dtype(np.uint32 if self.ring_bits == 32 else np.uint16)

    @property
    def signed_word(self) -> np.dtype[Any]:
        return np.dtype(np.int32 if self.ring_bits == 32 else np.int16)

    @property
    def rounding(self) -> float:
        """How far rounding moves a coordinate at most, in steps."""
        return 0.5 if self.ring_bits == 32 else 1.0

    @property
    def digest(self) -> bytes:
        """By which a stored update says what its integers mean."""
        return canonical.digest(b"FSA1 grid", canonical.encode(self))

    def norm_limit(self, max_norm: float, num_values: int) -> float:
        """The longest that a vector of norm `max_norm` can be once it lies on this grid."""
        return max_norm * SLACK + self.rounding * self.step * math.sqrt(num_values)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedUpdate:
    """What a site commits to: ring words (d,) and its weight. Stored until its round is over; never sent unmasked."""

    body: Body
    weight: int

    def __repr__(self) -> str:
        return f"QuantisedUpdate(num_values={self.body.size}, weight={self.weight})"

    def commitment(self, salt: bytes) -> bytes:
        """H(q || salt): binds the site to this update, so that an auditor may ask it to open."""
        return canonical.digest(b"FSA1 update", salt, self.weight.to_bytes(8, "big"), self.to_bytes())

    def to_bytes(self) -> memoryview:
        """The body, little-endian."""
        return np.ascontiguousarray(self.body, dtype=self.body.dtype.newbyteorder("<")).data.cast("B")


def quantise(delta: NDArray[np.float32], grid: Grid, *, weight: int, entropy: Entropy | None = None) -> QuantisedUpdate:
    """A clipped delta on the grid, scaled by weight / max_weight; coordinates beyond the range are cut off at it.

    Shapes: delta (d,) float32. `entropy` is needed in bandwidth mode, whose rounding is random.
    Raises: UpdateNonFinite; UpdateNorm for a weight outside 1..max_weight.
    """
    if not 1 <= weight <= grid.max_weight:
        raise UpdateNorm(f"the update's weight is {weight}, expected 1 to {grid.max_weight}.", fix="Use the roster's weight.")
    random = _random_words(delta.size, entropy) if grid.ring_bits == 16 else None
    body = np.empty(delta.size, dtype=grid.word)
    scale = grid.largest / grid.coordinate_range
    for start in range(0, delta.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        wide = delta[block].astype(np.float64)
        if not np.isfinite(wide).all():
            raise _not_finite()
        scaled = np.clip(wide * (weight / grid.max_weight), -grid.coordinate_range, grid.coordinate_range) * scale
        rounded = np.rint(scaled) if random is None else np.floor(scaled + random[block] * 2.0**-32)
        np.clip(rounded, -grid.largest, grid.largest, out=rounded)
        body[block] = rounded.astype(grid.signed_word).view(grid.word)
    return QuantisedUpdate(body=body, weight=weight)


def on_lattice(values: NDArray[np.int64], grid: Grid) -> QuantisedUpdate:
    """Integers that are on the lattice already, noise included: they enter the ring as they are, with weight one.

    Raises: UpdateNorm for an integer beyond the ring's half.
    """
    half = 1 << (grid.ring_bits - 1)
    if values.size and (values.min() < -half or values.max() >= half):
        raise UpdateNorm("a noised coordinate is outside the ring.", fix="The plan's range check was too loose: lower the noise.")
    return QuantisedUpdate(body=values.astype(grid.signed_word).view(grid.word), weight=1)


def check_update(update: QuantisedUpdate, grid: Grid, *, num_values: int, max_norm: float) -> None:
    """Raises: ModelLayout for another length or type, UpdateNorm for integers longer than `max_norm` and rounding allow."""
    if update.body.dtype != grid.word or update.body.shape != (num_values,):
        raise ModelLayout(
            f"the update is {update.body.dtype} of shape {update.body.shape}, expected {grid.word} of shape ({num_values},).",
            fix="Both sides must build the model from the same plan and version of fedward.",
        )
    found, limit = ring_norm(update.body, grid), grid.norm_limit(max_norm, num_values)
    if not found <= limit:
        raise UpdateNorm(f"the update's norm is {found / limit:.3g} times what the plan allows.", fix="Clip to the plan's norm.")


def ring_norm(body: Body, grid: Grid) -> float:
    """The L2 norm of ring words read as signed integers, in the delta's units."""
    return norm(body.view(grid.signed_word)) * grid.step


def mean(body: Body, grid: Grid, *, total_weight: int) -> NDArray[np.float32]:
    """The weighted mean delta from the sum over a cohort. Shapes: (d,) to (d,) float32."""
    scale = grid.step * grid.max_weight / total_weight
    result = np.empty(body.size, dtype=np.float32)
    signed = body.view(grid.signed_word)
    for start in range(0, body.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        result[block] = signed[block].astype(np.float64) * scale
    return result


def norm(values: NDArray[Any]) -> float:
    """The L2 norm, in float64, a cache block at a time: a model needs no second copy in double precision."""
    total = 0.0
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK].astype(np.float64)
        total += float(block @ block)
    return math.sqrt(total)


def distance(values: NDArray[Any], others: NDArray[Any]) -> float:
    """The L2 norm of a difference, in the same way."""
    total = 0.0
    for start in range(0, values.size, _BLOCK):
        block = values[start : start + _BLOCK].astype(np.float64) - others[start : start + _BLOCK]
        total += float(block @ block)
    return math.sqrt(total)


def _not_finite() -> UpdateNonFinite:
    return UpdateNonFinite("the update holds NaN or infinite values.", fix="Lower the learning rate; the round goes on without this site.")


def _random_words(count: int, entropy: Entropy | None) -> NDArray[np.uint32]:
    """`count` random words: thresholds in [0, 1), in units of 2^-32."""
    assert entropy is not None, "random rounding needs a source of randomness"
    words: NDArray[np.uint32] = np.zeros(count, dtype=np.uint32)
    apply([Mask(entropy(32))], body=words, tail=np.zeros(3, dtype=np.uint32))
    return words

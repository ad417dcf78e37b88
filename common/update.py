# SPDX-License-Identifier: Apache-2.0
"""The stages of an update, each a type of its own.

    RawDelta -> ReleasedDelta -> QuantisedDelta -> MaskedUpdate -> (wire) -> AggregateDelta -> Weights of the next round
    NoisedSum, NoisedCounts ----------^

With distributed noise training ends in a `NoisedSum`, which is on the lattice already: nothing after the noise clips, rounds or weights.
So it is with what is counted of patients.

A `RawDelta` is what training left behind: it says too much about patients, and no function that sends accepts one. `client/release.py`
makes the three stages after it and nobody else does. A deployed site sends a `MaskedUpdate` and no other; a `ReleasedDelta` or a
`QuantisedDelta` crosses only inside a simulation that was asked for it. Two stages cannot be added, compared or swapped by mistake,
because mypy sees two types where an array would look the same.

All vectors are flat: the model's tensors in layout order, each in C order; float32, or ring words once quantised.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from common import canonical
from common.errors import ModelLayout, UpdateNonFinite

Vector = NDArray[np.float32]
Words = NDArray[np.uint32] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names and shapes of a model's tensors, in the order in which they stand in a flat vector."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def size(self) -> int:
        """P, the number of values."""
        return sum(math.prod(shape) for shape in self.shapes)

    @cached_property
    def digest(self) -> bytes:
        return canonical.digest(b"fedward layout 1", canonical.encode([self.names, self.shapes, "float32"]))


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A global model: float32, (P,), finite."""

    layout: Layout
    values: Vector

    def __post_init__(self) -> None:
        _check(self.values, self.layout.size, "the model")

    @cached_property
    def digest(self) -> bytes:
        """What a round is about: layout and values, little-endian."""
        little_endian = np.ascontiguousarray(self.values, dtype="<f4")
        return canonical.digest(b"fedward model 1", self.layout.digest, little_endian.data.cast("B"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDelta:
    """Local weights minus global weights, (P,). Never leaves the process that made it."""

    values: Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisedSum:
    """Minus the sum of clipped gradients plus this site's share of the noise, (P,) int64 steps of the plan's lattice.

    Private only together with the other shares of a noise quorum, so it leaves masked or not at all.
    """

    values: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisedCounts:
    """Counts of a site's patients plus its noise, or its share of it, (cells,) int64 steps of the form's lattice (common.counting)."""

    values: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedDelta:
    """A delta that may leave: finite, inside the plan's norm bound, its privacy already charged. (P,)"""

    values: Vector

    def __post_init__(self) -> None:
        _check(self.values, self.values.size, "the update")


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedDelta:
    """A released delta on the plan's lattice, (P,) ring words, and its weight: what a site stores, and what is masked."""

    words: Words
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedUpdate:
    """A quantised delta under its masks, (P,) ring words: noise to whoever lacks the cohort's consent to open the sum."""

    words: Words


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateDelta:
    """The cohort's mean delta, (P,), and how many sites stand behind it."""

    values: Vector
    num_sites: int


def _check(values: Vector, size: int, what: str) -> None:
    if values.dtype != np.float32 or values.shape != (size,):
        raise ModelLayout(
            f"{what} is {values.dtype} of shape {values.shape}, expected float32 of shape ({size},).",
            fix="Both sides must build the model from the same plan and version of fedward.",
        )
    if not np.isfinite(values).all():
        raise UpdateNonFinite(f"{what} holds NaN or infinite values.", fix="Lower the learning rate; the round goes on without this site.")

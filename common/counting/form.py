# SPDX-License-Identifier: Apache-2.0
"""The form that every unit fills in once, and the noise under which the sum of all forms is read.

A form is a vector with a name for each cell. What one unit writes has an L2 norm of at most `norm`, so one unit more or less moves a
site's sum by no more than that: its sensitivity. Units are added on a lattice of 2^-fineness of a unit, discrete Gaussian noise is drawn on
its integers (`common.privacy.discrete`), and these enter the ring of secure aggregation as they are:

    32 bits = log2(sites of a group) + sign + 17 for units + 1 for noise + fineness, of which 10 are enough

So a site may count 2^17 units in a cell; one with more is refused by name, not wrapped around. Every site sends every cell, whether it has
patients or not: that it has none is nobody's business either.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common import canonical
from common.plan import Plan
from common.privacy import Charge, charged_as
from common.secagg.quantise import Grid
from common.secagg.terms import Kind

MOST_UNITS: Final = 2**17
FINEST: Final = 10
_RING_BITS: Final = 32
_NOISE_BITS: Final = 1
_LOG_CHANCE: Final = 100 * math.log(2)

Steps = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What is counted, and in which rounds: cells, how long one unit's form can be (squared, in units), what a sum costs, where it lies."""

    kind: Kind
    rounds: Sequence[int]
    cells: tuple[str, ...]
    norm_squared: float
    charge: Charge
    grid: Grid

    @property
    def layout(self) -> bytes:
        """What a round that sums this is about: the cells, by name and in order."""
        return canonical.digest(b"fedward form 1", canonical.encode([self.kind.name, self.cells]))

    @property
    def steps(self) -> int:
        """Steps of the lattice that one unit is worth."""
        return round(1 / self.grid.step)

    @property
    def clip_steps(self) -> int:
        """The sensitivity, in steps, rounded up."""
        return math.ceil(math.sqrt(self.norm_squared) * self.steps)

    @property
    def variance(self) -> Fraction:
        """Of the noise that one site adds to each cell, in steps^2."""
        return charged_as(self.charge.own_share.noise_multiplier, self.clip_steps)

    @property
    def max_norm(self) -> float:
        """How long a site's noised sum can be, in units, but for a chance of 2^-99 (Laurent and Massart 2000, lemma 1)."""
        noise = math.sqrt(self.variance) * (math.sqrt(len(self.cells)) + math.sqrt(2 * _LOG_CHANCE)) / self.steps
        return MOST_UNITS * math.sqrt(self.norm_squared) + noise

    def noise_sd(self, num_sites: int) -> float:
        """Standard deviation of the noise in each cell of a sum over so many sites, in units."""
        return math.sqrt(num_sites * self.variance) / self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A noised sum of forms over sites: in each cell so many units, and noise of standard deviation `noise_sd`. Shapes: values (cells,)."""

    values: NDArray[np.float64]
    num_sites: int
    noise_sd: float


def read(form: Form, steps: Steps, *, num_sites: int) -> Counted:
    """From the integers that were summed to units. Shapes: steps (cells,)."""
    return Counted(values=steps / form.steps, num_sites=num_sites, noise_sd=form.noise_sd(num_sites))


def grid_of(plan: Plan) -> Grid:
    """The finest lattice on which the counts of a group cannot wrap; a step of it is a part of a unit."""
    bits = _RING_BITS - (plan.aggregation.max_group - 1).bit_length()
    fineness = min(FINEST, bits - 1 - (MOST_UNITS.bit_length() - 1) - _NOISE_BITS)
    largest = (1 << (bits - 1)) - 1
    return Grid(ring_bits=_RING_BITS, bits=bits, coordinate_range=largest / (1 << fineness))

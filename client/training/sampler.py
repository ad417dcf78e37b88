# SPDX-License-Identifier: Apache-2.0
"""Which units take part in a step, and with which of their images.

Each unit takes part independently, with the probability that the accountant was told: Poisson sampling is what the amplification theorem
is about; shuffled batches of a fixed size are not. Each unit gets 64 bits of the noise source and takes part if they are below
rate * 2^64, rounded down: the true probability is at most the rate, by less than 2^-64. A draw may be empty, and a step is taken all the
same: skipping it would say that it was empty.

A unit of more than K images takes part with K of them, drawn without replacement: each image gets 64 bits, and the K smallest win. (Any
rule that looks at one unit alone would keep the promise; this one shows training all images of a patient in the long run, evenly but for
ties, whose chance is m^2 * 2^-65.)

    U  units of the draw      I  their images
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.training.noise import Entropy
from client.training.units import Units

_WORD_BITS = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draw:
    """Who takes part in a step: `rows` (I,) of the data set, those of one unit side by side, and how many each unit has, `sizes` (U,).

    `secret`: under which images are altered in this step, where the plan has them altered.
    """

    rows: NDArray[np.int64]
    sizes: NDArray[np.int64]
    secret: bytes = b""

    def __len__(self) -> int:
        return len(self.sizes)

    def alike(self) -> Iterator["Draw"]:
        """Those that have equally many images each, size by size."""
        starts = np.cumsum(self.sizes) - self.sizes
        for size in np.unique(self.sizes):
            chosen = np.flatnonzero(self.sizes == size)
            rows = self.rows[starts[chosen][:, np.newaxis] + np.arange(size)]
            yield Draw(rows=rows.reshape(-1), sizes=self.sizes[chosen], secret=self.secret)

    def chunks(self, most: int) -> Iterator["Draw"]:
        """Parts of at most so many units, of a draw whose units are alike.

        No unit is ever in two parts: split, it would be clipped twice and count twice.
        """
        rows = self.rows.reshape(len(self), -1)
        for first in range(0, len(self), most):
            part = slice(first, first + most)
            yield Draw(rows=rows[part].reshape(-1), sizes=self.sizes[part], secret=self.secret)

    def filled(self, places: int) -> "Draw":
        """As many units as there are places, of a draw whose units are alike: the first one again and again behind those that are there."""
        rows, absent = self.rows.reshape(len(self), -1), places - len(self)
        again = np.concatenate([rows, np.repeat(rows[:1], absent, axis=0)])
        return Draw(rows=again.reshape(-1), sizes=np.repeat(self.sizes[:1], places), secret=self.secret)


def draw(units: int, rate: float, entropy: Entropy) -> NDArray[np.int64]:
    """The units that take part, in order. Shapes: (U,), U random between 0 and `units`."""
    if rate >= 1:
        return np.arange(units)
    return np.flatnonzero(_words(units, entropy) < np.uint64(int(rate * 2**_WORD_BITS)))


def pick(units: Units, chosen: NDArray[np.int64], most: int, entropy: Entropy) -> Draw:
    """At most `most` images of each chosen unit, uniformly without replacement."""
    sizes = units.sizes[chosen]
    owners = np.repeat(np.arange(len(chosen)), sizes)
    places = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    rows = units.rows[units.starts[chosen][owners] + places]
    if (sizes > most).any():
        # Sorted by owner, then by chance; `places` counts from 0 within each owner, before as after.
        rows = rows[np.lexsort((_words(len(rows), entropy), owners))][places < most]
    return Draw(rows=rows, sizes=np.minimum(sizes, most))


def _words(count: int, entropy: Entropy) -> NDArray[np.uint64]:
    return np.frombuffer(entropy(count * _WORD_BITS // 8), dtype="<u8")

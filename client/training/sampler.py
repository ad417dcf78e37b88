# SPDX-License-Identifier: Apache-2.0
"""Which units take part in a step: each one independently, with the probability that the accountant was told.

Poisson sampling is what the amplification theorem is about; shuffled batches of a fixed size are not. Each unit gets 64 bits of the noise
source and takes part if they are below rate * 2^64, rounded down: the true probability is at most the rate, by less than 2^-64. A draw may
be empty, and a step is taken all the same: skipping it would say that it was empty.
"""

import numpy as np
from numpy.typing import NDArray

from client.training.noise import Entropy

_WORD_BITS = 64


def draw(units: int, rate: float, entropy: Entropy) -> NDArray[np.int64]:
    """The units that take part, in order. Shapes: (B,), B random between 0 and `units`."""
    if rate >= 1:
        return np.arange(units)
    words = np.frombuffer(entropy(units * _WORD_BITS // 8), dtype="<u8")
    return np.flatnonzero(words < np.uint64(int(rate * 2**_WORD_BITS)))

# SPDX-License-Identifier: Apache-2.0
"""Where private training gets its randomness.

A `NoiseSource` is opened once per training run, inside the process that trains, so that two forked workers never share a stream. What it
opens is a function from a number of bytes to that many bytes. `SystemNoise` asks the operating system each time and is the default
everywhere. `UnsafeSeededNoise` repeats itself, for tests that compare two runs bit by bit: whoever knows its seed can subtract the noise.

What is drawn from it: which units take part (`sampler`), dropout's masks, the secret of `augmentation`, and discrete Gaussian noise
(`common/privacy/discrete.py`). The system's source gives 460 MB a second and a coordinate of noise takes six to ten bytes, so nothing is
stretched from a key of our own.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from common.privacy.discrete import Noise

_PIECE: Final = 2**18
Entropy = Callable[[int], bytes]


class NoiseSource(Protocol):
    """Something that can be opened for one training run. `has_no_order`: several threads may draw from it side by side."""

    @property
    def has_no_order(self) -> bool: ...

    def open(self) -> Entropy: ...


@dataclass(frozen=True, slots=True)
class SystemNoise:
    """The operating system's cryptographic source."""

    has_no_order = True

    def open(self) -> Entropy:
        return os.urandom


@dataclass(frozen=True, slots=True)
class UnsafeSeededNoise:
    """SHAKE-256 of (seed, counter). Each opening repeats the same bytes."""

    seed: bytes
    has_no_order: bool = field(default=False, init=False)

    def open(self) -> Entropy:
        calls = 0

        def entropy(size: int) -> bytes:
            nonlocal calls
            calls += 1
            return hashlib.shake_256(self.seed + calls.to_bytes(8)).digest(size)

        return entropy


class NoiseThreads:
    """Draws noise in so many threads while the model works: 35 ns a value are as long as a step of a large model on a GPU.

    One thread draws when it is asked for the result, so that a source with an order is read in it.
    """

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="noise") if threads > 1 else None

    def begin(self, noise: Noise, count: int, entropy: Entropy) -> Callable[[], NDArray[np.int64]]:
        """Begin to draw; what this gives waits for the draws, (count,)."""
        if self._pool is None or count <= _PIECE:
            return lambda: noise.draw(count, entropy)
        values = np.empty(count, dtype=np.int64)

        def fill(start: int) -> None:
            values[start : start + _PIECE] = noise.draw(min(_PIECE, count - start), entropy)

        pieces = [self._pool.submit(fill, start) for start in range(0, count, _PIECE)]

        def filled() -> NDArray[np.int64]:
            for piece in pieces:
                piece.result()
            return values

        return filled

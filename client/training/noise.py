# SPDX-License-Identifier: Apache-2.0
"""Where private training gets its randomness.

A `NoiseSource` is opened once per training run, inside the process that trains, so that two forked workers never share a stream. What it
opens is a function from a number of bytes to that many bytes. `SystemNoise` asks the operating system each time and is the default
everywhere. `UnsafeSeededNoise` repeats itself, for tests that compare two runs bit by bit: whoever knows its seed can subtract the noise.

What is drawn from it: which units take part (`sampler`), dropout's masks, the secret of `augmentation`, and discrete Gaussian noise
(`common/privacy/discrete.py`). A coordinate of noise takes four to ten bytes; the system's source gives 400 MB a second, AES 7 GB. So what
is asked for in one piece of more than 4 kB is AES-256 in counter mode (NIST SP 800-38A) under a key that the system gave for this piece
alone: nothing is kept that a fork, a thread or a later reader of memory could share. A piece of b blocks differs from random bits with
advantage b^2 / 2^129 (the switching lemma) and what AES-256 itself is worth: 2^-83 for 10^7 coordinates in 2,000 steps.
"""

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from common.privacy.discrete import Noise

_PIECE: Final = 2**18
_SHORT: Final = 2**12
_KEY_BYTES, _COUNTER_BYTES = 32, 16
Entropy = Callable[[int], bytes]


class NoiseSource(Protocol):
    """Something that can be opened for one training run. `has_no_order`: several threads may draw from it side by side."""

    @property
    def has_no_order(self) -> bool: ...

    def open(self) -> Entropy: ...


@dataclass(frozen=True, slots=True)
class SystemNoise:
    """The operating system's cryptographic source, stretched where much is asked for."""

    has_no_order = True

    def open(self) -> Entropy:
        return system_bytes


def system_bytes(size: int) -> bytes:
    """So many bytes that nobody can predict, and that no other call gives."""
    if size <= _SHORT:
        return os.urandom(size)
    return Cipher(AES256(os.urandom(_KEY_BYTES)), CTR(bytes(_COUNTER_BYTES))).encryptor().update(bytes(size))


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
    """Draws noise in so many threads while the model works: 15 ns a value are not little beside a step of a large model on a GPU.

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

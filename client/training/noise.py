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
from dataclasses import dataclass
from typing import Protocol

Entropy = Callable[[int], bytes]


class NoiseSource(Protocol):
    """Something that can be opened for one training run."""

    def open(self) -> Entropy: ...


@dataclass(frozen=True, slots=True)
class SystemNoise:
    """The operating system's cryptographic source."""

    def open(self) -> Entropy:
        return os.urandom


@dataclass(frozen=True, slots=True)
class UnsafeSeededNoise:
    """SHAKE-256 of (seed, counter). Each opening repeats the same bytes."""

    seed: bytes

    def open(self) -> Entropy:
        calls = 0

        def entropy(size: int) -> bytes:
            nonlocal calls
            calls += 1
            return hashlib.shake_256(self.seed + calls.to_bytes(8)).digest(size)

        return entropy

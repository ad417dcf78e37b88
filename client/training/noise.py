# SPDX-License-Identifier: Apache-2.0
"""Where private training gets its randomness.

A `NoiseSource` is opened once per training run, inside the process that trains, so that two forked workers never share a stream. What it
opens is a function from a number of bytes to that many bytes. `SystemNoise` asks the operating system each time and is the default
everywhere. `UnsafeSeededNoise` repeats itself, for tests that compare two runs bit by bit: whoever knows its seed can subtract the noise.

Gaussian noise is drawn by numpy in float64, from a generator keyed with 256 bits of the source. (torch's CPU generator keeps 32 bits of
its seed: 2^32 possible streams could be tried one by one.) What this does not protect against: the generator is not a cryptographic one,
and floating-point Gaussians have gaps that an attacker who sees single noisy values could use (Mironov 2012; Jin et al. 2021,
https://arxiv.org/abs/2112.05307).
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Entropy = Callable[[int], bytes]

_KEY_BYTES = 32


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


def keyed_generator(entropy: Entropy) -> np.random.Generator:
    """A numpy generator keyed with 256 fresh bits."""
    key = np.random.SeedSequence(int.from_bytes(entropy(_KEY_BYTES)), pool_size=_KEY_BYTES // 4)
    return np.random.Generator(np.random.SFC64(key))

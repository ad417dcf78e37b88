# SPDX-License-Identifier: Apache-2.0
"""Noise that several threads draw while the model works: every value once, from the system's source, and none before its time."""

import os
import threading
from fractions import Fraction

import numpy as np
import pytest

from client.training import SystemNoise, UnsafeSeededNoise
from client.training.noise import NoiseThreads
from common.privacy import noise_of

NOISE = noise_of(Fraction(900))
MANY = 2**20 + 12_345


def test_threads_draw_as_many_values_of_the_same_distribution_and_none_twice():
    seen, asked = set(), []

    def entropy(size):
        seen.add(threading.get_ident())
        asked.append(size)
        return os.urandom(size)

    values = NoiseThreads(4).begin(NOISE, MANY, entropy)()
    assert values.shape == (MANY,)
    assert values.std() == pytest.approx(30, rel=0.01)
    assert abs(values.mean()) < 0.2
    assert threading.get_ident() not in seen
    assert 2 * MANY <= sum(asked) < 3 * MANY, "two bytes for each value, and sixteen more for the few that they leave open"
    halves = values[: MANY // 2], values[MANY // 2 : 2 * (MANY // 2)]
    assert abs(np.corrcoef(*halves)[0, 1]) < 0.01


def test_a_source_with_an_order_is_read_in_it_and_only_when_asked():
    assert SystemNoise().has_no_order
    assert not UnsafeSeededNoise(b"seed").has_no_order
    entropy = UnsafeSeededNoise(b"seed").open()
    begun = NoiseThreads(1).begin(NOISE, MANY, entropy)
    first = entropy(8)
    again = UnsafeSeededNoise(b"seed").open()
    assert again(8) == first
    np.testing.assert_array_equal(begun(), NOISE.draw(MANY, again))


def test_a_source_that_fails_fails_the_step():
    def broken(size):
        raise OSError("no randomness")

    with pytest.raises(OSError, match="no randomness"):
        NoiseThreads(4).begin(NOISE, MANY, broken)()

# SPDX-License-Identifier: Apache-2.0
"""Where noise comes from; and noise that threads draw while the model works: each value once, from the system, none before its time."""

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

from client.training import SystemNoise, UnsafeSeededNoise
from client.training.noise import NoiseThreads, system_bytes
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


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 1_000_003])
def test_the_systems_source_gives_what_is_asked_for_and_never_the_same_twice(size):
    first, again = system_bytes(size), system_bytes(size)
    assert len(first) == len(again) == size
    assert size < 16 or first != again
    apart = np.frombuffer(first[: size // 16 * 16], dtype="V16")
    assert len(np.unique(apart)) == len(apart), "a block that comes twice: the counter stands still"


def test_long_pieces_of_the_systems_source_look_random():
    """Bits, bytes and neighbouring bytes are equally often what they can be: chi-squared, within six deviations."""
    drawn = np.frombuffer(system_bytes(2**23), dtype=np.uint8)
    pairs = drawn[::2].astype(np.int64) * 256 + drawn[1::2]
    for values, kinds in ((np.unpackbits(drawn), 2), (drawn, 256), (pairs, 65536)):
        counts = np.bincount(values, minlength=kinds)
        freedom, expected = kinds - 1, len(values) / kinds
        assert abs(((counts - expected) ** 2 / expected).sum() - freedom) < 6 * np.sqrt(2 * freedom)


def test_a_long_piece_has_a_key_of_its_own_from_the_system(monkeypatch):
    real, asked = os.urandom, []
    monkeypatch.setattr(os, "urandom", lambda size: asked.append(size) or real(size))
    system_bytes(100_000), system_bytes(100_000)
    assert asked == [32, 32]


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # forking is what is tested
def test_no_long_piece_is_shared_by_threads_or_after_a_fork():
    mine = system_bytes(2**16)
    with multiprocessing.get_context("fork").Pool(2) as pool, ThreadPoolExecutor(4) as threads:
        pieces = [mine, *pool.map(system_bytes, [2**16] * 4, chunksize=1), *threads.map(system_bytes, [2**16] * 8)]
    blocks = np.concatenate([np.frombuffer(piece, dtype="V16") for piece in pieces])
    assert len(np.unique(blocks)) == len(blocks)

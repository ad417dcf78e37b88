# SPDX-License-Identifier: Apache-2.0
"""Laws of the parts: field, shares, masks, codec, groups."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import CohortTooSmall, MessageFormat
from common.secagg import codec, field, groups, keys, shamir
from common.secagg.codec import Bytes16, Bytes32
from common.secagg.masks import Body, Mask, apply
from common.secagg.messages import Header, Keys, RoundTag
from tests.common.secagg.federation import seeded


def miller_rabin(n: int, base: int) -> bool:
    d, r = n - 1, 0
    while d % 2 == 0:
        d, r = d // 2, r + 1
    x = pow(base, d, n)
    return x in (1, n - 1) or any((x := x * x % n) == n - 1 for _ in range(r - 1))


def test_p_is_the_smallest_prime_above_two_to_the_256() -> None:
    bases = [b for b in range(2, 182) if all(b % d for d in range(2, b))][:42]
    assert len(bases) == 42
    assert all(miller_rabin(field.P, base) for base in bases)
    assert not any(miller_rabin(n, 3) for n in range(2**256 + 1, field.P, 2))  # base 2 is fooled by Fermat's 2^256 + 1


@settings(max_examples=3000, deadline=None)
@given(st.integers(0, 2**256 - 1), st.integers(1, 12), st.integers(0, 8), st.randoms())
def test_any_threshold_of_shares_gives_the_secret(secret: int, t: int, spare: int, rng: random.Random) -> None:
    raw = secret.to_bytes(32, "big")
    shares = shamir.share(raw, threshold=t, count=t + spare, entropy=seeded(secret))
    chosen = rng.sample(range(1, t + spare + 1), t)
    assert shamir.reconstruct({x: shares[x - 1] for x in chosen}) == raw


@given(st.integers(2, 10), st.integers(0, 2**32))
def test_one_wrong_share_is_found(t: int, seed: int) -> None:
    shares = dict(enumerate(shamir.share(bytes(32), threshold=t, count=t + 2, entropy=seeded(seed)), start=1))
    liar = seed % (t + 2) + 1
    shares[liar] = (shares[liar] + 1) % field.P
    honest = tuple(x for x in shares if x != liar)[:t]
    assert shamir.agree(shares, trusted=honest) == shares.keys() - {liar}


def test_subsets_are_different_and_bounded() -> None:
    found = list(shamir.subsets(tuple(range(1, 9)), 5, limit=100))
    assert len(found) == len(set(found)) == 56
    assert len(list(shamir.subsets(tuple(range(1, 40)), 20, limit=30))) == 30


@given(st.binary(max_size=40))
def test_a_field_element_has_one_spelling(data: bytes) -> None:
    element = field.from_bytes(data)
    assert element is None or field.to_bytes(element) == data
    assert field.from_bytes(field.to_bytes(field.P - 1)) == field.P - 1
    assert field.from_bytes(field.P.to_bytes(33, "big")) is None


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 200_000), st.sampled_from([np.uint16, np.uint32]), st.integers(2, 4), st.integers(0, 2**32))
def test_masks_cancel_whatever_the_threads(size: int, word: Any, workers: int, seed: int) -> None:
    entropy = seeded(seed)
    masks = [Mask(entropy(32), negative=bool(i % 2)) for i in range(3)]
    body: Body = np.random.default_rng(seed).integers(0, np.iinfo(word).max, size, dtype=word)
    tail = np.array([1, 2, 3], dtype=np.uint32)
    masked, masked_tail = body.copy(), tail.copy()
    apply(masks, body=masked, tail=masked_tail)
    threaded, threaded_tail = body.copy(), tail.copy()
    apply(masks, body=threaded, tail=threaded_tail, workers=workers)
    assert np.array_equal(masked, threaded)
    apply([Mask(mask.key, negative=not mask.negative) for mask in masks], body=masked, tail=masked_tail, workers=workers)
    assert np.array_equal(masked, body)
    assert np.array_equal(masked_tail, tail)


@pytest.mark.parametrize("word", [np.uint16, np.uint32])
def test_threads_change_nothing_in_a_large_vector(word: Any) -> None:
    masks = [Mask(bytes([i]) * 32) for i in range(3)]
    size = 5 * 2**20 // np.dtype(word).itemsize + 3
    results = []
    for workers in (1, 2, 3, 7):
        body: Body = np.zeros(size, dtype=word)
        apply(masks, body=body, tail=np.zeros(3, np.uint32), workers=workers)
        results.append(body)
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_an_identity_does_not_show_its_seed() -> None:
    key = keys.SigningKey(b"k" * 32)
    assert "kkkk" not in repr(key)
    assert not keys.signature_holds(key.public[:31], key.sign(b"m"), b"m")
    assert not keys.signature_holds(key.public, b"short", b"m")


# The codec.


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    number: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    tag: Bytes32
    short: Bytes16
    free: bytes
    inner: tuple[Inner, ...]
    names: tuple[str, ...]


INNER = st.builds(Inner, number=st.integers(0, 2**64 - 1), name=st.text(max_size=20))
OUTER = st.builds(
    Outer,
    tag=st.binary(min_size=32, max_size=32),
    short=st.binary(min_size=16, max_size=16),
    free=st.binary(max_size=50),
    inner=st.lists(INNER, max_size=4).map(tuple),
    names=st.lists(st.text(max_size=9), max_size=4).map(tuple),
)


@given(OUTER)
def test_what_is_written_reads_back(value: Outer) -> None:
    assert codec.read(Outer, codec.write(value)) == value


@given(OUTER, st.data())
def test_bytes_that_read_are_the_only_spelling(value: Outer, data: st.DataObject) -> None:
    raw = bytearray(codec.write(value))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = codec.read(Outer, bytes(raw))
    except MessageFormat:
        return
    assert codec.write(other) == bytes(raw)
    assert other != value


@given(st.binary(max_size=300))
def test_junk_is_a_format_error_and_nothing_else(junk: bytes) -> None:
    for kind in (Outer, Header, Keys, RoundTag):
        try:
            value = codec.read(kind, junk)
        except MessageFormat:
            continue
        assert codec.write(value) == junk


def test_a_list_cannot_announce_more_than_is_there() -> None:
    with pytest.raises(MessageFormat, match="announces 4294967295"):
        codec.read(tuple[int, ...], b"\xff\xff\xff\xff" + bytes(100))


# Groups.


@given(st.integers(1, 300), st.integers(1, 80), st.integers(0, 50))
def test_groups_cover_everybody_once(count: int, most: int, epoch: int) -> None:
    names = [f"s{i}" for i in range(count)]
    parts = groups.partition(names, epoch=epoch, max_group=most)
    assert sorted(name for part in parts for name in part) == sorted(names)
    sizes = [len(part) for part in parts]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert groups.partition(names[::-1], epoch=epoch, max_group=most) == parts
    assert names[0] in groups.group_of(names[0], names, epoch=epoch, max_group=most)


def test_a_new_epoch_mixes_the_groups() -> None:
    names = [f"s{i}" for i in range(60)]
    assert groups.partition(names, epoch=1, max_group=10) != groups.partition(names, epoch=2, max_group=10)


@given(st.integers(3, 9), st.integers(0, 2**32))
def test_fewer_than_half_bad_groups_cannot_drag_the_median_or_the_trimmed_mean_away(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    bad = (count - 1) // 2
    means = [rng.standard_normal(20).astype(np.float32) for _ in range(count - bad)]
    low, high = np.min(means, axis=0), np.max(means, axis=0)
    everybody = [*means, *(np.full(20, 1e6 * (-1) ** i, np.float32) for i in range(bad))]
    rng.shuffle(everybody)
    for robust in (groups.median(everybody), groups.trimmed_mean(everybody, trim=bad)):
        assert (robust >= low - 1e-5).all()
        assert (robust <= high + 1e-5).all()


def test_a_weighted_mean_over_groups_is_the_mean_over_sites() -> None:
    means = [np.array([1.0, 2.0], np.float32), np.array([4.0, 8.0], np.float32)]
    assert groups.weighted_mean(means, [2, 1]).tolist() == [2.0, 4.0]
    with pytest.raises(CohortTooSmall):
        groups.trimmed_mean(means, trim=1)

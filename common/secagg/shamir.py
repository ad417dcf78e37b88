# SPDX-License-Identifier: Apache-2.0
"""Shamir's secret sharing: n shares, any t give the secret, any t - 1 fit every secret equally well.

A. Shamir, "How to share a secret" (1979), https://doi.org/10.1145/359168.359176. The secret is the value at zero of a random polynomial
of degree t - 1 over GF(2^256 + 297); site number x, counted from 1 in the sorted cohort, gets the value at x.

Sharing is not verifiable: whoever deals may deal inconsistent shares, and a holder may return a wrong one. What is reconstructed must
therefore be checked against a commitment, and `agree` finds out afterwards whose share was off the polynomial.

    >>> shares = share(bytes(31) + b"\\x05", threshold=2, count=3, entropy=lambda size: bytes(size - 1) + b"\\x01")
    >>> shares[:2]  # 5 + 1x
    (6, 7)
    >>> reconstruct({1: 6, 3: 8}).hex()[-2:]
    '05'
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from common.secagg import field

Entropy = Callable[[int], bytes]
"""A source of secret random bytes: `os.urandom`, or in tests a seeded stream."""


def share(secret: bytes, *, threshold: int, count: int, entropy: Entropy) -> tuple[int, ...]:
    """Shares for x = 1..count of a 32-byte secret.

    The coefficients are 48 random bytes reduced modulo p: their distance from uniform is below 2^-127.
    """
    assert len(secret) == 32
    assert 1 <= threshold <= count
    random = entropy(48 * (threshold - 1))
    drawn = [int.from_bytes(random[48 * i : 48 * (i + 1)], "big") % field.P for i in range(threshold - 1)]
    coefficients = [int.from_bytes(secret, "big"), *drawn]
    return tuple(field.evaluate(coefficients, x) for x in range(1, count + 1))


def reconstruct(shares: Mapping[int, int]) -> bytes | None:
    """The secret from {x: share}, all of which are used; None where they meet at 2^256 or above, which no 32-byte secret does."""
    xs = tuple(sorted(shares))
    secret = sum(weight * shares[x] for weight, x in zip(_weights(xs), xs, strict=True)) % field.P
    return secret.to_bytes(32, "big") if secret < 2**256 else None


def agree(shares: Mapping[int, int], *, trusted: tuple[int, ...]) -> frozenset[int]:
    """Which xs lie on the polynomial through the trusted ones."""
    return frozenset(
        x
        for x in shares
        if x in trusted or sum(w * shares[y] for w, y in zip(field.interpolate(trusted, at=x), trusted, strict=True)) % field.P == shares[x]
    )


def subsets(xs: tuple[int, ...], threshold: int, *, limit: int) -> Iterator[tuple[int, ...]]:
    """Different t-subsets of xs: first the plain one, then those that leave one holder out, then two, ... at most `limit`."""
    seen: set[tuple[int, ...]] = set()
    for left_out in range(len(xs) - threshold + 1):
        for absent in itertools.islice(itertools.combinations(xs, left_out), limit):
            subset = tuple(x for x in xs if x not in absent)[:threshold]
            if subset not in seen:
                seen.add(subset)
                yield subset
            if len(seen) >= limit:
                return


@lru_cache(maxsize=512)
def _weights(xs: tuple[int, ...]) -> tuple[int, ...]:
    return field.interpolate_at_zero(xs)

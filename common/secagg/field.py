# SPDX-License-Identifier: Apache-2.0
"""Arithmetic modulo p = 2^256 + 297, the smallest prime above 2^256.

Every 32-byte secret is an element as it stands, with no reduction and no second spelling; elements take 33 bytes. Python's integers do
the work: a cohort shares two secrets of 32 bytes a round, which is milliseconds. They are not constant-time; what is multiplied here
are secrets of one round, on the machine that owns them or on the one that they were released to.

    >>> interpolate_at_zero((1, 2)) == (2, P - 1)  # the line through (1, y1) and (2, y2) meets zero at 2 y1 - y2
    True
"""

from collections.abc import Sequence
from typing import Final

P: Final = 2**256 + 297
ELEMENT_SIZE: Final = 33


def evaluate(coefficients: Sequence[int], x: int) -> int:
    """c0 + c1 x + c2 x^2 + ... modulo p, by Horner's rule."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % P
    return value


def interpolate_at_zero(xs: Sequence[int]) -> tuple[int, ...]:
    """Lagrange's coefficients l_i with f(0) = sum l_i f(x_i) for every f of degree below len(xs). The xs are distinct and not zero."""
    return interpolate(xs, at=0)


def interpolate(xs: Sequence[int], *, at: int) -> tuple[int, ...]:
    """Lagrange's coefficients for the value at any point: product over j != i of (at - x_j) / (x_i - x_j)."""
    coefficients = []
    for x in xs:
        above = below = 1
        for other in xs:
            if other != x:
                above = above * (at - other) % P
                below = below * (x - other) % P
        coefficients.append(above * pow(below, -1, P) % P)
    return tuple(coefficients)


def to_bytes(element: int) -> bytes:
    """33 bytes, big-endian."""
    return element.to_bytes(ELEMENT_SIZE, "big")


def from_bytes(data: bytes) -> int | None:
    """The element with this one spelling, or None where the bytes name none (wrong length, or p and above)."""
    element = int.from_bytes(data, "big")
    return element if len(data) == ELEMENT_SIZE and element < P else None

# SPDX-License-Identifier: Apache-2.0
"""Noise on the integers: discrete Gaussians drawn from random bits, and why a continuous Gaussian may be charged for them.

    D_v(z) = exp(-z^2 / 2v) / sum_j exp(-j^2 / 2v)        z an integer, v the variance

*One lemma carries it all.* For every centre c, by Poisson summation,

    sum_j exp(-(j - c)^2 / 2t) = sqrt(2 pi t) (1 + e),    |e| <= E(t) = 2 sum_{n >= 1} exp(-2 pi^2 t n^2)

(1) *Sums* (Micciancio and Walter 2017, https://eprint.iacr.org/2017/259; Kairouz et al. 2021, https://arxiv.org/abs/2102.06387). With x
from D_a, y from D_b and v = a + k^2 b, completing the square gives P[x + k y = z] = const * exp(-z^2 / 2v) (1 + e), |e| <= E(a b / v):
pointwise D_v but for a factor (1 + E) / (1 - E). So wide noise is made of narrow noise (here), and noise of shares of it (at m sites).

(2) *Charging.* Draw y from the continuous N(x, v - 3), then an integer from exp(-(z - y)^2 / 6) / sum_j exp(-(j - y)^2 / 6). The second
step never sees x, so the result is post-processing of a Gaussian mechanism of variance v - 3; and it is D_v around x but for a factor
(1 + E(3)) / (1 - E(3)), E(3) < 2^-84. So noise that is charged as s, in steps, is drawn with variance s^2 + 3 (`charged_as`), and what an
accountant says of the continuous Gaussian holds: at every order, sampled, composed, as RDP or as PLD; but for twice the factors'
logarithms (`log_ratio`), and for what the tables leave.

(3) *Tables.* Narrow noise is drawn by inverse distribution function with 144 random bits, cut off at 14 standard deviations and
normalised. P[|z| >= t] <= 2 exp(-t^2 / 2v) (Canonne, Kamath and Steinke 2020, https://arxiv.org/abs/2004.00010, proposition 25): the tail
costs 2 exp(-98) in total variation; n thresholds rounded to 2^-144 cost n * 2^-145. With (1) between them, a draw is within 2^-92 of D_v
(`Noise.total_variation`, up to a noise multiplier of 1000). Over d = 10^7 coordinates, 2,000 steps and at epsilon 8 that adds
d * steps * (1 + e^8) * 2^-92 < 2^-46 to delta.

*Speed.* The first 16 of the 144 bits name the value directly unless a threshold lies among them, which happens about once in a hundred
draws; only then the other 128 are drawn. A coordinate takes two to six look-ups, no floating point and no rejection.

What this does not protect against: a random source that is not one; and whoever can time a single draw learns how many words had to be
continued, which depends on the noise alone and never on what it is added to.

    >>> noise_of(Fraction(0)).draw(3, entropy=bytes).tolist()
    [0, 0, 0]
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Entropy = Callable[[int], bytes]

ROUNDING_VARIANCE: Final = 3
"""Steps^2 of noise that are drawn and not charged: the price of the lattice."""
_NARROW: Final = Fraction(128**2)
_FACTOR: Final = 60
_WIDEST_TABLE: Final = Fraction(256**2)
"""Above it, noise is split as x + 60 y with x from D_(128^2): then a b / v >= 3.4 and E < 2^-95."""
_TAIL: Final = 14
_GUIDE_BITS, _REST_BITS = 16, 128
_BITS: Final = _GUIDE_BITS + _REST_BITS
_DIGITS: Final = 70
_OPEN: Final = -(2**15)
_BLOCK: Final = 2**16


def charged_as(noise_multiplier: float, clip_steps: int) -> Fraction:
    """The variance to draw, in steps^2, where noise of `noise_multiplier` times the clip norm is charged; 0 if none is."""
    if noise_multiplier == 0:
        return Fraction(0)
    return (Fraction(noise_multiplier) * clip_steps) ** 2 + ROUNDING_VARIANCE


def smoothing_error(variance: float) -> float:
    """E(t): how far a lattice sum of Gaussians of this variance depends on its centre, relative.

    >>> smoothing_error(3) < 2**-84, smoothing_error(0.01) > 1
    (True, True)
    """
    terms = 1 + math.ceil(math.sqrt(40 / (2 * math.pi**2 * variance)))
    return 2 * math.fsum(math.exp(-2 * math.pi**2 * variance * n * n) for n in range(1, terms + 1))


def log_ratio(variance: float, shares: int) -> float:
    """How far (in logarithm, for one coordinate) `shares` draws of this variance may be from what is charged for their sum; else infinite.

    The sum of j + 1 shares is compared with one draw of its variance by lemma use (1), with t = v j / (j + 1); that draw with rounding of
    a continuous one by use (2).
    """
    errors = [smoothing_error(variance * j / (j + 1)) for j in range(1, shares)]
    errors.append(smoothing_error(min(ROUNDING_VARIANCE, variance)))
    return math.fsum(_log_factor(error) for error in errors)


def _log_factor(error: float) -> float:
    return math.log1p(error) - math.log1p(-error) if error < 1 else math.inf


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """Narrow noise. Value `lowest + i` where i thresholds are at most the 144-bit word; thresholds (n,) in ascending order.

    `guide` (2^16,) int16 gives the value for the word's first 16 bits, or says that it is open; there, thresholds `first` and later have
    these 16 bits too, up to `last`; `high` and `low` are their other 128 bits.
    """

    lowest: int
    guide: NDArray[np.int16]
    first: NDArray[np.int16]
    last: NDArray[np.int16]
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]

    def draw(self, count: int, entropy: Entropy) -> NDArray[np.int16]:
        """Shapes: (count,)."""
        words = np.frombuffer(entropy(count * _GUIDE_BITS // 8), dtype="<u2")
        values = self.guide.take(words, mode="wrap")
        open_ = np.flatnonzero(values == _OPEN)
        if open_.size:
            values[open_] = self._decide(words[open_], entropy)
        return values

    def _decide(self, words: NDArray[np.uint16], entropy: Entropy) -> NDArray[np.int16]:
        """Bisection among the thresholds that begin with the same bits, for all words at once."""
        high, low = np.frombuffer(entropy(words.size * _REST_BITS // 8), dtype="<u8").reshape(2, -1)
        left, right = self.first[words], self.last[words]
        apart = np.arange(words.size)
        while apart.size:
            at = (left[apart] + right[apart]) // 2
            reached = (high[apart] > self.high[at]) | ((high[apart] == self.high[at]) & (low[apart] >= self.low[at]))
            left[apart[reached]] = at[reached] + 1
            right[apart[~reached]] = at[~reached]
            apart = apart[left[apart] < right[apart]]
        return (left + self.lowest).astype(np.int16)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noise:
    """Discrete Gaussian noise as a sum of narrow parts, each times its factor. `total_variation` bounds its distance from D_v."""

    variance: Fraction
    parts: tuple[tuple[int, Table], ...]
    total_variation: float

    def draw(self, count: int, entropy: Entropy) -> NDArray[np.int64]:
        """Independent draws, (count,) int64, from the bits of `entropy`."""
        values = np.zeros(count, dtype=np.int64)
        for start in range(0, count, _BLOCK):
            block = values[start : start + _BLOCK]
            for factor, table in self.parts:
                block += np.multiply(table.draw(block.size, entropy), factor, dtype=np.int64)
        return values


@lru_cache(maxsize=8)
def noise_of(variance: Fraction) -> Noise:
    """The noise D_v of this variance, in steps^2."""
    parts, factor, rest, distance = [], 1, variance, 0.0
    while rest > _WIDEST_TABLE:
        parts.append((factor, _table(_NARROW)))
        narrower = (rest - _NARROW) / _FACTOR**2
        distance += math.expm1(_log_factor(smoothing_error(float(_NARROW * narrower / rest))))
        factor, rest = factor * _FACTOR, narrower
    if rest:
        parts.append((factor, _table(rest)))
    distance += sum(2 * math.exp(-(_TAIL**2) / 2) + table.high.size * 2.0 ** -(_BITS + 1) for _, table in parts)
    return Noise(variance=variance, parts=tuple(parts), total_variation=distance)


@lru_cache(maxsize=16)
def _table(variance: Fraction) -> Table:
    thresholds = thresholds_of(variance)
    firsts = np.array([threshold >> _REST_BITS for threshold in thresholds])
    buckets = np.arange(1 << _GUIDE_BITS)
    first, last = (np.searchsorted(firsts, buckets, side=side).astype(np.int16) for side in ("left", "right"))
    lowest = -(len(thresholds) // 2)
    return Table(
        lowest=lowest,
        guide=np.where(first == last, first + lowest, _OPEN).astype(np.int16),
        first=first,
        last=last,
        high=np.array([threshold >> 64 & 2**64 - 1 for threshold in thresholds], dtype=np.uint64),
        low=np.array([threshold & 2**64 - 1 for threshold in thresholds], dtype=np.uint64),
    )


def thresholds_of(variance: Fraction) -> list[int]:
    """The distribution function of D_v between its values, cut off at 14 standard deviations and normalised, in units of 2^-144.

    In seventy digits: exp(-(z+1)^2 / 2v) = exp(-z^2 / 2v) * exp(-(2z+1) / 2v) loses less than 10^-60 over a few thousand steps.
    """
    furthest = math.ceil(_TAIL * math.sqrt(variance))
    with localcontext() as context:
        context.prec = _DIGITS
        ratio = (-Decimal(variance.denominator) / (2 * Decimal(variance.numerator))).exp()
        square = ratio * ratio
        side = [Decimal(1)]
        for _ in range(furthest):
            side.append(side[-1] * ratio)
            ratio *= square
        weights = [*side[:0:-1], *side]
        scale, total, thresholds = Decimal(2) ** _BITS / sum(weights), Decimal(0), []
        for weight in weights[:-1]:
            total += weight
            thresholds.append(int((total * scale).to_integral_value()))
    return thresholds

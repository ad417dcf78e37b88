# SPDX-License-Identifier: Apache-2.0
"""How well any test can tell a member from a stranger, if the promise holds.

An observer who calls somebody a member is right with some probability (true positives) and calls a stranger one with another (false
positives). If training is (epsilon, delta)-DP, no test whatever has more true positives, at a given rate of false ones, than

    TPR <= min( e^epsilon FPR + delta,   1 - e^-epsilon (1 - delta - FPR) )

(Wasserman and Zhou 2010, theorem 2.4; Kairouz, Oh and Viswanath 2015, https://arxiv.org/abs/1311.0776). What was done to the data keeps
many such pairs at once, a delta for each epsilon, and the least of their bounds is much nearer to what a test can do than that of the
plan's pair alone.

    >>> [round(bound, 3) for bound in power([0.01, 0.5], [Promise(epsilon=1.0, delta=0.0)])]
    [0.027, 0.816]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from common.privacy import Event, deltas_pld

POINTS = 100
_STEP = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One pair that a mechanism keeps."""

    epsilon: float
    delta: float


def promises_of(events: Sequence[Event]) -> list[Promise]:
    """Pairs that these events keep together, by privacy loss distributions."""
    epsilons = [_STEP * step for step in range(round(20 / _STEP))]
    return [Promise(epsilon=e, delta=d) for e, d in zip(epsilons, deltas_pld(events, epsilons), strict=True)]


def power(false_positive: Sequence[float], promises: Sequence[Promise]) -> list[float]:
    """The most true positives at each rate of false ones, for any test at all; 1 where nothing is promised."""
    return [min((_most(rate, promise) for promise in promises), default=1.0) for rate in false_positive]


def rates(least: float) -> list[float]:
    """Rates of false positives from `least` to 1, evenly on logarithmic paper."""
    return [least ** (1 - point / POINTS) for point in range(POINTS + 1)]


def _most(rate: float, promise: Promise) -> float:
    likelier = math.exp(promise.epsilon)
    return min(1.0, likelier * rate + promise.delta, 1 - (1 - promise.delta - rate) / likelier)

# SPDX-License-Identifier: Apache-2.0
"""A lower bound on epsilon from a single training run (Steinke, Nasr and Jagielski 2023, https://arxiv.org/abs/2305.08846).

Each of m canaries is put among the patients, or not, by a fair coin. After training, an auditor who never saw the coins guesses r of them
and abstains from the others. Were training (epsilon, delta)-DP, for adding or removing one patient, then v or more right guesses would come
about with a probability of at most (theorem 5.2)

    p = P[W >= v] + 2 m delta * max_i P[v > W >= v - i] / i,      W ~ Bin(r, e^epsilon / (1 + e^epsilon)).

Every epsilon with p <= 0.05 is refuted; the largest refuted one is the bound: it is above the truth in at most 5 % of all audits. The
canaries need not be independent of each other, only the coins.

r has to be fixed before the scores are seen. A strong attack wants many guesses, a weak one few but sure ones; `lower_bound` tries a fixed
list of shares and pays for the choice by an equal part of the 5 % for each.

What this does not do: it never shows that a promise holds, and with m canaries it cannot refute more than `ceiling(m, delta)`, whatever it
sees. One run loses much against many: of a Gaussian mechanism it finds a quarter to a half of epsilon.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

ERROR = 0.05
"""How often the bound may be above the truth."""
SHARES = (1.0, 1 / 2, 1 / 4, 1 / 10)
"""Of all canaries, how many are guessed: the surest first."""
_MOST_EPSILON = 64.0
_PRECISION = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Of `canaries`, `guesses` were guessed, `correct` of them rightly."""

    canaries: int
    guesses: int
    correct: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """With 95 % confidence epsilon is at least `epsilon`; `tally` is the one that shows it."""

    epsilon: float
    tally: Tally


def p_value(tally: Tally, *, epsilon: float, delta: float) -> float:
    """How likely so many right guesses are at most, if training is (epsilon, delta)-DP.

    >>> round(p_value(Tally(canaries=10, guesses=10, correct=9), epsilon=0.0, delta=0.0), 4)  # 11 / 1024
    0.0107
    """
    chances = _binomial(tally.guesses, epsilon)
    below = chances[: tally.correct][::-1]
    slope = float((np.cumsum(below) / np.arange(1, len(below) + 1)).max(initial=0.0))
    return min(1.0, float(chances[tally.correct :].sum()) + 2 * tally.canaries * delta * slope)


def refuted(tally: Tally, *, delta: float, error: float = ERROR) -> float:
    """The largest epsilon up to which every one is refuted at this error; 0 if none is.

    >>> [round(refuted(Tally(canaries=r, guesses=r, correct=r), delta=0.0), 1) for r in (100, 500, 1000)]
    [3.5, 5.1, 5.8]
    """
    low, high = 0.0, _MOST_EPSILON
    if p_value(tally, epsilon=low, delta=delta) > error:
        return 0.0
    while high - low > _PRECISION:
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(tally, epsilon=middle, delta=delta) <= error else (low, middle)
    return low


def lower_bound(scores: NDArray[np.floating], included: NDArray[np.bool_], *, delta: float) -> Bound:
    """The bound that these scores show. A score above 0 says that a canary was in, below that it was out, and its size how surely.

    Shapes: scores (m,), included (m,). Ties are broken by the order of the canaries, which says nothing of the coins.
    """
    right = (scores > 0) == included
    surest = np.argsort(-np.abs(scores), kind="stable")
    found = []
    for share in SHARES:
        guessed = surest[: max(1, round(share * len(scores)))]
        tally = Tally(canaries=len(scores), guesses=len(guessed), correct=int(right[guessed].sum()))
        found.append(Bound(epsilon=refuted(tally, delta=delta, error=ERROR / len(SHARES)), tally=tally))
    return max(found, key=lambda bound: bound.epsilon)


def ceiling(canaries: int, *, delta: float) -> float:
    """The most that an audit with so many canaries can ever show: all guessed, all rightly.

    >>> round(ceiling(1000, delta=1e-6), 1)
    5.4
    """
    return refuted(Tally(canaries=canaries, guesses=canaries, correct=canaries), delta=delta, error=ERROR / len(SHARES))


def canaries_to_refute(epsilon: float, *, delta: float) -> int | None:
    """How many canaries, as a power of two, could refute a claim if all went well; None if no number up to a million could."""
    return next((m for m in (2**power for power in range(4, 21)) if ceiling(m, delta=delta) > epsilon), None)


def _binomial(trials: int, epsilon: float) -> NDArray[np.float64]:
    """P[W = 0], ..., P[W = trials], each to about 12 digits, for a chance of success of e^epsilon / (1 + e^epsilon)."""
    successes = np.arange(trials + 1)
    miss = -epsilon - math.log1p(math.exp(-epsilon))
    hit = -math.log1p(math.exp(-epsilon))
    chances: NDArray[np.float64] = np.exp(log_choose(trials) + successes * hit + (trials - successes) * miss)
    return chances


@lru_cache(maxsize=64)
def log_choose(trials: int) -> NDArray[np.float64]:
    """The logarithms of the binomial coefficients, (trials + 1,)."""
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    chosen: NDArray[np.float64] = factorials[-1] - factorials - factorials[::-1]
    return chosen

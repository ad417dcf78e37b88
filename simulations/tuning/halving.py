# SPDX-License-Identifier: Apache-2.0
"""Successive halving: many trials for a few rounds, few trials for many (Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943).

With n trials, rate eta and R rounds there are J + 1 rungs, J as large as n and R allow. Rung j takes the best n / eta^j trials on to round
R * eta^(j - J): each rung trains about as much as the one before. Nobody starts again: a trial goes on where it stood.

    >>> [(rung.trials, rung.rounds_of(27)) for rung in ladder(trials=9, eta=3, rounds=27)]
    [(9, 3), (3, 9), (1, 27)]
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """`trials` trials are taken on to `1 / divisor` of their rounds."""

    number: int
    trials: int
    divisor: int

    def rounds_of(self, rounds: int) -> int:
        """How far a trial of so many rounds has come at the end of this rung."""
        return math.ceil(rounds / self.divisor)


def ladder(*, trials: int, eta: int, rounds: int, smallest: int = 1) -> tuple[Rung, ...]:
    """All rungs. `rounds` are those of the shortest trial, of which the first rung gives it at least `smallest`.

    Guarantees: the last rung trains to the end; every rung trains every trial of it by at least one round; fewer trials in every next one.
    """
    last = min(_whole_log(trials, eta), _whole_log(max(1, rounds // smallest), eta))
    return tuple(Rung(number=number, trials=trials // eta**number, divisor=eta ** (last - number)) for number in range(last + 1))


def stops(rungs: Sequence[Rung], rounds: int) -> tuple[int, ...]:
    """The rounds at which a trial of so many rounds is judged."""
    return tuple(rung.rounds_of(rounds) for rung in rungs)


def steps(rungs: Sequence[Rung], rounds: int) -> tuple[int, ...]:
    """The rounds that each rung adds."""
    ends = stops(rungs, rounds)
    return tuple(end - begin for begin, end in zip((0, *ends), ends, strict=False))


def best(scores: Mapping[int, float | None], keep: int) -> tuple[int, ...]:
    """The trials with the highest scores, in the order of their numbers; what has no score comes last, among equals the lower number first.

    >>> best({0: 0.7, 1: None, 2: 0.9, 3: 0.7}, 2)
    (0, 2)
    """
    ranked = sorted(scores, key=lambda number: (-_value(scores[number]), number))
    return tuple(sorted(ranked[:keep]))


def _value(score: float | None) -> float:
    return -math.inf if score is None else score


def _whole_log(value: int, base: int) -> int:
    """The largest k with base^k <= value.

    >>> [_whole_log(value, 3) for value in (1, 2, 3, 8, 9, 243)]
    [0, 0, 1, 1, 2, 5]
    """
    exponent = 0
    while base ** (exponent + 1) <= value:
        exponent += 1
    return exponent

# SPDX-License-Identifier: Apache-2.0
"""Successive halving is arithmetic: what a rung trains, who goes on, and what all of it adds up to."""

import math
from fractions import Fraction
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from simulations.tuning.halving import best, ladder, steps, stops

TRIALS, ETA, ROUNDS = st.integers(1, 300), st.integers(2, 6), st.integers(1, 2000)


@given(TRIALS, ETA, ROUNDS, st.integers(1, 50))
def test_fewer_trials_go_further_and_the_last_rung_trains_to_the_end(trials: int, eta: int, rounds: int, smallest: int) -> None:
    rungs = ladder(trials=trials, eta=eta, rounds=rounds, smallest=smallest)
    ends = stops(rungs, rounds)
    assert rungs[0].trials == trials
    assert ends[-1] == rounds
    assert ends[0] >= min(smallest, rounds)
    assert all(step >= 1 for step in steps(rungs, rounds))
    assert sum(steps(rungs, rounds)) == rounds
    assert all(after.trials <= before.trials / eta for before, after in pairwise(rungs))
    assert all(rung.trials >= 1 for rung in rungs)


@given(TRIALS, ETA, ROUNDS)
def test_every_rung_trains_about_as_much_as_the_first(trials: int, eta: int, rounds: int) -> None:
    """Jamieson and Talwalkar's budget: n_j r_j is the same for all rungs but for what rounding adds, at most one round a trial."""
    rungs = ladder(trials=trials, eta=eta, rounds=rounds)
    equal = Fraction(trials * rounds, rungs[0].divisor)
    for rung in rungs:
        assert rung.trials * rung.rounds_of(rounds) <= equal + rung.trials


@given(TRIALS, ETA, ROUNDS)
def test_there_are_as_many_rungs_as_trials_and_rounds_allow(trials: int, eta: int, rounds: int) -> None:
    rungs = ladder(trials=trials, eta=eta, rounds=rounds)
    assert eta ** (len(rungs) - 1) <= min(trials, rounds)
    assert eta ** len(rungs) > min(trials, rounds)


@given(TRIALS, ETA, ROUNDS, st.integers(0, 3000))
def test_a_longer_trial_climbs_the_same_rungs(trials: int, eta: int, rounds: int, more: int) -> None:
    rungs = ladder(trials=trials, eta=eta, rounds=rounds)
    ends = stops(rungs, rounds + more)
    assert all(step >= 1 for step in steps(rungs, rounds + more))
    assert ends[-1] == rounds + more


SCORES = st.dictionaries(st.integers(0, 50), st.none() | st.floats(0, 1), min_size=1)


@given(SCORES, st.integers(1, 60))
def test_nobody_who_is_dropped_did_better_than_anybody_who_goes_on(scores: dict[int, float | None], keep: int) -> None:
    kept = best(scores, keep)
    assert len(kept) == min(keep, len(scores))
    assert list(kept) == sorted(kept)
    dropped = [scores[number] for number in scores if number not in kept]
    worst = min((-math.inf if scores[number] is None else scores[number] for number in kept), key=lambda value: value or 0.0)
    assert all(value is None or worst is None or value <= worst for value in dropped)

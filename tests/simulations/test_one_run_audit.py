# SPDX-License-Identifier: Apache-2.0
"""The auditor's arithmetic: against the paper's own formula written out, and against mechanisms whose epsilon is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from simulations.audits.one_run import ERROR, SHARES, Tally, ceiling, lower_bound, p_value, refuted


def slow_p_value(tally: Tally, epsilon: float, delta: float) -> float:
    """Theorem 5.2 of Steinke et al. term by term, with scipy's binomial distribution."""
    chance = 1 / (1 + math.exp(-epsilon))
    at_least = binom.sf(tally.correct - 1, tally.guesses, chance)
    between = [
        (binom.cdf(tally.correct - 1, tally.guesses, chance) - binom.cdf(tally.correct - i - 1, tally.guesses, chance)) / i
        for i in range(1, tally.correct + 1)
    ]
    return float(min(1.0, at_least + 2 * tally.canaries * delta * max(between, default=0.0)))


@st.composite
def tallies(draw: st.DrawFn) -> Tally:
    canaries = draw(st.integers(1, 300))
    guesses = draw(st.integers(1, canaries))
    return Tally(canaries=canaries, guesses=guesses, correct=draw(st.integers(0, guesses)))


@settings(deadline=None)
@given(tallies(), st.floats(0, 6), st.sampled_from([0.0, 1e-6, 1e-3]))
def test_the_p_value_is_the_papers(tally: Tally, epsilon: float, delta: float) -> None:
    assert p_value(tally, epsilon=epsilon, delta=delta) == pytest.approx(slow_p_value(tally, epsilon, delta), rel=1e-6, abs=1e-12)


@settings(deadline=None)
@given(tallies(), st.sampled_from([0.0, 1e-5]))
def test_one_more_right_guess_never_lowers_the_bound(tally: Tally, delta: float) -> None:
    if tally.correct < tally.guesses:
        better = replace(tally, correct=tally.correct + 1)
        assert refuted(better, delta=delta) >= refuted(tally, delta=delta)


@settings(deadline=None)
@given(tallies(), st.sampled_from([1e-6, 1e-4]))
def test_every_epsilon_up_to_the_bound_is_refuted_and_delta_only_weakens_it(tally: Tally, delta: float) -> None:
    bound = refuted(tally, delta=delta)
    assert bound <= refuted(tally, delta=0.0) + 1e-6
    if bound:
        assert max(p_value(tally, epsilon=epsilon, delta=delta) for epsilon in np.linspace(0, bound, 50)) <= ERROR


@pytest.mark.parametrize(("guesses", "epsilon"), [(100, 3.5), (500, 5.1), (1000, 5.8)])
def test_with_all_guesses_right_the_power_is_the_known_one(guesses: int, epsilon: float) -> None:
    tally = Tally(canaries=guesses, guesses=guesses, correct=guesses)
    assert refuted(tally, delta=0.0) == pytest.approx(epsilon, abs=0.05)
    assert refuted(tally, delta=0.0) == pytest.approx(-math.log(ERROR ** (-1 / guesses) - 1), abs=1e-4)


def test_guessing_by_chance_shows_nothing() -> None:
    assert refuted(Tally(canaries=1000, guesses=1000, correct=510), delta=0.0) == 0


@pytest.mark.parametrize(("truth", "canaries"), [(0.5, 2000), (1.0, 400), (2.0, 400), (4.0, 800)])
def test_the_bound_is_above_the_truth_of_randomised_response_as_rarely_as_it_says(truth: float, canaries: int) -> None:
    """Randomised response is the mechanism for which the theorem is tight: nothing hides a bound that is too bold."""
    rng, audits = np.random.default_rng(round(10 * truth)), 500
    bounds = np.empty(audits)
    for audit in range(audits):
        included = rng.random(canaries) < 0.5
        told = included ^ (rng.random(canaries) > 1 / (1 + math.exp(-truth)))
        bounds[audit] = lower_bound(np.where(told, 1.0, -1.0), included, delta=0.0).epsilon
    assert (bounds > truth).sum() <= binom.ppf(0.999, audits, ERROR)
    assert np.median(bounds) > 0.55 * truth  # and it is no bound of nothing


def test_a_delta_that_gives_everything_away_is_allowed_for() -> None:
    """With probability delta a canary's coin is published. At delta = 1/20 that is a third of them right beyond chance, and no epsilon."""
    rng, audits, canaries, delta = np.random.default_rng(3), 200, 500, 1 / 20
    bounds, blind = np.empty(audits), np.empty(audits)
    for audit in range(audits):
        included = rng.random(canaries) < 0.5
        published = rng.random(canaries) < delta
        scores = np.where(published, np.where(included, 2.0, -2.0), rng.normal(size=canaries) / 4)
        bounds[audit] = lower_bound(scores, included, delta=delta).epsilon
        blind[audit] = lower_bound(scores, included, delta=0.0).epsilon
    assert (bounds > 0).sum() <= binom.ppf(0.999, audits, ERROR)
    assert (blind > 0).mean() > 0.3  # the control: the term of delta is what holds the bound down


def test_choosing_the_best_of_several_shares_is_paid_for() -> None:
    """Scores of pure noise, on which an audit may pick any of its shares: still wrong in at most 5 % of cases."""
    rng, audits = np.random.default_rng(4), 1000
    wrong = sum(lower_bound(rng.normal(size=300), rng.random(300) < 0.5, delta=0.0).epsilon > 0 for _ in range(audits))
    assert wrong <= binom.ppf(0.999, audits, ERROR)
    assert len(SHARES) > 1


def test_sure_guesses_are_used_where_most_are_chance() -> None:
    rng = np.random.default_rng(5)
    included = rng.random(1000) < 0.5
    scores = rng.normal(size=1000) / 100
    scores[:100] = np.where(included[:100], 1.0, -1.0)
    bound = lower_bound(scores, included, delta=0.0)
    assert bound.tally == Tally(canaries=1000, guesses=100, correct=100)
    assert bound.epsilon == pytest.approx(3.1, abs=0.1)


def test_no_audit_shows_more_than_its_canaries_allow() -> None:
    included = np.random.default_rng(6).random(1000) < 0.5
    perfect = lower_bound(np.where(included, 1.0, -1.0), included, delta=1e-5)
    assert perfect.epsilon == ceiling(1000, delta=1e-5)
    assert ceiling(100, delta=1e-5) < ceiling(1000, delta=1e-5) < ceiling(1000, delta=0.0)

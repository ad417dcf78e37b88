# SPDX-License-Identifier: Apache-2.0
"""A search never costs more than was set apart, whoever goes on; checked by adding up, choice by choice, what would be charged."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import TuningBeyondBudget
from common.privacy import Event, charges_beside_training, epsilon, epsilon_at_most, evaluation_charge, plan_charge, round_charge
from simulations import scenario
from simulations.scenario import Scenario
from simulations.tuning import price, space
from simulations.tuning.folds import Fold
from simulations.tuning.halving import steps
from simulations.tuning.plans import Design, Promise, of_fold
from simulations.tuning.search import design_of
from simulations.tuning.winner import left_for, with_epsilon
from tests.journeys.made import PLAN

DELTA = 1e-5
SPACE = "[tuning]\ntrials = {trials}\nfolds = {folds}\neta = 2\n[space.training]\nbatch = [4, 8, 16, 20]\nlearning_rate = [0.1, 0.3]\n"


def base(rounds: int = 4) -> Scenario:
    text = PLAN.format(privacy=f'unit = "patient"\nepsilon = 8\ndelta = {DELTA}\nclip_norm = 1')
    return scenario.parse(text.replace("rounds = 4", f"rounds = {rounds}"))


def design(trials: int, folds: int, rounds: int) -> Design:
    asked = space.parse(SPACE.format(trials=trials, folds=folds))
    return design_of(space.draw(asked, base(rounds).plan), asked.tuning, base(rounds))


def made_folds(number: int, *sizes: int) -> list[Fold]:
    units = {f"site_{place}": size for place, size in enumerate(sizes)}
    return [Fold(number=fold, folder=Path(), units=units, judged=(40, 40)) for fold in range(number)]


def charged(found: Design, chosen: Sequence[Sequence[int]], promise: Promise, units: int) -> list[Event]:
    """What the ledger of a site of so many units would hold, had these trials gone on to these rungs."""
    events = []
    for rung, going in zip(found.rungs, chosen, strict=True):
        for number, fold in itertools.product(going, range(found.num_folds)):
            plan = of_fold(found, found.trials[number], fold, promise)
            events += [round_charge(plan, units).outside] * steps(found.rungs, plan.training.rounds)[rung.number]
            events.append(evaluation_charge(plan).outside)
    return events


EVENTS = st.builds(
    Event,
    sampling_rate=st.sampled_from([0.01, 0.2, 1.0]),
    noise_multiplier=st.sampled_from([0.7, 1.0, 3.0, 20.0]),
    steps=st.integers(1, 50),
)


@given(st.lists(st.lists(EVENTS, max_size=3), min_size=1, max_size=5), st.integers(0, 6), st.data())
@settings(max_examples=25, deadline=None)
def test_no_way_of_choosing_costs_more_than_the_costliest(alternatives: list[list[Event]], number: int, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(range(len(alternatives))), unique=True, max_size=number))
    bound = epsilon_at_most([(number, alternatives)], DELTA)
    assert epsilon([event for place in chosen for event in alternatives[place]], DELTA) <= bound * (1 + 1e-12)


def test_choosing_everything_costs_the_sum_and_nothing_costs_nothing() -> None:
    one, two = (Event(sampling_rate=0.1, noise_multiplier=noise, steps=10) for noise in (1.0, 2.0))
    assert epsilon_at_most([(1, [[one]]), (1, [[two, one]])], DELTA) == pytest.approx(epsilon([one, one, two], DELTA))
    assert epsilon_at_most([(0, [[one]]), (3, [])], DELTA) == 0.0


@given(st.integers(2, 7), st.integers(1, 2), st.integers(2, 12), st.floats(0.5, 7.9), st.floats(0.1, 0.9), st.integers(24, 400), st.data())
@settings(max_examples=5, deadline=None)
def test_whoever_goes_on_every_site_stays_within_what_tuning_may_spend(
    trials: int, folds: int, rounds: int, budget: float, evaluation: float, size: int, data: st.DataObject
) -> None:
    found = design(trials, folds, rounds)
    dealt = made_folds(folds, size, 2 * size)
    promise = price.fit(found, dealt, budget=budget, evaluation=evaluation)
    going = list(range(len(found.trials)))
    chosen = []
    for rung in found.rungs:
        going = sorted(data.draw(st.permutations(going))[: rung.trials])
        chosen.append(going)
    at_worst = price.at_worst(found, dealt, promise)
    assert at_worst <= budget
    for units in (size, 2 * size):
        assert epsilon(charged(found, chosen, promise, units), DELTA) <= at_worst * (1 + 1e-9)


def test_what_tuning_may_spend_is_used() -> None:
    found, dealt = design(6, 2, 8), made_folds(2, 100)
    promise = price.fit(found, dealt, budget=3.0, evaluation=0.5)
    assert 0.95 * 3.0 <= price.at_worst(found, dealt, promise) <= 3.0
    dearer = Promise(epsilon=1.1 * promise.epsilon, evaluation=0.5)
    assert price.at_worst(found, dealt, dearer) > 3.0


def test_more_trials_leave_less_for_each() -> None:
    promises = [price.fit(design(trials, 1, 8), made_folds(1, 100), budget=3.0, evaluation=0.5).epsilon for trials in (2, 4, 8)]
    assert promises == sorted(promises, reverse=True)
    assert promises[0] > promises[-1]


def test_a_budget_that_no_noise_keeps_is_refused_with_its_numbers() -> None:
    with pytest.raises(TuningBeyondBudget, match=r"8 trials in 3 fold\(s\) cannot be tried for epsilon 0\.0001") as refused:
        price.fit(design(8, 3, 8), made_folds(3, 40), budget=1e-4, evaluation=0.5)
    assert refused.value.code == "E_TUNING_BUDGET"
    assert "Lower [tuning] trials or folds" in refused.value.fix


@given(st.lists(EVENTS, max_size=4), st.sampled_from([40, 200]))
@settings(max_examples=4, deadline=None)
def test_what_is_left_and_what_was_spent_are_together_what_was_promised(events: list[Event], units: int) -> None:
    plan = base().plan
    left = left_for(plan, {"north": units}, {"north": [(1, [events])]})
    spent = epsilon(events, DELTA)
    if left is None:
        assert spent > 7, "of a promise of 8"
        return
    final = with_epsilon(plan, left)
    own = [charge.outside for charge in (plan_charge(final, units), *charges_beside_training(final))]
    assert epsilon([*events, *own], DELTA) <= 8
    more = with_epsilon(plan, min(8.0, 1.03 * left))
    own = [charge.outside for charge in (plan_charge(more, units), *charges_beside_training(more))]
    assert left > 7.7 or epsilon([*events, *own], DELTA) > 8 * 0.97

# SPDX-License-Identifier: Apache-2.0
"""Evaluations and the statistic cost what their sections say, and the plan as a whole what it promises, no more."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import EpsilonImpossible
from common.privacy import (
    Event,
    calibrate,
    charges_beside_training,
    epsilon,
    evaluation_charge,
    own_share_epsilon,
    plan_charge,
    statistic_charge,
)
from tests.common.counting.plans import counting_plan

DELTA = 1e-5


@pytest.mark.parametrize("shared", [False, True], ids=["local", "shared"])
def test_all_evaluations_with_the_spare_ones_cost_their_epsilon(shared: bool) -> None:
    plan = counting_plan(("every = 1", "every = 1\nspare = 2"), shared=shared)
    assert [*plan.evaluation_rounds] == [2, 3, 4]
    assert 0.99 <= epsilon([evaluation_charge(plan).outside] * 5, DELTA) <= 1.0
    assert 0.495 <= epsilon([statistic_charge(plan).outside] * 2, DELTA) <= 0.5
    assert {charge.outside.sampling_rate for charge in charges_beside_training(plan)} == {1.0}


@pytest.mark.parametrize("shared", [False, True], ids=["local", "shared"])
@pytest.mark.parametrize("share", [0.1, 1.0, 7.0])
def test_everything_that_a_plan_releases_costs_its_epsilon(share: float, shared: bool) -> None:
    plan = counting_plan(("[evaluation]\nevery = 1\nepsilon = 1.0", f"[evaluation]\nevery = 1\nepsilon = {share}"), shared=shared)
    charges = (plan_charge(plan, 9), *charges_beside_training(plan))
    assert 0.99 * 8 <= epsilon([charge.outside for charge in charges], DELTA) <= 8
    alone = plan_charge(replace(plan, evaluation=None, statistics=None), 9)
    assert plan_charge(plan, 9).outside.noise_multiplier >= alone.outside.noise_multiplier


def test_a_share_is_as_much_smaller_as_there_are_honest_sites_to_add_theirs() -> None:
    plan = counting_plan(("minimum_patients = 9", "minimum_patients = 9\nnoise_quorum = 7\ncolluders = 3"), shared=True)
    charge = evaluation_charge(plan)
    assert charge.own_share.noise_multiplier == pytest.approx(charge.outside.noise_multiplier / 2)
    beyond, training = own_share_epsilon(plan), epsilon([plan_charge(plan, 9).own_share], DELTA)
    assert beyond is not None
    assert beyond > training, "what is counted is part of what colluders could learn"


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 4), st.floats(0.05, 3.9), st.integers(1, 60), st.integers(1, 20))
def test_the_whole_never_costs_more_than_its_parts_together(first: float, second: float, times: int, others: int) -> None:
    """Why a plan whose sections add up to less than its epsilon always leaves something to train by."""
    events = [
        Event(sampling_rate=1.0, noise_multiplier=calibrate(first, DELTA, 1.0, times), steps=times),
        Event(sampling_rate=1.0, noise_multiplier=calibrate(second, DELTA, 1.0, others), steps=others),
    ]
    assert epsilon(events, DELTA) <= first + second


@settings(max_examples=25, deadline=None)
@given(st.floats(0.2, 20), st.floats(0.05, 0.9), st.floats(0.01, 1), st.integers(1, 500))
def test_noise_found_beside_other_events_costs_the_target_with_them(target: float, part: float, rate: float, steps: int) -> None:
    beside = (Event(sampling_rate=1.0, noise_multiplier=calibrate(part * target, DELTA, 1.0, 3), steps=3),)
    try:
        noise = calibrate(target, DELTA, rate, steps, beside=beside)
    except EpsilonImpossible:
        return
    spent = epsilon([*beside, Event(sampling_rate=rate, noise_multiplier=noise, steps=steps)], DELTA)
    assert spent <= target
    assert spent >= 0.99 * target or math.isclose(noise, 0.2)

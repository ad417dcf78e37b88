# SPDX-License-Identifier: Apache-2.0
"""A learning rate that changes over the rounds follows from plan and round alone, and is never more than what the plan says."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PlanConflict
from common.plan import TrainingSpec, at_round
from common.plan.schedule import factor
from simulations import scenario
from tests.journeys.made import OPEN, PLAN


@st.composite
def specs(draw: st.DrawFn) -> TrainingSpec:
    rounds = draw(st.integers(1, 400))
    return TrainingSpec(
        rounds=rounds,
        batch=1,
        learning_rate=0.3,
        schedule=draw(st.sampled_from(["constant", "cosine"])),
        warmup_rounds=draw(st.integers(0, rounds - 1)),
    )


@given(specs())
def test_a_step_is_never_longer_than_the_plan_says_and_never_nothing(spec: TrainingSpec) -> None:
    rates = [at_round(spec, number).learning_rate for number in range(1, spec.rounds + 1)]
    assert all(0 < rate <= spec.learning_rate for rate in rates)
    assert max(rates) == spec.learning_rate, "the round after the warm-up has all of it"


@given(specs())
def test_it_grows_in_the_warm_up_and_never_afterwards(spec: TrainingSpec) -> None:
    factors = [factor(spec, number) for number in range(1, spec.rounds + 1)]
    warm, then = factors[: spec.warmup_rounds + 1], factors[spec.warmup_rounds :]
    assert all(before < after for before, after in pairwise(warm))
    assert all(before >= after for before, after in pairwise(then))
    assert spec.schedule == "cosine" or set(then) == {1.0}


def test_nothing_else_of_the_training_changes() -> None:
    spec = TrainingSpec(rounds=9, batch=4, learning_rate=0.2, momentum=0.5, weight_decay=0.1, schedule="cosine", warmup_rounds=2)
    assert at_round(spec, 3) == spec
    assert replace(at_round(spec, 8), learning_rate=0.2) == spec


def test_a_warm_up_longer_than_the_training_is_refused() -> None:
    text = PLAN.format(privacy=OPEN).replace("learning_rate = 0.2", "learning_rate = 0.2\nwarmup_rounds = 4")
    with pytest.raises(PlanConflict, match="before the learning rate is what it says"):
        scenario.parse(text)

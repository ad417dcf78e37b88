# SPDX-License-Identifier: Apache-2.0
"""The sweep: small made federations under the plan's own relative noise, trained by the real engine."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import PlanError
from common.plan import EvaluationSpec, ScatteringSpec, parse, to_toml
from common.privacy import round_charge
from simulations import scenario
from simulations.apps import CLIENT_APP
from simulations.engine.nursery import Nursery
from simulations.planner import Hospitals
from simulations.planner.forecast import Forecast, forecast, relative_noise
from simulations.planner.sweep import (
    SCATTERING,
    SHORTER,
    SLICES,
    Sweep,
    at_noise,
    noise_levels,
    not_private,
    rates,
    require_stand_in,
    scattering_of,
    stand_in,
    sweep,
)
from simulations.stage import Stage, Workshop
from tests.simulations.planner.planned import local, shared

FIVE = Hospitals(patients=(800,) * 5)
SMALL = Stage(
    folder=Path(), scenario=None, sites=("a", "b", "c"), unit_source="patient_id",  # type: ignore[arg-type]  # only counts are looked at
    counts={"sites": [{"patients": patients, "images": 2 * patients} for patients in (70, 64, 66)]},
)  # fmt: skip


@pytest.mark.parametrize("plan", [shared(), local()], ids=["shared", "local"])
def test_a_small_federation_has_the_noise_of_the_large_one(plan):
    found = forecast(plan, FIVE)
    level = found.asked.relative_noise
    small = at_noise(stand_in(found), level, SMALL)
    charges = [round_charge(small, site["patients"]) for site in SMALL.counts["sites"]]
    assert relative_noise(small, charges) == pytest.approx(level, rel=0.01)
    assert small.privacy.epsilon > plan.privacy.epsilon  # which on patients would be another promise


def test_levels_are_none_that_of_each_mode_and_twice_the_most():
    found = forecast(shared(), FIVE)
    together, alone = (found.modes[mode].relative_noise for mode in ("distributed", "local"))
    assert noise_levels(found) == [0.0, *sorted((together, alone)), 2 * max(together, alone)]


def test_without_noise_a_network_is_trained_by_two_steps_and_a_linear_model_by_its_own():
    plan = stand_in(forecast(shared(), FIVE))
    own = plan.training.learning_rate
    assert rates(plan, 0.0) == (own, own * SHORTER)
    assert rates(plan, 0.1) == (own,)
    linear = scattering_of(plan)
    assert rates(linear, 0.0) == (linear.training.learning_rate,)


def test_without_noise_nothing_is_clipped_and_a_step_sees_as_many_images():
    plan = not_private(shared(), learning_rate=0.5)
    assert (plan.privacy.unit, plan.privacy.clip_norm, plan.training.learning_rate) == ("none", None, 0.5)
    assert plan.training.batch == shared().training.batch * min(shared().privacy.images_per_patient, SLICES)


def test_a_stand_in_is_the_plan_on_made_images():
    plan = replace(shared(), evaluation=EvaluationSpec(every=10, epsilon=1.0), input=replace(shared().input, height=512, channels=3))
    made = stand_in(forecast(plan, FIVE))
    assert parse(to_toml(made)) == made
    assert (made.input.height, made.input.width, made.input.channels) == (64, 32, 1)
    assert (made.model, made.training) == (plan.model, plan.training)
    assert not made.shares_noise
    assert scattering_of(made).model == SCATTERING
    assert scattering_of(replace(made, model=ScatteringSpec(family="scattering"))) is None


@pytest.mark.parametrize("name", ["cell-outlines", "cells-as-boxes", "findings", "low-dose", "follow-up", "pairs", "records", "notes"])
def test_a_plan_that_made_ct_cannot_stand_in_for_is_refused_by_name(name: str) -> None:
    with pytest.raises(PlanError, match="Leave out --sweep") as refused:
        require_stand_in(scenario.load(scenario.find(name)).plan)
    assert "cannot stand in" in refused.value.message


def test_the_default_plan_can_be_swept() -> None:
    require_stand_in(scenario.load(scenario.find("default")).plan)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(CLIENT_APP) as started:
        yield started


@pytest.fixture(scope="module")
def found() -> Forecast:
    plan = shared(noise_quorum=3)
    plan = replace(plan, training=replace(plan.training, rounds=3, batch=16), aggregation=replace(plan.aggregation, max_group=8))
    return forecast(plan, Hospitals(patients=(256,) * 3))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, found: Forecast) -> tuple[Sweep, list[tuple[str, int, int]]]:
    told: list[tuple[str, int, int]] = []
    shop = Workshop(cache=tmp_path_factory.mktemp("cache"), workers=2, progress=lambda *step: told.append(step))
    return sweep(found, shop, nursery), told


def test_a_sweep_measures_every_level_for_both_models(swept: tuple[Sweep, list[tuple[str, int, int]]], found: Forecast) -> None:
    result, _ = swept
    levels = noise_levels(found)
    assert [point.relative_noise for point in result.model] == levels
    assert [point.relative_noise for point in result.scattering] == levels[:-1]
    for point in (*result.model, *result.scattering):
        assert 0 <= point.low <= point.auc <= point.high <= 1
    assert (result.sites, result.patients + result.held_out, result.rounds) == (3, 192, 3)


def test_progress_counts_rounds_over_all_federations(swept: tuple[Sweep, list[tuple[str, int, int]]]) -> None:
    _, told = swept
    rounds = [(done, total) for what, done, total in told if what == "small federations, rounds"]
    assert rounds == [(number, 8 * 3) for number in range(1, 8 * 3 + 1)]

# SPDX-License-Identifier: Apache-2.0
"""Patches, areas in slices and volumes, boxes, noise, lost resolution: each plan that ships, shortened, through the real federation."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from client.imaging.dataset import Dataset
from client.training import predict
from common.models import initial_weights
from common.plan import Plan, PrivacySpec
from common.tasks.scoring.restoration import RestorationScores
from server.export import export
from simulations import scenario
from simulations.engine.nursery import Nursery
from simulations.evaluation import load_model
from simulations.judging import judge
from simulations.scenario import Scenario
from tests.journeys.made import goodness, reserved_rounds, staged, train

HOSPITALS = 3


@dataclass(frozen=True)
class Way:
    """A shipped plan, cut short: patients of each hospital, rounds of so many steps, and what its first figure has to reach."""

    patients: int
    rounds: int
    steps: int
    rate: float
    at_least: float
    side: int | None = None  # of smaller pictures, where the plan's own cost too much


WAYS = {
    "organs": Way(patients=60, rounds=4, steps=15, rate=0.005, at_least=0.8, side=56),
    "organs-small": Way(patients=60, rounds=4, steps=15, rate=0.01, at_least=0.8),
    "growths": Way(patients=24, rounds=4, steps=15, rate=0.01, at_least=0.8),
    "tissue-patches": Way(patients=24, rounds=3, steps=12, rate=0.01, at_least=0.8),
    "cell-outlines": Way(patients=16, rounds=4, steps=10, rate=0.01, at_least=0.6),
    "lesions-in-volumes": Way(patients=8, rounds=4, steps=15, rate=0.015, at_least=0.45),
    "cells-as-boxes": Way(patients=20, rounds=6, steps=15, rate=0.01, at_least=0.3),
    "low-dose": Way(patients=8, rounds=3, steps=12, rate=0.005, at_least=25.0),
    "low-resolution": Way(patients=8, rounds=4, steps=20, rate=0.003, at_least=29.0),
}


def shortened(name: str, *, private: bool) -> Scenario:
    """A plan that ships, for three small hospitals: with privacy as it is, or trained openly and in longer steps."""
    played, way = scenario.load(scenario.find(name)), WAYS[name]
    plan, simulation = played.plan, played.simulation
    assert simulation.made is not None
    training, privacy = replace(plan.training, rounds=2, batch=8), replace(plan.privacy, noise_quorum=HOSPITALS, minimum_patients=8)
    if not private:
        training = replace(training, strategy="fedavg", rounds=way.rounds, local_steps=way.steps, learning_rate=way.rate)
        privacy = PrivacySpec(unit="none")
    made = replace(simulation.made, hospitals=HOSPITALS, patients_per_hospital=16 if private else way.patients)
    image = plan.input
    if way.side is not None:
        made, image = replace(made, size_px=way.side), replace(image, height=way.side, width=way.side)
    aggregation = replace(plan.aggregation, minimum_cohort=HOSPITALS, update_norm=50.0)
    return Scenario(
        plan=replace(plan, input=image, training=training, privacy=privacy, aggregation=aggregation),
        simulation=replace(simulation, sites=HOSPITALS, folds=4, made=made),
    )


def by_doing_nothing(data: Dataset, plan: Plan) -> float:
    """The figure of who calls every case, or every pixel, alike; of who draws no box; of who leaves the image as it is."""
    match plan.task.kind:
        case "classification":
            return 0.5
        case "segmentation":
            everywhere = data.parts["mask"][:].mean()
            return float(2 * everywhere / (1 + everywhere))
        case "restoration":
            before = judge(initial_weights(plan), data, plan, resamples=0)
            assert isinstance(before, RestorationScores)
            assert before.psnr_before is not None
            return before.psnr_before
        case _:
            return 0.0


@pytest.mark.parametrize("name", WAYS)
def test_a_federation_learns_it_and_the_exported_model_says_the_same(name: str, tmp_path: Path, nursery: Nursery) -> None:
    stage = staged(shortened(name, private=False), tmp_path)
    plan, held_out = stage.scenario.plan, stage.holdout()
    final, committed = train(stage, nursery)
    assert [done.sites for done in committed] == [stage.sites] * plan.training.rounds
    trained = goodness(final, held_out, plan)
    assert trained > goodness(initial_weights(plan), held_out, plan)
    assert trained > by_doing_nothing(held_out, plan)
    assert trained > WAYS[name].at_least
    (tmp_path / "model").mkdir()
    export(tmp_path / "model", weights=final, plan=plan, facts={})
    again, of_card = load_model(tmp_path / "model")
    assert of_card == plan
    assert np.array_equal(predict(again, held_out, of_card), predict(final, held_out, plan))


@pytest.mark.parametrize("name", WAYS)
def test_its_private_rounds_are_trained_and_paid_for(name: str, tmp_path: Path, nursery: Nursery) -> None:
    stage = staged(shortened(name, private=True), tmp_path)
    assert stage.scenario.plan.privacy.unit == "patient"
    final, committed = train(stage, nursery)
    assert not any(done.missing or done.fallen for done in committed)
    assert {site: reserved_rounds(stage, site) for site in stage.sites} == {site: [1, 2] for site in stage.sites}
    assert np.isfinite(final.values).all()
    assert not np.array_equal(final.values, initial_weights(stage.scenario.plan).values)

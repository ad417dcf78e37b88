# SPDX-License-Identifier: Apache-2.0
"""Sequences, slides, several findings, records, notes and pairs of images: each plan that ships, shortened, through the real federation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.training import predict
from common.models import initial_weights
from common.plan import PrivacySpec
from server.export import export
from simulations import scenario
from simulations.engine.nursery import Nursery
from simulations.evaluation import load_model
from simulations.scenario import Scenario
from tests.journeys.made import goodness, reserved_rounds, staged, train

# name of the plan, what the model makes of its sources if not what the plan says, patients of each hospital, rounds, at least so good
WAYS = {
    "follow-up": ("follow-up", None, 36, 2, 0.85),
    "follow-up by attention": ("follow-up", "attention", 36, 4, 0.85),
    "slides": ("slides", None, 48, 4, 0.85),
    "findings": ("findings", None, 60, 4, 0.7),
    "records": ("records", None, 60, 4, 0.65),
    "notes": ("notes", None, 80, 4, 0.7),
    "pairs": ("pairs", None, 60, 4, 0.7),
    "complaints": ("complaints", None, 60, 4, 0.8),
}
CHANCE = 0.5


def shortened(name: str, *, how: str | None, patients: int, rounds: int, private: bool) -> Scenario:
    """A plan that ships, for three small hospitals: with privacy as it is, or trained openly and in longer steps."""
    played = scenario.load(scenario.find(name))
    plan, simulation = played.plan, played.simulation
    assert simulation.made is not None
    training = replace(plan.training, rounds=rounds, batch=8)
    privacy = replace(plan.privacy, noise_quorum=3, minimum_patients=8)
    if not private:
        training = replace(training, strategy="fedavg", local_steps=20, batch=16, learning_rate=0.006)
        privacy = PrivacySpec(unit="none")
    return Scenario(
        plan=replace(
            plan,
            model=replace(plan.model, how=how) if how else plan.model,
            training=training,
            privacy=privacy,
            aggregation=replace(plan.aggregation, minimum_cohort=3, update_norm=20.0),
        ),
        simulation=replace(
            simulation, sites=3, folds=4, made=replace(simulation.made, hospitals=3, patients_per_hospital=patients, size_px=24)
        ),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where data are made once for all ways of learning from them."""
    return tmp_path_factory.mktemp("made")


@pytest.mark.parametrize("way", WAYS)
def test_a_federation_learns_it_and_the_exported_model_says_the_same(way: str, tmp_path: Path, cache: Path, nursery: Nursery) -> None:
    name, how, patients, rounds, at_least = WAYS[way]
    stage = staged(shortened(name, how=how, patients=patients, rounds=rounds, private=False), tmp_path, cache)
    plan, held_out = stage.scenario.plan, stage.holdout()
    final, committed = train(stage, nursery)
    assert [done.sites for done in committed] == [stage.sites] * rounds
    untrained, trained = goodness(initial_weights(plan), held_out, plan), goodness(final, held_out, plan)
    assert trained > max(at_least, untrained + 0.05, CHANCE + 0.05)
    (tmp_path / "model").mkdir()
    export(tmp_path / "model", weights=final, plan=plan, facts={})
    again, of_card = load_model(tmp_path / "model")
    assert of_card == plan
    assert np.array_equal(predict(again, held_out, of_card), predict(final, held_out, plan))


@pytest.mark.parametrize("way", [way for way, (_, how, *_) in WAYS.items() if how is None])
def test_its_private_rounds_are_trained_and_paid_for(way: str, tmp_path: Path, cache: Path, nursery: Nursery) -> None:
    name, how, patients, *_ = WAYS[way]
    stage = staged(shortened(name, how=how, patients=patients, rounds=2, private=True), tmp_path, cache)
    assert stage.scenario.plan.privacy.unit == "patient"
    final, committed = train(stage, nursery)
    assert not any(done.missing or done.fallen for done in committed)
    assert [reserved_rounds(stage, site) for site in stage.sites] == [[1, 2]] * len(stage.sites)
    assert np.isfinite(final.values).all()
    assert not np.array_equal(final.values, initial_weights(stage.scenario.plan).values)

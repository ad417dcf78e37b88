# SPDX-License-Identifier: Apache-2.0
"""Transfer learning: the plan that ships, shortened, through the real federation; its model exported, read again, and made smaller."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.training import predict
from common.errors import DataNotFound
from common.models import initial_weights, pretrained
from common.plan import BackboneSpec, PrivacySpec
from server.export import export
from simulations import scenario
from simulations.engine.nursery import Nursery
from simulations.evaluation import load_model
from simulations.judging import judge
from simulations.pruning import prune
from simulations.scenario import Scenario
from tests.journeys.made import reserved_rounds, staged, train


def shortened(*, private: bool, trained_stages: int = 0) -> Scenario:
    """The plan that ships, on smaller patches of three small hospitals."""
    played = scenario.load(scenario.find("transfer"))
    plan, simulation = played.plan, played.simulation
    assert simulation.made is not None
    training, privacy = replace(plan.training, rounds=2, batch=8), replace(plan.privacy, noise_quorum=3, minimum_patients=8)
    if not private:
        training = replace(training, strategy="fedavg", rounds=3, local_steps=30, batch=16, learning_rate=0.01)
        privacy = PrivacySpec(unit="none")
    assert isinstance(plan.model, BackboneSpec)
    return Scenario(
        plan=replace(
            plan,
            input=replace(plan.input, height=32, width=32),
            model=replace(plan.model, trained_stages=trained_stages),
            training=training,
            privacy=privacy,
            aggregation=replace(plan.aggregation, minimum_cohort=3, update_norm=50.0),
        ),
        simulation=replace(
            simulation,
            sites=3,
            made=replace(simulation.made, hospitals=3, patients_per_hospital=48 if not private else 16, size_px=32),
        ),
    )


def test_a_new_head_learns_and_the_model_takes_along_what_it_started_from(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = staged(shortened(private=False), tmp_path)
    plan, held_out = stage.scenario.plan, stage.holdout()
    start = initial_weights(plan)
    final, committed = train(stage, nursery)
    assert final.values.size == 129  # of 700,000: what is frozen never travels
    assert [done.sites for done in committed] == [stage.sites] * 3

    def good(weights):
        return judge(weights, held_out, plan, resamples=0).headline.value or 0

    assert good(final) > max(good(start), 0.5) + 0.1
    assert good(prune(final, 0.7)) > good(prune(final, 0.02)) - 0.02

    (tmp_path / "model").mkdir()
    export(tmp_path / "model", weights=final, plan=plan, facts={})
    monkeypatch.setattr(pretrained, "_folders", [])
    pretrained.tensors_of.cache_clear()
    weights, same_plan = load_model(tmp_path / "model")
    assert same_plan == plan
    np.testing.assert_array_equal(predict(weights, held_out, same_plan), predict(final, held_out, plan))


@pytest.mark.parametrize("stages", [0, 1])
def test_private_rounds_are_paid_for_and_sum_what_learns_alone(tmp_path: Path, nursery: Nursery, stages: int) -> None:
    stage = staged(shortened(private=True, trained_stages=stages), tmp_path)
    final, committed = train(stage, nursery)
    assert len(committed) == 2
    assert (final.values != initial_weights(stage.scenario.plan).values).all()
    for site in stage.sites:
        assert reserved_rounds(stage, site) == [1, 2]


def test_without_the_file_no_run_is_set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "_folders", [])
    pretrained.tensors_of.cache_clear()
    played = shortened(private=True)
    model = replace(played.plan.model, weights="nobody-has-this.safetensors")
    with pytest.raises(DataNotFound, match=r"nobody-has-this\.safetensors"):
        staged(Scenario(plan=replace(played.plan, model=model), simulation=played.simulation), tmp_path)
    assert not (tmp_path / "run" / "stage.json").exists()

# SPDX-License-Identifier: Apache-2.0
"""Rounds in which every site adds a share of the noise: one global step each, and no sum without a quorum of shares."""

from pathlib import Path

import numpy as np
import pytest

from client.imaging.prepared import load_prepared
from client.site import Site
from common.errors import CohortTooSmall, PlanMismatch, SurvivorSet
from common.models import initial_weights
from common.plan import digest_of
from common.wire import Step, TrainRequest
from simulations import scenario
from simulations.comparison import on_its_own, pooled_plan
from simulations.engine.nursery import Nursery
from simulations.observer import score
from simulations.scenario import Scenario
from tests.journeys.made import PLAN, made_stage, train

SHARED = 'unit = "patient"\nepsilon = 8\ndelta = 1e-4\nclip_norm = 1\nnoise = "distributed"\nnoise_quorum = {quorum}\nminimum_patients = 6'


def shared_scenario(*, quorum: int = 3, rounds: int = 4, sites: int = 4) -> Scenario:
    text = PLAN.format(privacy=SHARED.format(quorum=quorum))
    text = text.replace("local_steps = 2\nbatch = 8\nlearning_rate = 0.2\nmomentum = 0.5", GLOBAL_STEP)
    return scenario.parse(text).with_changes(rounds=rounds, sites=sites)


GLOBAL_STEP = 'strategy = "fedsgd"\nlocal_steps = 1\nbatch = 4\noptimiser = "adam"\nlearning_rate = 0.02'


def test_masks_do_not_change_a_bit_of_a_noised_sum(tmp_path: Path, nursery: Nursery) -> None:
    masked, ideal = (train(made_stage(tmp_path / way, shared_scenario(), aggregation=way), nursery)[0] for way in ("fsa1", "ideal"))
    assert masked.digest == ideal.digest
    assert masked.digest != initial_weights(shared_scenario().plan).digest


def test_a_run_that_died_goes_on_with_the_noise_that_it_has(tmp_path: Path, nursery: Nursery) -> None:
    """Two of five fall before masking, where four shares are needed: the retry masks the same noised integers."""
    played = shared_scenario(quorum=4, sites=5)
    stage = made_stage(tmp_path / "run", played)
    with pytest.raises(SurvivorSet):
        train(stage, nursery, *(f"{site}:raise:2:mask" for site in stage.sites[:2]))
    weights, committed = train(stage, nursery)
    assert [done.attempt for done in committed] == [0, 2, 0, 0]
    assert weights.digest == train(made_stage(tmp_path / "whole", played), nursery)[0].digest


def test_no_sum_is_opened_below_the_noise_quorum(tmp_path: Path, nursery: Nursery) -> None:
    """Three of four are a threshold of secure aggregation, and one share of noise too few."""
    stage = made_stage(tmp_path / "run", shared_scenario(quorum=4))
    with pytest.raises(CohortTooSmall):
        train(stage, nursery, f"{stage.sites[1]}:raise:2")
    stage = made_stage(tmp_path / "late", shared_scenario(quorum=4))
    with pytest.raises(SurvivorSet):
        train(stage, nursery, f"{stage.sites[1]}:raise:2:mask")
    stage = made_stage(tmp_path / "enough", shared_scenario(quorum=3))
    _, committed = train(stage, nursery, f"{stage.sites[1]}:raise:2", f"{stage.sites[2]}:raise:3:mask")
    assert [len(done.sites) for done in committed] == [4, 3, 3, 4]


def test_a_site_gives_no_share_in_plain_floats(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", shared_scenario(), aggregation="plain")
    plan = stage.scenario.plan
    site = Site.open(stage.home(stage.sites[0]), plan)
    step = Step(session=bytes(16), round=1, attempt=0, plan=digest_of(plan))
    with pytest.raises(PlanMismatch, match="shares its noise"):
        site.train(TrainRequest(step=step, weights=initial_weights(plan)))


def test_the_federation_learns_what_no_site_could_alone(tmp_path: Path, nursery: Nursery) -> None:
    played = shared_scenario(rounds=60)
    stage = made_stage(tmp_path / "run", played)
    scores = score(train(stage, nursery)[0], load_prepared(stage.folder / "holdout"), played.plan, resamples=0)
    assert scores.patients is not None
    assert scores.patients.auc is not None
    assert scores.patients.auc > 0.8


def test_whoever_trains_alone_adds_all_the_noise() -> None:
    plan = on_its_own(shared_scenario().plan)
    assert not plan.shares_noise
    assert plan.privacy.epsilon == 8
    assert pooled_plan(plan, 4).training.batch == 16
    assert np.isclose(plan.training.learning_rate, 0.02)

# SPDX-License-Identifier: Apache-2.0
"""A federation whose sites train on a GPU, for machines that have one: every family and task, and all rounds under masks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.training import LocalWork, device, dpsgd, predict, train_locally
from client.training import bench as bench_module
from client.training.bench import bench_for
from client.training.device import PROCESSOR
from common.models import initial_weights
from simulations import scenario
from simulations.apps import CLIENT_APP
from simulations.engine.nursery import Nursery
from simulations.scenario import PLANS
from simulations.stage import Workshop, find_stage, set_stage
from tests.journeys.made import goodness, made_scenario, pictures, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

OF_REAL_IMAGES = {"cell-bccd3", "cell-malaria", "ct-lung", "det-bccd", "seg-nuclei", "template", "xray-pneumonia"}


@pytest.fixture(autouse=True)
def afresh(monkeypatch):
    monkeypatch.setattr(device, "_chosen", PROCESSOR)
    yield
    bench_module._bench.cache_clear()


@pytest.mark.parametrize("private", [True, False])
def test_a_federation_on_a_gpu_learns_what_one_on_processors_learns(tmp_path, private):
    """From one noise seed, so that they differ in rounding alone; coordinator, workers and masks as everywhere."""
    played, found = made_scenario(private=private), []
    pictures(tmp_path / "pictures")
    with Nursery(CLIENT_APP) as nursery:
        for where in ("cpu", "cuda"):
            folder = tmp_path / f"on-{len(found)}"
            shop = Workshop(cache=tmp_path / "cache", workers=1, progress=lambda *_: None, unsafe_noise_seed=7, device=where)
            stage = set_stage(played, tmp_path / "pictures", folder, shop)
            weights, rounds = train(find_stage(folder), nursery)
            assert len(rounds) == played.plan.training.rounds
            found.append(goodness(weights, stage.holdout(), played.plan))
    assert found[1] == pytest.approx(found[0], abs=0.1)


@pytest.mark.parametrize("name", sorted({path.stem for path in PLANS.glob("*.toml")} - OF_REAL_IMAGES))
def test_every_kind_of_plan_trains_and_predicts_there(tmp_path, name):
    """Two steps of each family and task on made data; what an untrained network says is the same."""
    played = scenario.load(scenario.find(name))
    plan, said = played.plan, []
    stage = set_stage(played, None, tmp_path / "run", Workshop(cache=tmp_path / "cache", workers=2, progress=lambda *_: None))
    held_out, start = stage.holdout(), initial_weights(plan)
    data = held_out.subset(np.arange(min(len(held_out), 200)))
    for where in ("cpu", "cuda"):
        device.choose(where)
        said.append(predict(start, data, plan))
    np.testing.assert_allclose(said[1], said[0], atol=2e-3, rtol=1e-3)
    plan = replace(plan, training=replace(plan.training, batch=min(plan.training.batch, 8)))
    work = LocalWork(steps=2, noise_multiplier=1.0 if plan.is_private else None, order_seed=b"order")
    with bench_for(plan, start) as bench:
        assert bench.model.values.is_cuda
        if plan.is_private:
            bench.model.module.train()
            assert dpsgd.noised_sums(bench, data, plan, work)().any()
    if not plan.is_private:
        assert np.isfinite(train_locally(start, data, plan, work).values).all()

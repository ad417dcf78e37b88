# SPDX-License-Identifier: Apache-2.0
"""The same training on a GPU, for machines that have one: the bound on a patient holds there, and what is learnt is the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.process import place
from client.training import LocalWork, SystemNoise, UnsafeSeededNoise, device, dpsgd, predict, train_locally, units_of
from client.training import bench as bench_module
from client.training.bench import bench_for
from client.training.device import PROCESSOR, Room
from client.training.sampler import Draw, pick
from common.errors import GpuMemory
from common.models import initial_weights
from common.plan import CnnSpec, PrivacySpec, ResNetSpec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

PATIENTS = PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=1.0)
CNN, RESNET = CnnSpec(family="cnn", widths=(8, 16), hidden=32), ResNetSpec(family="resnet", widths=(8, 16))


@pytest.fixture(autouse=True)
def afresh(monkeypatch):
    monkeypatch.setattr(device, "_chosen", PROCESSOR)
    yield
    bench_module._bench.cache_clear()
    device.found.cache_clear()


def without(drawn: Draw, unit: int) -> Draw:
    sizes, starts = list(drawn.sizes), np.cumsum([0, *drawn.sizes])
    rows = np.delete(drawn.rows, np.arange(starts[unit], starts[unit + 1]))
    return replace(drawn, rows=rows, sizes=np.array(sizes[:unit] + sizes[unit + 1 :]))


@pytest.mark.parametrize("model", [CNN, RESNET])
@pytest.mark.parametrize("clip_norm", [0.05, 10.0])
def test_the_private_sum_is_the_processors_to_a_step_a_unit(make_plan, make_dataset, model, clip_norm):
    """To a step, and to what float32 is worth: sums of other orders differ in their last bits, and the lattice is finer than those."""
    plan = make_plan(private=True, model=model, privacy=replace(PATIENTS, clip_norm=clip_norm))
    data = make_dataset(images_of=[1, 2, 3, 4, 9, 1, 1, 4] * 8)
    drawn, sums = pick(units_of(data, plan), np.arange(64), 4, SystemNoise().open()), []
    for name in ("cpu", "cuda"):
        device.choose(name)
        with bench_for(plan, initial_weights(plan)) as bench:
            sums.append(dpsgd.sum_of_clipped(bench, data, plan, drawn).cpu())
            assert bench.model.values.device.type == name
    far = (sums[0] - sums[1]).double().norm().item() / sums[0].double().norm().item()
    assert far < 1e-4
    assert sums[0].abs().max() > 100


@pytest.mark.parametrize("model", [CNN, RESNET])
@pytest.mark.parametrize("room", [Room(images=8, units=4), Room(images=1024, units=1024)])
def test_taking_any_patient_away_moves_the_sum_by_at_most_the_clip_norm(make_plan, make_dataset, model, room):
    plan = make_plan(private=True, model=model, privacy=replace(PATIENTS, clip_norm=0.05, images_per_patient=500))
    images_of = [1, 2, 500, 4, 3, 9, 30, 1, 2, 3, 5, 5, 5, 2, 1, 1]
    data, everybody = make_dataset(images_of=images_of), np.arange(len(images_of))
    drawn = pick(units_of(data, plan), everybody, 500, None)
    device.choose("cuda")
    with bench_for(plan, initial_weights(plan)) as bench:
        fitted = replace(bench, room=room)
        whole = dpsgd.sum_of_clipped(fitted, data, plan, drawn)
        moved = [(whole - dpsgd.sum_of_clipped(fitted, data, plan, without(drawn, unit))).double().norm().item() for unit in everybody]
    assert 0.99 * 2**16 < max(moved) <= 2**16


@pytest.mark.parametrize("model", [CNN, RESNET])
def test_a_sum_is_that_of_its_patients_each_by_itself_to_the_last_bit(make_plan, make_dataset, model):
    plan = make_plan(private=True, model=model, privacy=PATIENTS, batch=32)
    data = make_dataset(images_of=[1, 4, 2, 4, 3, 4, 1, 4, 4, 2, 3, 1, 1])
    units, sums = units_of(data, plan), []
    device.choose("cuda")
    with bench_for(plan, initial_weights(plan)) as bench:
        for chosen in (np.arange(13), *np.arange(13)[:, None]):
            sums.append(dpsgd.sum_of_clipped(bench, data, plan, pick(units, chosen, 4, None)))
    assert torch.equal(sums[0], torch.stack(sums[1:]).sum(dim=0))


def test_physical_batches_use_little_of_the_room_that_is_left_for_rounding(make_plan, make_dataset):
    plan, data = make_plan(private=True, privacy=PATIENTS), make_dataset(images_of=[1, 2, 3, 4, 6, 8] * 10)
    drawn, sums = pick(units_of(data, plan), np.arange(60), 4, SystemNoise().open()), []
    device.choose("cuda")
    for images, units in ((1, 1), (5, 4), (64, 16), (1024, 1024)):
        with bench_for(plan, initial_weights(plan)) as bench:
            sums.append(dpsgd.sum_of_clipped(replace(bench, room=Room(images=images, units=units)), data, plan, drawn))
    for other in sums[1:]:
        assert (sums[0] - other).double().norm() < 2**16 * 2.0**-10 / 4


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("model", [CNN, RESNET])
def test_a_round_ends_where_it_ends_on_the_processor(make_plan, make_dataset, model, private):
    """Same sample, same noise: six steps apart, the weights are the same but for rounding."""
    plan = make_plan(private=private, model=model, privacy=PATIENTS, learning_rate=0.05)
    data, start = make_dataset(images_of=[1, 2, 3, 4] * 12), initial_weights(plan)
    work = LocalWork(steps=6, noise_multiplier=0.5 if private else None, order_seed=b"order", noise=UnsafeSeededNoise(b"noise"))
    ends = []
    for name in ("cpu", "cuda"):
        device.choose(name)
        ends.append(train_locally(start, data, plan, work).values)
    np.testing.assert_allclose(ends[1], ends[0], atol=2e-3 * np.abs(ends[0]).max())


def test_predictions_are_the_processors(make_plan, make_dataset):
    plan, data, said = make_plan(model=RESNET), make_dataset(300), []
    for name in ("cpu", "cuda"):
        device.choose(name)
        said.append(predict(initial_weights(plan), data, plan))
    np.testing.assert_allclose(said[1], said[0], atol=1e-5)


def test_half_the_bits_train_too(make_plan, make_dataset):
    """Mixed precision on hardware for it; weights and gradients stay float32."""
    data, ends = make_dataset(64), []
    device.choose("cuda")
    for precision in ("float32", "bfloat16"):
        plan = make_plan(model=RESNET, precision=precision, learning_rate=0.05)
        ends.append(train_locally(initial_weights(plan), data, plan, LocalWork(steps=8, noise_multiplier=None, order_seed=b"o")).values)
    assert ends[1].dtype == np.float32
    assert 0 < np.linalg.norm(ends[1] - ends[0]) < 0.2 * np.linalg.norm(ends[0])


def test_a_gpu_that_others_have_filled_is_used_in_smaller_parts_or_refused_by_name(make_plan, make_dataset):
    plan = make_plan(private=True, privacy=PATIENTS, batch=60, model=ResNetSpec(family="resnet", widths=(64,)))
    data, start = make_dataset(images_of=[4] * 64), initial_weights(plan)
    work = LocalWork(steps=1, noise_multiplier=0.5, order_seed=b"order", noise=UnsafeSeededNoise(b"noise"))
    here = device.choose("cuda")
    roomy = train_locally(start, data, plan, work).values
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 48 * 2**20) / total)
        with bench_for(plan, start) as bench:
            assert bench.room.images == 1024
        tight = train_locally(start, data, plan, work).values
        with bench_for(plan, start) as bench:
            assert bench.room.images < 1024
        np.testing.assert_allclose(tight, roomy, atol=1e-3 * np.abs(roomy).max())
        wide = replace(plan, input=replace(plan.input, height=512, width=512))  # 64 maps of a megabyte for one image
        with pytest.raises(GpuMemory, match="nvidia-smi"):
            predict(start, make_dataset(2, size=512), wide)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert here.is_gpu


def test_a_process_that_keeps_to_itself_can_use_one():
    """As the site process does, from whose memory nobody else may read."""
    place.keep_to_oneself()
    assert torch.ones(3, device="cuda").sum().item() == 3

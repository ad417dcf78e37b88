# SPDX-License-Identifier: Apache-2.0
"""The law under everything: leaving any one patient out moves the sum, before noise, by at most the clip norm."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.training import SystemNoise, by_unit, device, dpsgd, units_of
from client.training import bench as bench_module
from client.training.bench import bench_for
from client.training.by_unit import UnitHooks
from client.training.clipping import ROOM_FOR_ROUNDING, Kept, add_clipped
from client.training.device import Room
from client.training.sampler import Draw, pick
from common.models import build, initial_weights, write_weights
from common.plan import CnnSpec, PrivacySpec, ResNetSpec
from common.privacy import Lattice, lattice_of
from common.tasks import task_of

PATIENTS = PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=1.0)
CNN, RESNET = CnnSpec(family="cnn", widths=(8, 8), hidden=8), ResNetSpec(family="resnet", widths=(8,))
SHAPES = ((3, 2), (5,), (4, 1, 3))


def summed(gradients, lattice):
    totals = [torch.zeros(gradient.shape[1:], dtype=torch.int64) for gradient in gradients]
    add_clipped(totals, [Kept(gradient) for gradient in gradients], lattice, torch.ones(len(gradients[0]), dtype=torch.bool))
    return torch.cat([total.flatten() for total in totals])


def random_gradients(rng, units, log_scale):
    scales = 10 ** rng.uniform(log_scale - 3, log_scale + 3, (units, 1))
    return [torch.from_numpy((rng.standard_normal((units, int(np.prod(s)))) * scales).astype(np.float32)).view(units, *s) for s in SHAPES]


def without(drawn, unit):
    ends = np.cumsum(drawn.sizes)
    gone = np.arange(ends[unit] - drawn.sizes[unit], ends[unit])
    return Draw(rows=np.delete(drawn.rows, gone), sizes=np.delete(drawn.sizes, unit))


# On gradients of every size


def test_ten_thousand_random_units_each_move_the_sum_by_at_most_the_clip_norm():
    rng, longest = np.random.default_rng(0), 0.0
    for _ in range(2500):
        lattice = Lattice(clip_norm=10 ** rng.uniform(-4, 4), fineness=int(rng.integers(8, 17)))
        gradients = random_gradients(rng, 4, rng.uniform(-30, 30))
        whole = summed(gradients, lattice)
        for unit in range(4):
            rest = summed([torch.cat([g[:unit], g[unit + 1 :]]) for g in gradients], lattice)
            moved = (whole - rest).double().norm().item()
            assert moved <= lattice.clip_steps
            longest = max(longest, moved / lattice.clip_steps)
    assert longest > 0.99  # the bound is reached, so clipping was seen at work


@given(seed=st.integers(0, 2**32 - 1), units=st.integers(1, 6), log_scale=st.floats(-30, 30), fineness=st.integers(8, 16))
def test_a_sum_is_that_of_its_units_in_any_order_to_the_last_step(seed, units, log_scale, fineness):
    lattice, gradients = Lattice(clip_norm=1.0, fineness=fineness), random_gradients(np.random.default_rng(seed), units, log_scale)
    alone = sum(summed([gradient[unit : unit + 1] for gradient in gradients], lattice) for unit in range(units))
    assert torch.equal(summed(gradients, lattice), alone)
    assert torch.equal(summed([gradient.flip(0) for gradient in gradients], lattice), alone)


def test_three_hundred_units_at_once_are_still_exact():
    """More than fit the integers of float32."""
    lattice = Lattice(clip_norm=1.0, fineness=16)
    gradients = [torch.full((300, 1), 5.0)]
    assert summed(gradients, lattice).item() == 300 * int(2**16 * ROOM_FOR_ROUNDING)


def test_a_gradient_within_the_clip_norm_is_truncated_and_nothing_else():
    lattice = Lattice(clip_norm=8.0, fineness=8)
    assert summed([torch.tensor([[3.0]]), torch.tensor([[-4.99]])], lattice).tolist() == [96, -159]


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_image_counts_as_nothing(poison):
    lattice = Lattice(clip_norm=1.0, fineness=16)
    healthy = [torch.tensor([[0.1, 0.2], [0.3, 0.1]]), torch.tensor([[0.5], [0.6]])]
    broken = [torch.cat([healthy[0], torch.tensor([[poison, 0.0]])]), torch.cat([healthy[1], torch.tensor([[1.0]])])]
    assert torch.equal(summed(broken, lattice), summed(healthy, lattice))
    assert not summed([torch.tensor([[poison]])], lattice).any()
    assert not summed([torch.zeros(2, 3)], lattice).any()


# Through real models


@pytest.mark.parametrize(
    ("model", "clip_norm", "images_of"), [(CNN, 0.05, [1, 2, 500, 4]), (CNN, 1e4, [3, 9, 1]), (RESNET, 1.0, [5, 1, 30, 2])]
)
def test_taking_any_patient_away_moves_the_sum_by_at_most_the_clip_norm(make_plan, make_dataset, model, clip_norm, images_of):
    """All images of a patient are drawn, up to 500; the physical batches of all others shift when one is missing."""
    plan = make_plan(private=True, model=model, privacy=replace(PATIENTS, clip_norm=clip_norm, images_per_patient=500))
    data = make_dataset(images_of=[*images_of, 1, 2, 3])
    everybody = np.arange(len(images_of) + 3)
    drawn, moved = pick(units_of(data, plan), everybody, 500, None), []
    with bench_for(plan, initial_weights(plan)) as bench:
        for at_once in (8, 1000):
            fitted = replace(bench, room=Room(images=at_once, units=16))
            whole = dpsgd.sum_of_clipped(fitted, data, plan, drawn)
            moved += [(whole - dpsgd.sum_of_clipped(fitted, data, plan, without(drawn, unit))).double().norm().item() for unit in everybody]
    assert max(moved) <= 2**16
    if clip_norm < 1:
        assert max(moved) > 0.99 * 2**16


@pytest.mark.parametrize("model", [CNN, RESNET, CnnSpec(family="cnn", widths=(4,), hidden=32)])
def test_all_ways_to_a_units_gradient_agree_to_a_step(make_plan, make_dataset, monkeypatch, model):
    """Together by our formulas, together by Opacus's, and one backward pass for each patient."""
    plan = make_plan(private=True, model=model, privacy=replace(PATIENTS, clip_norm=0.5))
    data = make_dataset(images_of=[1, 2, 3, 4, 9, 1, 1, 4, 4, 4])
    drawn = pick(units_of(data, plan), np.arange(10), 4, SystemNoise().open())
    with bench_for(plan, initial_weights(plan)) as bench:
        ours = dpsgd.sum_of_clipped(bench, data, plan, drawn)
        alone = dpsgd.sum_of_clipped(replace(bench, by_unit=None), data, plan, drawn)
        monkeypatch.setattr(by_unit, "formula_of", by_unit.by_opacus)
        opacus = dpsgd.sum_of_clipped(replace(bench, by_unit=UnitHooks(bench.model.module)), data, plan, drawn)
    bench_module._bench.cache_clear()  # its module has a second set of hooks
    assert (ours - alone).abs().max() <= len(drawn)
    assert (ours - opacus).abs().max() <= len(drawn)
    assert ours.abs().max() > 1000


def test_memory_decides_how_units_are_worked_through_and_the_log_says_so(make_plan, monkeypatch, caplog):
    plan, start = make_plan(private=True), initial_weights(make_plan())
    for kept, at_once, said in ((2**26, 16, "units at once"), (2 * start.values.size - 1, 1, "one unit at a time")):
        monkeypatch.setattr(device, "_chosen", replace(device.PROCESSOR, kept_values=kept))
        bench_module._bench.cache_clear()
        with caplog.at_level(logging.INFO):
            for _ in range(2):
                with bench_for(plan, start) as bench:
                    assert bench.room.units == at_once
                    assert (bench.by_unit is None) == (at_once == 1)
        assert [said in message for message in caplog.messages if "gradients of" in message] == [True]
        caplog.clear()
    bench_module._bench.cache_clear()


def test_physical_batches_change_nothing_but_the_rounding_of_gradients(make_plan, make_dataset):
    plan, data = make_plan(private=True, privacy=PATIENTS), make_dataset(images_of=[1, 2, 3, 4, 6, 8] * 4)
    drawn, sums = pick(units_of(data, plan), np.arange(24), 4, SystemNoise().open()), []
    for images, units in ((1, 1), (5, 4), (64, 16), (64, 3)):
        with bench_for(plan, initial_weights(plan)) as bench:
            sums.append(dpsgd.sum_of_clipped(replace(bench, room=Room(images=images, units=units)), data, plan, drawn))
    for other in sums[1:]:
        assert (sums[0] - other).abs().max() <= 2
        assert (sums[0] - other).double().norm() < 2**16 * (1 - ROOM_FOR_ROUNDING) / 4


def obvious_sum(plan, data, drawn):
    """One backward pass for each patient, in float64; clipped, truncated, added up."""
    task, lattice = task_of(plan), lattice_of(plan)
    model = build(plan.model, plan.input, task.outputs)
    write_weights(model, initial_weights(plan))
    model.double()
    total = 0
    for rows in np.split(drawn.rows, np.cumsum(drawn.sizes)[:-1]):
        x = (torch.tensor(data.images[rows].astype(np.float64)) / 65535 - plan.input.mean) / plan.input.std
        loss = task.loss(model(x), torch.tensor(data.labels[rows])).mean()
        gradient = torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])
        clipped = gradient * min(1.0, lattice.clip_norm * ROOM_FOR_ROUNDING / gradient.norm().item())
        total = total + torch.trunc(clipped / lattice.step).long()
    return total


@pytest.mark.parametrize("model", [CNN, RESNET])
@pytest.mark.parametrize("clip_norm", [0.05, 10.0])
def test_the_sum_is_that_of_an_obvious_loop_over_patients(make_plan, make_dataset, model, clip_norm):
    plan = make_plan(private=True, model=model, privacy=replace(PATIENTS, clip_norm=clip_norm))
    data = make_dataset(images_of=[1, 2, 3, 4, 9, 1, 1, 4])
    drawn = pick(units_of(data, plan), np.arange(8), 4, SystemNoise().open())
    with bench_for(plan, initial_weights(plan)) as bench:
        ours = dpsgd.sum_of_clipped(bench, data, plan, drawn)
    assert (ours - obvious_sum(plan, data, drawn)).abs().max() <= len(drawn)
    assert ours.abs().max() > 100


def test_an_empty_draw_sums_to_nothing(make_plan, make_dataset):
    plan, data = make_plan(private=True, privacy=PATIENTS), make_dataset(images_of=[1, 2])
    nobody = pick(units_of(data, plan), np.arange(0), 4, SystemNoise().open())
    with bench_for(plan, initial_weights(plan)) as bench:
        assert not dpsgd.sum_of_clipped(bench, data, plan, nobody).any()


def test_a_record_is_a_unit_of_one_image(make_plan, make_dataset):
    """unit = "record" and patients of one image each are the same sum."""
    data = make_dataset(12)
    sums = []
    for privacy in (PATIENTS, replace(PATIENTS, unit="record")):
        plan = make_plan(private=True, privacy=privacy)
        with bench_for(plan, initial_weights(plan)) as bench:
            sums.append(dpsgd.sum_of_clipped(bench, data, plan, pick(units_of(data, plan), np.arange(12), 4, None)))
    assert torch.equal(*sums)

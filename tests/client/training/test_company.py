# SPDX-License-Identifier: Apache-2.0
"""A unit's gradient is its own: not a bit of it depends on who shares a pass with it, whatever the weights.

The attack: a convolution whose channels come in pairs of copies, and a hidden layer that takes one with plus and the other with minus.
What reaches its gates would be zero; rounding alone decides whether they are open, and rounding follows the shape of the pass. With such
weights, taking one patient away moved the sum by several clip norms.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client import counting
from client.training import company, dpsgd, predict, predict_apart, units_of
from client.training.bench import bench_for
from client.training.clipping import ROOM_FOR_ROUNDING, Kept, Product, add_clipped
from client.training.device import Room
from client.training.sampler import Draw
from common.models import initial_weights, parts_of, read_weights
from common.plan import CnnSpec, EvaluationSpec, FcnSpec, PrivacySpec, ResNetSpec
from common.privacy import Lattice, lattice_of
from common.update import Weights

PATIENTS = PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=1.0, images_per_patient=4)
GATED = CnnSpec(family="cnn", widths=(8, 16, 16), hidden=16)
FAMILIES = [GATED, ResNetSpec(family="resnet", widths=(8, 8), blocks=1), FcnSpec(family="fcn", widths=(4, 8, 8), answer="image")]


def gates(start, seed, head=3.0):
    """Weights whose hidden layer is zero but for rounding."""
    rng, values = np.random.default_rng(seed), torch.from_numpy(start.values.copy())
    part = dict(zip(start.layout.names, parts_of(values, start.layout), strict=True))
    for name in ("convolutions.2.weight", "convolutions.2.bias"):
        part[name][1::2] = part[name][0::2]
    hidden = part["hidden.weight"]
    channels = len(part["convolutions.2.bias"])
    pairs = hidden.view(len(hidden), channels, -1)
    pairs[:, 0::2] = torch.from_numpy(rng.normal(0, 0.3, pairs[:, 0::2].shape).astype(np.float32))
    pairs[:, 1::2] = -pairs[:, 0::2]
    part["hidden.bias"].zero_()
    part["head.weight"][0] = torch.from_numpy(rng.choice([-head, head], len(hidden)).astype(np.float32))
    part["head.bias"].zero_()
    return Weights(layout=start.layout, values=values.numpy())


def drawn_of(data, plan, chosen=None):
    """All units, or some, with all of their images."""
    units = units_of(data, plan)
    rows = [units.rows_of(unit) for unit in (range(len(units)) if chosen is None else chosen)]
    return Draw(rows=np.concatenate(rows), sizes=np.array([len(each) for each in rows]))


def summed(bench, data, plan, chosen=None):
    return dpsgd.sum_of_clipped(bench, data, plan, drawn_of(data, plan, chosen))


@pytest.fixture
def attacked(make_plan, make_dataset):
    """A plan with a large picture, and images of noise of so many patients."""

    def make(patients):
        plan = make_plan(private=True, model=GATED, privacy=PATIENTS, batch=64)
        plan = replace(plan, input=replace(plan.input, height=32, width=32))
        data = make_dataset(patients, size=32)
        pixels = np.random.default_rng(1).integers(0, 65535, data.images.shape).astype(np.uint16)
        return plan, replace(data, images=replace(data.images, base=pixels))

    return make


@pytest.mark.parametrize("patients", [2, 3, 17, 18])
def test_weights_that_turn_rounding_into_gates_gain_nothing(attacked, patients):
    plan, data = attacked(patients)
    for seed in range(3):
        with bench_for(plan, gates(initial_weights(plan), seed)) as bench:
            alone = [summed(bench, data, plan, [unit]) for unit in range(patients)]
            assert torch.equal(summed(bench, data, plan), sum(alone))
            assert torch.equal(summed(bench, data, plan, range(1, patients)), sum(alone[1:]))
            assert max(each.double().norm().item() for each in alone) <= lattice_of(plan).clip_steps


def test_without_places_of_one_shape_the_same_weights_break_the_bound(attacked, monkeypatch):
    """That the attack is one, and the test above no idle one."""
    plan, data = attacked(18)
    monkeypatch.setattr(Draw, "filled", lambda draw, places: draw)
    monkeypatch.setattr(dpsgd, "add_clipped", lambda parts, found, lattice, there: add_clipped(parts, found, lattice, there[there]))
    moved = []
    for seed in range(12):
        with bench_for(plan, gates(initial_weights(plan), seed)) as bench:
            monkeypatch.setattr(company, "_is_one_as_any", lambda *_: True)
            moved.append((summed(bench, data, plan) - summed(bench, data, plan, range(1, 18))).double().norm().item())
            bench.by_unit.alike.clear()
    assert max(moved) > lattice_of(plan).clip_steps


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("room", [Room(images=64, units=16), Room(images=7, units=3)])
def test_a_sum_is_that_of_its_patients_each_by_itself_to_the_last_bit(make_plan, make_dataset, model, room):
    plan = make_plan(private=True, model=model, privacy=PATIENTS, batch=32)
    data = make_dataset(images_of=[1, 4, 2, 4, 3, 4, 1, 4, 4, 2, 3, 1, 1])
    with bench_for(plan, initial_weights(plan)) as built:
        bench = replace(built, room=room)
        whole = summed(bench, data, plan)
        assert torch.equal(whole, sum(summed(bench, data, plan, [unit]) for unit in range(13)))
        assert whole.any()


def test_a_patient_with_a_broken_image_changes_nobody_elses_gradient(make_plan, make_dataset, monkeypatch):
    """Its place counts as nothing; the others' sums are computed in the same shape as if it were sound."""
    plan, data = make_plan(private=True, model=GATED, privacy=PATIENTS, batch=32), make_dataset(9)
    with bench_for(plan, initial_weights(plan)) as bench:
        others = summed(bench, data, plan, range(1, 9))
        real = dpsgd._losses

        def broken(bench, data, plan, chunk):
            losses = real(bench, data, plan, chunk)
            return losses * torch.where(torch.from_numpy(chunk.rows) == units_of(data, plan).rows_of(0)[0], float("inf"), 1.0)

        monkeypatch.setattr(dpsgd, "_losses", broken)
        assert torch.equal(summed(bench, data, plan), others)


def test_how_many_places_there_are_follows_from_plan_and_machine(make_plan, make_dataset):
    data = make_dataset(images_of=[1, 2, 4, 9])
    for batch, kept, room, images, expected in (
        (64, 4, Room(images=64, units=16), 4, 8),
        (64, 1, Room(images=64, units=16), 1, 16),
        (64, 4, Room(images=16, units=16), 4, 4),
        (64, 4, Room(images=4, units=16), 4, 1),
        (64, 4, Room(images=64, units=3), 1, 2),
        (2, 4, Room(images=64, units=16), 1, 2),
        (64, 16, Room(images=64, units=16), 9, 2),
    ):
        plan = make_plan(private=True, privacy=replace(PATIENTS, images_per_patient=kept), batch=batch)
        with bench_for(plan, initial_weights(plan)) as bench:
            rows, bench = np.arange(images), replace(bench, room=room)
            assert company.places_for(bench, data, plan, rows, lambda d, c: dpsgd._together(bench, plan, d, c)) == expected  # noqa: B023
            assert company.places_for(replace(bench, by_unit=None), data, plan, rows, None) == 1


def test_where_places_differ_fewer_units_go_together_and_at_last_each_alone(make_plan, make_dataset):
    """A library that rounds by place: it is found out before anything is summed."""
    plan, data = make_plan(private=True, privacy=PATIENTS, batch=64), make_dataset(4)
    for good, expected in ((16, 8), (7, 4), (2, 2), (1, 1)):
        with bench_for(plan, initial_weights(plan)) as bench:
            bench.by_unit.alike.clear()

            def uneven(data, chunk, bench=bench, good=good):
                found = dpsgd._together(bench, plan, data, chunk)
                for gradient in found:
                    if isinstance(gradient, Kept):
                        gradient.values[good:] *= 1 + 2**-20
                return found

            bench = replace(bench, room=Room(images=64, units=8))
            assert company.places_for(bench, data, plan, np.arange(1), uneven) == expected
            bench.by_unit.alike.clear()


def test_trying_the_places_leaves_the_model_its_dropout_and_all_random_states_alone(make_plan, make_dataset):
    plan, data = make_plan(private=True, model=replace(GATED, dropout=0.5), privacy=PATIENTS, batch=64), make_dataset(4)
    with bench_for(plan, initial_weights(plan)) as bench:
        bench.model.module.train()
        bench.by_unit.alike.clear()
        before = read_weights(bench.model.module).values.copy(), bench.model.module.dropout.rng.bit_generator.state, torch.get_rng_state()
        assert company.places_for(bench, data, plan, np.arange(1), lambda d, c: dpsgd._together(bench, plan, d, c)) == 8
        assert np.array_equal(read_weights(bench.model.module).values, before[0])
        assert bench.model.module.dropout.rng.bit_generator.state == before[1]
        assert torch.equal(torch.get_rng_state(), before[2])
        assert bench.model.module.dropout.training


def test_weights_of_zero_do_not_hide_that_places_differ(make_plan, make_dataset):
    plan, data = make_plan(private=True, privacy=PATIENTS, batch=64), make_dataset(4)
    start = initial_weights(plan)
    with bench_for(plan, Weights(layout=start.layout, values=start.values * 0)) as bench:
        bench.by_unit.alike.clear()

        def uneven(data, chunk):
            found = dpsgd._together(bench, plan, data, chunk)
            for gradient in found:
                if isinstance(gradient, Kept):
                    gradient.values[1:] *= 1 + 2**-20
            return found

        assert company.places_for(bench, data, plan, np.arange(1), uneven) == 1
        bench.by_unit.alike.clear()


# What is counted


def test_a_prediction_is_its_patients_own(attacked):
    plan, data = attacked(67)
    weights = gates(initial_weights(plan), 0, head=1.0)
    units = units_of(data, plan)
    together = predict_apart(weights, data, plan, units)
    for unit in (0, 2, 66):
        rows = units.rows_of(unit)
        mine = data.subset(rows)
        assert np.array_equal(together[rows], predict_apart(weights, mine, plan, units_of(mine, plan)))
    assert together.shape == predict(weights, data, plan).shape


def test_patients_of_many_images_are_predicted_in_the_datas_order(make_plan, make_dataset):
    plan, data = make_plan(private=True, privacy=PATIENTS), make_dataset(images_of=[3, 1, 5, 2])
    weights = initial_weights(plan)
    assert np.allclose(predict_apart(weights, data, plan, units_of(data, plan)), predict(weights, data, plan), atol=1e-6)


def test_one_patient_more_or_less_moves_the_counts_by_what_is_charged(attacked):
    plan, data = attacked(66)
    plan = replace(plan, evaluation=EvaluationSpec(epsilon=1.0, every=plan.training.rounds))
    steps = counting.evaluation.form(plan).steps
    for seed in range(6):
        weights = gates(initial_weights(plan), seed, head=1.0)
        whole, less = (counting.judged(weights, data.subset(np.arange(first, 66)), plan) for first in (0, 1))
        assert np.linalg.norm((whole - less) / steps) <= 1 + 1e-9


# The bound, at its ends


@pytest.mark.parametrize("log_scale", [-30, 0, 15, 17.9, 19, 25, 37])
def test_a_dense_layers_gradient_is_clipped_however_long_its_factors_are(log_scale):
    lattice, rng = Lattice(clip_norm=1.0, fineness=16), np.random.default_rng(0)
    slopes, inputs = (torch.from_numpy((rng.normal(size=(1, 3, n)) * 10.0**log_scale).astype(np.float32)) for n in (40, 60))
    total = torch.zeros(40, 60, dtype=torch.int64)
    add_clipped([total], [Product(slopes, inputs)], lattice, torch.ones(1, dtype=torch.bool))
    assert total.double().norm() <= 2**16
    if log_scale == 0:
        assert total.double().norm() > 0.99 * 2**16 * ROOM_FOR_ROUNDING

# SPDX-License-Identifier: Apache-2.0
"""Training on top of what was trained elsewhere, large batches in parts, and half the bits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from client.training import LocalWork, device, train_locally
from client.training.by_unit import UnitHooks
from common.models import build, initial_weights, pretrained
from common.plan import InputSpec, PrivacySpec
from common.plan.consistency import broken_rules
from tests.common.models.pretrained_files import made_backbone

WORK = LocalWork(steps=3, noise_multiplier=None, order_seed=b"order")


@pytest.mark.parametrize("stages", [0, 1])
@pytest.mark.parametrize("group", [False, True])
def test_together_gives_what_one_backward_for_each_unit_gives(tmp_path, stages, group):
    pretrained.look_in(tmp_path)
    spec = made_backbone(tmp_path, "resnet50" if group else "resnet18", width=4, group=group, trained_stages=stages)
    model = build(spec, InputSpec(modality="any", height=64, width=64, channels=1), 3).double()
    x = torch.randn(6, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.linspace(-1, 2, 6, dtype=torch.float64)
    expected = [
        torch.stack(each)
        for each in zip(
            *(
                torch.autograd.grad((model(x[i : i + 2]).sum(dim=1) * weights[i : i + 2]).sum(), list(model.parameters()))
                for i in (0, 2, 4)
            ),
            strict=True,
        )
    ]
    ours = UnitHooks(model).gradients(lambda: model(x).sum(dim=1) * weights, 3)
    for gradient, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient.whole(), theirs, rtol=1e-7, atol=1e-9)


def test_a_large_batch_in_parts_has_the_gradient_of_the_whole(make_dataset, make_plan, monkeypatch):
    data, plan = make_dataset(images_of=[5, 1, 2, 7, 3, 3]), make_plan(batch=21)
    start = initial_weights(plan)
    whole = train_locally(start, data, plan, WORK).values
    pixels = plan.input.height * plan.input.width
    monkeypatch.setattr(device, "_chosen", replace(device.PROCESSOR, free_bytes=6 * pixels * device.BYTES_A_PIXEL))
    np.testing.assert_allclose(train_locally(start, data, plan, WORK).values, whole, rtol=1e-4, atol=1e-6)


def test_a_patient_is_never_in_two_parts(make_dataset):
    from client.training.batches import in_parts

    data, rng = make_dataset(images_of=[5, 1, 2, 7, 3, 3]), np.random.default_rng(0)
    for most in range(1, 25):
        rows = rng.permutation(21)[:17]
        parts = in_parts(rows, data.patients, most)
        assert sorted(np.concatenate(parts)) == sorted(rows)
        patients = [set(data.patients[part]) for part in parts]
        if len(parts) > 1:
            assert sum(map(len, patients)) == len(set().union(*patients))
        assert all(len(part) <= most or len(whose) == 1 for part, whose in zip(parts, patients, strict=True))


def test_half_the_bits_train_nearly_alike_and_leave_float32(make_dataset, make_plan):
    data, plan = make_dataset(24), make_plan()
    start = initial_weights(plan)
    fine = train_locally(start, data, plan, WORK).values
    coarse = train_locally(start, data, replace(plan, training=replace(plan.training, precision="bfloat16")), WORK).values
    assert coarse.dtype == np.float32
    assert (coarse != fine).any()
    assert np.linalg.norm(coarse - fine) < 0.25 * np.linalg.norm(fine)


def test_private_training_in_half_the_bits_is_refused(make_plan):
    plan = make_plan()
    private = PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=1.0)
    coarse = replace(plan, privacy=private, training=replace(plan.training, precision="bfloat16"))
    assert [rule.where for rule in broken_rules(coarse)] == [("training", "precision")]


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_weight_decay_pulls_every_weight_towards_nothing(make_dataset, make_plan, optimiser):
    data, plan = make_dataset(24), make_plan(optimiser=optimiser, learning_rate=0.01, local_steps=20)
    decayed = replace(plan, training=replace(plan.training, weight_decay=1.0))
    start, work = initial_weights(plan), replace(WORK, steps=20)
    lengths = [np.linalg.norm(start.values + train_locally(start, data, each, work).values) for each in (plan, decayed)]
    assert lengths[1] < 0.95 * lengths[0]


def test_one_weight_for_each_class(make_plan):
    plan = make_plan()
    for weights, broken in (((1.0, 2.0), False), ((1.0,), True), ((), False)):
        found = [rule.where for rule in broken_rules(replace(plan, task=replace(plan.task, weights=weights)))]
        assert (("task", "weights") in found) is broken

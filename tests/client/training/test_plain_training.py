# SPDX-License-Identifier: Apache-2.0
"""Plain training against an obvious loop in plain PyTorch, and what it must not touch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from client.training import LocalWork, predict, train_locally
from client.training.batches import images, labels, shuffled
from client.training.optimiser import optimiser_of
from common.errors import ModelLayout, PrivacyError
from common.models import build, initial_weights, read_weights, write_weights
from common.plan import CnnSpec, ResNetSpec, TrainingSpec
from common.plan.schedule import factor
from common.tasks import task_of
from common.update import Weights


def work(steps=3, seed=b"order"):
    return LocalWork(steps=steps, noise_multiplier=None, order_seed=seed)


def obvious_training(plan, data, steps, seed):
    """torch.optim, one tensor at a time, NCHW: nothing that the real loop does to be quick."""
    task = task_of(plan)
    model = build(plan.model, plan.input, task.outputs)
    write_weights(model, initial_weights(plan))
    optimiser = torch.optim.SGD(model.parameters(), lr=plan.training.learning_rate, momentum=plan.training.momentum)
    for rows in shuffled(len(data), batch=plan.training.batch, steps=steps, seed=seed):
        x = (torch.tensor(data.images[rows].astype(np.float32)) / 65535 - plan.input.mean) / plan.input.std
        optimiser.zero_grad()
        task.loss(model(x), torch.tensor(data.labels[rows])).mean().backward()
        optimiser.step()
    return read_weights(model).values


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("model", [CnnSpec(family="cnn", widths=(8, 8), hidden=8), ResNetSpec(family="resnet", widths=(8, 16))])
def test_training_is_the_obvious_loop(make_plan, make_dataset, classes, model):
    plan = make_plan(classes=classes, model=model, channels=3, momentum=0.5)
    data, start = make_dataset(classes=classes, channels=3), initial_weights(plan)
    delta = train_locally(start, data, plan, work(steps=5))
    np.testing.assert_allclose(start.values + delta.values, obvious_training(plan, data, 5, b"order"), atol=2e-5)


def test_training_learns_what_is_there_to_learn(make_plan, make_dataset):
    plan, data = make_plan(), make_dataset(64)
    start = initial_weights(plan)
    delta = train_locally(start, data, plan, work(steps=60))
    trained = Weights(layout=start.layout, values=start.values + delta.values)
    right = (predict(trained, data, plan).argmax(axis=1) == data.labels).mean()
    assert right > 0.95 > (predict(start, data, plan).argmax(axis=1) == data.labels).mean()


def test_the_same_work_gives_the_same_bits_whatever_was_trained_before(make_plan, make_dataset):
    plan, start = make_plan(model=CnnSpec(family="cnn", widths=(8,), hidden=8, dropout=0.5), momentum=0.9), None
    start = initial_weights(plan)
    first = train_locally(start, make_dataset(), plan, work())
    train_locally(start, make_dataset(seed=9), plan, work(seed=b"another"))
    again = train_locally(start, make_dataset(), plan, work())
    assert np.array_equal(first.values, again.values)
    assert not np.array_equal(first.values, train_locally(start, make_dataset(), plan, work(seed=b"another")).values)


def test_training_leaves_the_global_random_state_alone(make_plan, make_dataset):
    plan = make_plan(model=CnnSpec(family="cnn", widths=(8,), hidden=8, dropout=0.5))
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    train_locally(initial_weights(plan), make_dataset(), plan, work())
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_training_does_not_change_the_weights_it_was_given(make_plan, make_dataset):
    plan = make_plan()
    start = initial_weights(plan)
    before = start.values.copy()
    train_locally(start, make_dataset(), plan, work())
    assert np.array_equal(before, start.values)


def test_weights_from_the_wire_may_be_read_only(make_plan, make_dataset):
    plan = make_plan()
    start = initial_weights(plan)
    frozen = Weights(layout=start.layout, values=np.frombuffer(start.values.tobytes(), dtype="<f4"))
    assert np.array_equal(
        train_locally(frozen, make_dataset(), plan, work()).values, train_locally(start, make_dataset(), plan, work()).values
    )


def test_another_plans_weights_are_refused(make_plan, make_dataset):
    other = initial_weights(make_plan(model=CnnSpec(family="cnn", widths=(4,), hidden=4)))
    with pytest.raises(ModelLayout, match="another layout"):
        train_locally(other, make_dataset(), make_plan(), work())


def test_noise_without_a_private_plan_is_refused_and_so_is_the_reverse(make_plan, make_dataset):
    noisy = LocalWork(steps=1, noise_multiplier=1.0, order_seed=b"")
    with pytest.raises(PrivacyError, match="nothing was trained"):
        train_locally(initial_weights(make_plan()), make_dataset(), make_plan(), noisy)
    with pytest.raises(PrivacyError, match="nothing was trained"):
        train_locally(initial_weights(make_plan()), make_dataset(), make_plan(private=True), work())


def test_a_pass_shows_every_record_once_and_the_next_pass_in_another_order():
    rows = list(shuffled(10, batch=4, steps=6, seed=b"x"))
    assert [len(batch) for batch in rows] == [4, 4, 2, 4, 4, 2]
    first, second = np.concatenate(rows[:3]), np.concatenate(rows[3:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert not np.array_equal(first, second)


def test_images_are_normalised_and_stand_in_channels_last_memory(make_plan, make_dataset):
    data, plan = make_dataset(channels=3), make_plan(channels=3)
    rows = np.array([5, 0, 5])
    x = images(data, rows, plan.input)
    np.testing.assert_allclose(x.numpy(), (data.images[rows] / 65535 - 0.5) / 0.5, atol=1e-6)
    assert x.dtype == torch.float32
    assert x.stride() == (3 * 16 * 16, 1, 3 * 16, 3)
    assert labels(data, rows).tolist() == data.labels[rows].tolist()


@pytest.mark.parametrize(
    ("spec", "theirs"),
    [
        ({"momentum": 0.9, "weight_decay": 0.01}, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01)),
        ({}, lambda p: torch.optim.SGD(p, lr=0.1)),
        ({"optimiser": "adam", "weight_decay": 0.01}, lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.01)),
    ],
)
def test_our_optimisers_are_torchs(spec, theirs):
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(50, generator=generator, dtype=torch.float64)
    parameter = nn.Parameter(ours.clone())
    optimiser, reference = optimiser_of(TrainingSpec(rounds=1, batch=1, learning_rate=0.1, **spec)), theirs([parameter])
    for _ in range(7):
        gradient = torch.randn(50, generator=generator, dtype=torch.float64)
        parameter.grad = gradient.clone()
        reference.step()
        optimiser.step(ours, gradient)
    torch.testing.assert_close(ours, parameter.detach(), rtol=1e-12, atol=1e-12)


def test_an_optimiser_does_not_change_the_gradient_it_was_given():
    gradient = torch.ones(3)
    optimiser = optimiser_of(TrainingSpec(rounds=1, batch=1, learning_rate=0.1, momentum=0.9, weight_decay=0.1))
    optimiser.step(torch.ones(3), gradient)
    optimiser.step(torch.ones(3), gradient)
    assert torch.equal(gradient, torch.ones(3))


@pytest.mark.parametrize("number", [1, 4, 9])
def test_a_round_of_a_schedule_is_a_round_at_its_own_learning_rate(make_plan, make_dataset, number):
    plan, data = make_plan(momentum=0.5), make_dataset()
    training = replace(plan.training, rounds=10, schedule="cosine", warmup_rounds=2)
    start = initial_weights(plan)
    along = train_locally(start, data, replace(plan, training=training), replace(work(), round=number))
    by_hand = replace(plan.training, learning_rate=plan.training.learning_rate * factor(training, number))
    np.testing.assert_array_equal(along.values, train_locally(start, data, replace(plan, training=by_hand), work()).values)

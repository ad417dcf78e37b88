# SPDX-License-Identifier: Apache-2.0
"""What carries the privacy claim: bounded influence, the right noise, secret randomness, a constant denominator."""

import multiprocessing
import os
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from client.training import LocalWork, SystemNoise, UnsafeSeededNoise, dpsgd, noised_sum, train_locally, units_of
from client.training.bench import bench_for
from client.training.sampler import draw, pick
from common.errors import NoPatientId, PrivacyError, TooFewPatients
from common.models import initial_weights
from common.plan import CnnSpec, PrivacySpec
from common.privacy import lattice_of, round_charge

PATIENTS = PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=1.0)
SHARED = replace(PATIENTS, noise="distributed", noise_quorum=5, colluders=1, minimum_patients=8)

DROPPING = CnnSpec(family="cnn", widths=(8,), hidden=8, dropout=0.5)


def private_work(*, noise_multiplier=1.0, steps=1, noise=None, order_seed=b"order"):
    return LocalWork(steps=steps, noise_multiplier=noise_multiplier, order_seed=order_seed, noise=noise or SystemNoise())


def with_clip(plan, clip_norm):
    return replace(plan, privacy=replace(plan.privacy, clip_norm=clip_norm))


def everyone(make_plan, **training):
    """A private plan whose batch is every one of 8 records: the draw is then certain."""
    return make_plan(private=True, batch=8, **training)


@dataclass(frozen=True)
class NobodyIsDrawn:
    """The words that choose units are all ones, above any sampling rate; the noise is as ever."""

    has_no_order = False

    def open(self):
        calls = iter([os.urandom, lambda size: b"\xff" * size])
        return lambda size: next(calls, os.urandom)(size)


# Plain training underneath


def test_without_noise_and_clipping_it_is_plain_training(make_plan, make_dataset):
    plan, data = with_clip(everyone(make_plan), 8.0), make_dataset(8)
    start = initial_weights(plan)
    private = train_locally(start, data, plan, private_work(noise_multiplier=0.0, steps=4))
    plain = train_locally(start, data, make_plan(batch=8), LocalWork(steps=4, noise_multiplier=None, order_seed=b""))
    assert np.linalg.norm(private.values - plain.values) < 0.02 * np.linalg.norm(plain.values)  # what truncation takes


def test_the_denominator_is_the_plans_batch_however_many_were_drawn(make_plan, make_dataset):
    data, start = make_dataset(8), initial_weights(make_plan())
    plan = with_clip(make_plan(private=True, batch=4), 16.0)
    entropy = UnsafeSeededNoise(b"s").open()
    entropy(32)
    drawn = pick(units_of(data, plan), draw(8, 4 / 8, entropy), 4, entropy)
    assert len(drawn) != 4
    got = train_locally(start, data, plan, private_work(noise_multiplier=0.0, noise=UnsafeSeededNoise(b"s")))
    with bench_for(plan, start) as bench:
        total = dpsgd.sum_of_clipped(bench, data, plan, drawn).numpy() * 16.0 / 2**16
    np.testing.assert_allclose(got.values, -plan.training.learning_rate * total / 4, atol=1e-6)
    assert np.abs(got.values).max() > 1e-3


# Noise


def test_the_noise_has_the_promised_standard_deviation(make_plan, make_dataset):
    plan = with_clip(make_plan(private=True, batch=8, learning_rate=0.5, model=CnnSpec(family="cnn", widths=(16,), hidden=64)), 0.7)
    start, data = initial_weights(plan), make_dataset(8)
    quiet = train_locally(start, data, plan, private_work(noise_multiplier=0.0)).values
    noise = (train_locally(start, data, plan, private_work(noise_multiplier=3.0)).values - quiet).astype(np.float64)
    expected = 0.5 * 3.0 * 0.7 / 8
    assert noise.size > 60_000
    assert noise.std() == pytest.approx(expected, rel=0.015)  # five standard errors
    assert abs(noise.mean()) < 5 * expected / np.sqrt(noise.size)
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 5 / np.sqrt(noise.size)
    assert np.mean(np.abs(noise) > 2 * expected) == pytest.approx(0.0455, rel=0.1)


def test_an_empty_draw_still_steps_with_noise(make_plan, make_dataset):
    plan = make_plan(private=True, batch=1)
    delta = train_locally(initial_weights(plan), make_dataset(24), plan, private_work(noise=NobodyIsDrawn()))
    assert np.isfinite(delta.values).all()
    assert delta.values.std() == pytest.approx(plan.training.learning_rate * plan.privacy.clip_norm, rel=0.1)


def test_a_step_leaves_the_lattice_by_a_constant_alone(make_plan, make_dataset):
    """Under fedsgd, what a site with local noise hands over is whole numbers times clip / 2^16 / batch, to the last bit of float32."""
    plan, data = everyone(make_plan, strategy="fedsgd", local_steps=1), make_dataset(8)
    steps = -train_locally(initial_weights(plan), data, plan, private_work()).values.astype(np.float64) * 8 * 2**16
    assert np.abs(steps - np.rint(steps)).max() <= np.abs(steps).max() * 2**-24
    assert np.rint(steps).std() == pytest.approx(2**16, rel=0.1)


# One global step a round


def test_fedsgd_without_privacy_is_minus_the_mean_gradient_of_one_batch(make_plan, make_dataset):
    data = make_dataset(8)
    plan = make_plan(strategy="fedsgd", local_steps=1, batch=8)
    work = LocalWork(steps=1, noise_multiplier=None, order_seed=b"")
    delta = train_locally(initial_weights(plan), data, plan, work)
    stepped = train_locally(initial_weights(plan), data, make_plan(local_steps=1, batch=8, learning_rate=1.0), work)
    np.testing.assert_allclose(delta.values, stepped.values, atol=1e-6)


def test_fedsgd_with_local_noise_is_minus_the_noised_mean_gradient(make_plan, make_dataset):
    plan, data = everyone(make_plan, strategy="fedsgd", local_steps=1), make_dataset(8)
    stepping = everyone(make_plan, local_steps=1, learning_rate=1.0)
    seeded = private_work(noise=UnsafeSeededNoise(b"x"))
    np.testing.assert_allclose(
        train_locally(initial_weights(plan), data, plan, seeded).values,
        train_locally(initial_weights(plan), data, stepping, seeded).values,
        atol=1e-6,
    )


# Shared noise


def shared(make_plan):
    return make_plan(privacy=SHARED, private=True, batch=8, strategy="fedsgd", local_steps=1)


def test_a_noised_sum_is_minus_the_clipped_sum_on_the_lattice(make_plan, make_dataset):
    plan, data = shared(make_plan), make_dataset(images_of=[1, 2, 3, 4, 1, 2, 3, 4])
    start = initial_weights(plan)
    got = noised_sum(start, data, plan, private_work(noise_multiplier=0.0)).values
    drawn = pick(units_of(data, plan), np.arange(8), 4, SystemNoise().open())
    with bench_for(plan, start) as bench:
        assert np.array_equal(got, -dpsgd.sum_of_clipped(bench, data, plan, drawn).numpy())
    assert got.dtype == np.int64
    assert np.abs(got).max() > 100


def test_the_shares_of_the_honest_sites_have_the_variance_that_is_charged(make_plan, make_dataset):
    """m - c = 4 shares together: variance (sigma 2^f)^2 within 2 %, a quarter of it each, and no two alike."""
    plan, data = shared(make_plan), make_dataset(images_of=[1, 2, 1, 2, 1, 2, 1, 2])
    start, charge = initial_weights(plan), round_charge(plan, 8)
    quiet = noised_sum(start, data, plan, private_work(noise_multiplier=0.0)).values
    share = private_work(noise_multiplier=charge.own_share.noise_multiplier)
    shares = np.array([[noised_sum(start, data, plan, share).values - quiet for _ in range(8)] for _ in range(4)])
    width = charge.outside.noise_multiplier * lattice_of(plan).clip_steps
    assert shares.sum(axis=0).std() == pytest.approx(width, rel=0.02)
    assert shares.std() == pytest.approx(width / 2, rel=0.02)
    assert np.abs(np.corrcoef(shares.reshape(32, -1)) - np.eye(32)).max() < 6 / np.sqrt(quiet.size)


def test_a_share_never_becomes_a_delta_and_a_delta_never_a_share(make_plan, make_dataset):
    data, start = make_dataset(8), initial_weights(make_plan())
    with pytest.raises(PrivacyError, match="private only inside a sum"):
        train_locally(start, data, shared(make_plan), private_work())
    with pytest.raises(PrivacyError, match="shares no noise"):
        noised_sum(start, data, everyone(make_plan), private_work())
    with pytest.raises(PrivacyError, match="nothing was trained"):
        noised_sum(start, data, shared(make_plan), private_work(noise_multiplier=None))


def test_patients_who_are_not_told_apart_are_no_units(make_plan, make_dataset):
    plan = make_plan(private=True, privacy=PATIENTS)
    for source in ("none", "image_id"):
        with pytest.raises(NoPatientId, match='unit = "record"'):
            train_locally(initial_weights(plan), replace(make_dataset(), unit_source=source), plan, private_work())


# Randomness


def test_seeded_noise_repeats_and_other_seeds_differ(make_plan, make_dataset):
    plan, data = make_plan(private=True, model=DROPPING), make_dataset()
    start = initial_weights(plan)

    def run(noise):
        return train_locally(start, data, plan, private_work(steps=3, noise=noise)).values

    assert np.array_equal(run(UnsafeSeededNoise(b"north, round 1")), run(UnsafeSeededNoise(b"north, round 1")))
    assert not np.array_equal(run(UnsafeSeededNoise(b"north, round 1")), run(UnsafeSeededNoise(b"north, round 2")))
    assert not np.array_equal(run(UnsafeSeededNoise(b"north, round 1")), run(UnsafeSeededNoise(b"south, round 1")))


def test_the_systems_noise_never_repeats(make_plan, make_dataset):
    plan, data = everyone(make_plan), make_dataset(8)
    start = initial_weights(plan)
    first, second = (train_locally(start, data, plan, private_work()).values for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.5


def _train_and_send(start, data, plan, sender):
    torch.set_num_threads(1)  # a pool of threads does not survive a fork, and waiting for it never ends
    sender.send(train_locally(start, data, plan, private_work()).values)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # forking is what is tested; from 3.12 Python advises against it
def test_two_forked_workers_never_share_a_stream(make_plan, make_dataset):
    plan, data = everyone(make_plan), make_dataset(8)
    start = initial_weights(plan)
    train_locally(start, data, plan, private_work())  # whatever could be inherited is there before the fork
    context, deltas = multiprocessing.get_context("fork"), []
    for _ in range(2):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_train_and_send, args=(start, data, plan, sender))
        process.start()
        assert receiver.poll(60), "the forked worker did not answer"
        deltas.append(receiver.recv())
        process.join()
    signal = train_locally(start, data, plan, private_work(noise_multiplier=0.0)).values
    assert abs(np.corrcoef(deltas[0] - signal, deltas[1] - signal)[0, 1]) < 0.2


def test_private_training_takes_nothing_from_the_public_order_seed(make_plan, make_dataset):
    """With dropout masks known beforehand, one record's removal would shift the masks of all behind it."""
    plan, data = make_plan(private=True, model=DROPPING), make_dataset()
    start = initial_weights(plan)

    def run(order_seed, noise):
        work = private_work(noise_multiplier=0.0, steps=2, noise=UnsafeSeededNoise(noise), order_seed=order_seed)
        return train_locally(start, data, plan, work).values

    assert np.array_equal(run(b"one", b"noise"), run(b"two", b"noise"))
    assert not np.array_equal(run(b"one", b"noise"), run(b"one", b"other"))


def test_private_training_leaves_the_global_random_state_alone(make_plan, make_dataset):
    plan = make_plan(private=True, model=DROPPING)
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    train_locally(initial_weights(plan), make_dataset(), plan, private_work(steps=2))
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_a_batch_beyond_the_public_count_is_refused(make_plan, make_dataset):
    plan = make_plan(private=True, batch=9)
    with pytest.raises(TooFewPatients, match="8 training units"):
        train_locally(initial_weights(plan), make_dataset(9), plan, private_work())


# One bench for many rounds


def test_many_rounds_hang_no_second_hook_and_keep_no_gradient(make_plan, make_dataset):
    plan, data = make_plan(private=True), make_dataset()
    start = initial_weights(plan)

    def state():
        with bench_for(plan, start) as bench:
            modules = list(bench.model.module.modules())
            hooks = sum(len(module._forward_hooks) + len(module._backward_hooks) for module in modules)
            return id(bench.model.module), hooks, sum(len(getattr(module, "activations", [])) for module in modules)

    train_locally(start, data, plan, private_work())
    once = state()
    for _ in range(5):
        train_locally(start, data, plan, private_work(steps=2))
    assert state() == once
    assert once[1] > 0
    assert once[2] == 0

# SPDX-License-Identifier: Apache-2.0
"""What carries the privacy claim: bounded influence, the right noise, secret randomness, a constant denominator."""

import multiprocessing
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.training import LocalWork, SystemNoise, UnsafeSeededNoise, dpsgd, train_locally
from client.training.bench import bench_for
from client.training.clipping import clipped_sum
from client.training.sampler import draw
from common.errors import TooFewPatients
from common.models import initial_weights
from common.plan import CnnSpec, ResNetSpec

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
    """All bits set: no word is below the sampling rate."""

    def open(self):
        return lambda size: b"\xff" * size


# Influence


@pytest.mark.parametrize("model", [CnnSpec(family="cnn", widths=(8, 8), hidden=8), ResNetSpec(family="resnet", widths=(8,))])
@pytest.mark.parametrize("clip_norm", [0.05, 1.0, 1e4])
def test_taking_any_record_away_moves_the_sum_by_at_most_the_clip_norm(make_plan, make_dataset, model, clip_norm):
    plan, data = with_clip(make_plan(private=True, model=model), clip_norm), make_dataset(12)
    everybody = np.arange(12)
    with bench_for(plan, initial_weights(plan)) as bench:
        whole = dpsgd.sum_of_clipped(bench, data, plan, everybody)
        moved = [torch.linalg.norm(whole - dpsgd.sum_of_clipped(bench, data, plan, np.delete(everybody, i))).item() for i in everybody]
    assert max(moved) <= clip_norm
    if clip_norm < 1:
        assert max(moved) > 0.99 * clip_norm  # and the bound is reached, so the test sees clipping at work


@given(
    seed=st.integers(0, 2**32 - 1),
    units=st.integers(1, 6),
    log_scale=st.floats(-30, 18),
    clip_norm=st.floats(1e-3, 1e3),
)
def test_clipping_bounds_every_unit_at_every_scale(seed, units, log_scale, clip_norm):
    rng = np.random.default_rng(seed)
    parts = [torch.from_numpy((rng.normal(size=(units, *shape)) * 10**log_scale).astype(np.float32)) for shape in ((3, 2), (5,))]
    for unit in range(units):
        alone = clipped_sum([part[unit : unit + 1] for part in parts], clip_norm)
        assert torch.linalg.norm(alone.double()) <= clip_norm
        assert alone.isfinite().all()


def test_a_gradient_within_the_clip_norm_is_summed_as_it_is():
    parts = [torch.tensor([[3.0], [30.0]]), torch.tensor([[4.0], [40.0]])]
    torch.testing.assert_close(clipped_sum(parts, 10.0), torch.tensor([3.0 + 6.0, 4.0 + 8.0]), rtol=1.1e-3, atol=0)
    torch.testing.assert_close(clipped_sum([part[:1] for part in parts], 10.0), torch.tensor([3.0, 4.0]), rtol=0, atol=0)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_image_counts_as_nothing(poison):
    healthy = [torch.tensor([[0.1, 0.2], [0.3, 0.1]]), torch.tensor([[0.5], [0.6]])]
    broken = [torch.cat([healthy[0], torch.tensor([[poison, 0.0]])]), torch.cat([healthy[1], torch.tensor([[1.0]])])]
    assert torch.equal(clipped_sum(broken, 1.0), clipped_sum(healthy, 1.0))


def test_chunks_change_nothing_but_rounding(make_plan, make_dataset, monkeypatch):
    plan, data = make_plan(private=True), make_dataset(24)
    sums = []
    for at_once in (24, 5, 1):
        monkeypatch.setattr(dpsgd, "CHUNK_RECORDS", at_once)
        with bench_for(plan, initial_weights(plan)) as bench:
            sums.append(dpsgd.sum_of_clipped(bench, data, plan, np.arange(24)))
    torch.testing.assert_close(sums[0], sums[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(sums[0], sums[2], rtol=0, atol=1e-5)


def test_without_noise_and_clipping_it_is_plain_training(make_plan, make_dataset):
    plan, data = with_clip(everyone(make_plan), 1e9), make_dataset(8)
    start = initial_weights(plan)
    private = train_locally(start, data, plan, private_work(noise_multiplier=0.0, steps=4))
    plain = train_locally(start, data, make_plan(batch=8), LocalWork(steps=4, noise_multiplier=None, order_seed=b""))
    np.testing.assert_allclose(private.values, plain.values, atol=1e-5)
    assert np.abs(plain.values).max() > 1e-2


def test_the_denominator_is_the_plans_batch_however_many_were_drawn(make_plan, make_dataset):
    data, start = make_dataset(8), initial_weights(make_plan())
    plan = with_clip(make_plan(private=True, batch=4), 1e9)
    half_of_everyone = train_locally(start, data, with_clip(everyone(make_plan), 1e9), private_work(noise_multiplier=0.0))
    entropy = UnsafeSeededNoise(b"s").open()
    entropy(32), entropy(32)
    drawn = draw(8, 4 / 8, entropy)
    assert len(drawn) != 4
    got = train_locally(start, data, plan, private_work(noise_multiplier=0.0, noise=UnsafeSeededNoise(b"s")))
    with bench_for(plan, start) as bench:
        expected = -plan.training.learning_rate * dpsgd.sum_of_clipped(bench, data, plan, drawn).numpy() / 4
    np.testing.assert_allclose(got.values, expected, atol=1e-6)
    assert not np.allclose(got.values, half_of_everyone.values, atol=1e-4)


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
    assert delta.values.std() == pytest.approx(plan.training.learning_rate * plan.privacy.clip_norm, rel=0.2)


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


# Sampling


def test_each_unit_is_drawn_at_the_rate_and_independently():
    draws = np.zeros((2000, 50), dtype=bool)
    for drawn in draws:
        drawn[draw(50, 0.3, SystemNoise().open())] = True
    assert draws.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / draws.size))
    assert np.abs(draws.mean(axis=0) - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 2000)
    sizes = draws.sum(axis=1)
    assert sizes.var() == pytest.approx(50 * 0.3 * 0.7, rel=0.2)  # binomial: batches are not of a fixed size
    assert np.abs(np.corrcoef(draws.T) - np.eye(50)).max() < 6 / np.sqrt(2000)


def test_the_rate_is_never_exceeded_by_rounding():
    at_threshold, below = (1 << 62).to_bytes(8, "little"), ((1 << 62) - 1).to_bytes(8, "little")
    assert draw(2, 0.25, lambda _: at_threshold + below).tolist() == [1]
    assert draw(3, 1.0, lambda _: b"").tolist() == [0, 1, 2]
    assert draw(3, 1e-30, lambda size: bytes(size)).tolist() == []


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

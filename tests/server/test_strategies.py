# SPDX-License-Identifier: Apache-2.0
"""Strategies are arithmetic that can be done by hand."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import CohortTooSmall
from common.plan import TrainingSpec, at_round
from common.plan.schedule import factor
from common.update import AggregateDelta, ReleasedDelta
from server.mean import RunningMean, mean_of
from server.strategies import strategy_of
from server.strategies.fedavg import FedAvg
from server.strategies.fedavgm import FedAvgM
from server.strategies.fedsgd import FedSgd


def vector(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_fedavg_adds_the_mean_delta() -> None:
    state = FedAvg().init(vector(1, 2))
    state = FedAvg().apply(state, AggregateDelta(values=vector(0.5, -1), num_sites=3))
    np.testing.assert_array_equal(state.weights, vector(1.5, 1))


def test_fedavgm_remembers_the_last_round() -> None:
    strategy = FedAvgM(learning_rate=2.0, momentum=0.5)
    state = strategy.init(vector(0))
    for expected in (2.0, 5.0, 8.5):  # velocities 1, 1.5, 1.75
        state = strategy.apply(state, AggregateDelta(values=vector(1), num_sites=2))
        assert state.weights[0] == expected


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=8))
def test_fedavgm_without_momentum_is_fedavg(deltas: list[float]) -> None:
    plain, momentum = FedAvg(), FedAvgM(learning_rate=1.0, momentum=0.0)
    one, other = plain.init(vector(0)), momentum.init(vector(0))
    for delta in deltas:
        aggregate = AggregateDelta(values=vector(delta), num_sites=1)
        one, other = plain.apply(one, aggregate), momentum.apply(other, aggregate)
    np.testing.assert_array_equal(one.weights, other.weights)


def fedsgd(**changes: object) -> FedSgd:
    return FedSgd(spec=TrainingSpec(strategy="fedsgd", rounds=40, local_steps=1, batch=1, **{"learning_rate": 0.1, **changes}))


def rounds_of(strategy: FedSgd, weights: np.ndarray, gradients: np.ndarray) -> list[np.ndarray]:
    states = [strategy.init(weights)]
    for gradient in gradients:
        states.append(strategy.apply(states[-1], AggregateDelta(values=-gradient, num_sites=2)))
    return [state.weights for state in states]


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.01)])
def test_fedsgd_is_sgd_on_the_cohorts_gradient(momentum: float, weight_decay: float) -> None:
    rng = np.random.default_rng(2)
    start, gradients = rng.normal(size=5).astype(np.float32), rng.normal(size=(40, 5)).astype(np.float32)
    weights = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.SGD([weights], lr=0.1, momentum=momentum)
    for gradient in gradients:
        decay = 0.1 * weight_decay * weights.detach().clone()
        weights.grad = torch.from_numpy(gradient.copy())
        optimiser.step()
        weights.data -= decay
    ours = rounds_of(fedsgd(momentum=momentum, weight_decay=weight_decay), start, gradients)
    np.testing.assert_allclose(ours[-1], weights.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_fedsgd_with_adam_is_adamw_on_the_cohorts_gradient() -> None:
    rng = np.random.default_rng(3)
    start, gradients = rng.normal(size=5).astype(np.float32), rng.normal(size=(40, 5)).astype(np.float32)
    weights = torch.tensor(start, requires_grad=True)
    optimiser = torch.optim.AdamW([weights], lr=0.1, weight_decay=0.02)
    for gradient in gradients:
        weights.grad = torch.from_numpy(gradient.copy())
        optimiser.step()
    ours = rounds_of(fedsgd(optimiser="adam", weight_decay=0.02), start, gradients)
    np.testing.assert_allclose(ours[-1], weights.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_order_of_arrival_does_not_change_a_bit() -> None:
    rng = np.random.default_rng(0)
    updates = {f"site_{i}": ReleasedDelta(values=rng.normal(size=64).astype(np.float32) * 10.0**i) for i in range(4)}
    means = {mean_of(dict(order)).values.tobytes() for order in itertools.permutations(updates.items())}
    assert len(means) == 1


def test_the_mean_is_the_mean() -> None:
    rng = np.random.default_rng(1)
    deltas = rng.normal(size=(7, 33)).astype(np.float32)
    mean = mean_of({str(i): ReleasedDelta(values=delta) for i, delta in enumerate(deltas)})
    assert mean.num_sites == 7
    np.testing.assert_allclose(mean.values, deltas.astype(np.float64).mean(axis=0), atol=1e-7)


def test_nobody_has_no_mean() -> None:
    with pytest.raises(CohortTooSmall):
        mean_of({})


def test_a_running_mean_waits_for_nobody_who_is_missing() -> None:
    updates = {name: ReleasedDelta(values=vector(value)) for name, value in (("a", 1.0), ("c", 4.0))}
    mean = RunningMean(["a", "b", "c"])
    mean.add("c", updates["c"])
    mean.add("b", None)
    mean.add("a", updates["a"])
    assert mean.finish().values.tobytes() == mean_of(updates).values.tobytes()
    late = RunningMean(["a", "b", "c"])  # b is silent until the deadline
    late.add("c", updates["c"])
    late.add("a", updates["a"])
    assert late.finish().num_sites == 2


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_steps_along_a_schedule_are_those_of_torch(optimiser: str) -> None:
    """The coordinator asks for each round's strategy; torch's scheduler changes one optimiser's learning rate in place."""
    spec = fedsgd(optimiser=optimiser, schedule="cosine", warmup_rounds=5).spec
    gradients = np.random.default_rng(0).normal(size=(spec.rounds, 7)).astype(np.float32)
    start = np.linspace(-1, 1, 7, dtype=np.float32)
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    theirs = torch.optim.SGD([parameter], lr=0.1) if optimiser == "sgd" else torch.optim.AdamW([parameter], lr=0.1, weight_decay=0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(theirs, lambda done: factor(spec, done + 1))
    state = strategy_of(spec).init(start)
    for number, gradient in enumerate(gradients, start=1):
        state = strategy_of(at_round(spec, number)).apply(state, AggregateDelta(values=-gradient, num_sites=2))
        parameter.grad = torch.from_numpy(gradient.copy())
        theirs.step()
        scheduler.step()
    np.testing.assert_allclose(state.weights, parameter.detach().numpy(), atol=2e-5)

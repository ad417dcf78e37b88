# SPDX-License-Identifier: Apache-2.0
"""What sites refuse as a jump is further than the coordinator's strategy can honestly go."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.agreement import step_limit
from common.plan import Plan, parse
from common.update import AggregateDelta, Layout, Weights
from server.strategies import strategy_of

SIZE = 3
PLAN = """
[plan]
name = "steps"
purpose = "how far a round can go"
[input]
modality = "any"
height = 16
width = 16
[task]
kind = "classification"
classes = ["a", "b"]
[model]
family = "cnn"
widths = [4]
hidden = 4
[training]
rounds = 12
local_steps = 1
batch = 1
learning_rate = 0.3
[privacy]
unit = "none"
[aggregation]
update_norm = 2.0
"""
STRATEGIES = [
    {"strategy": "fedavg"},
    {"strategy": "fedavgm", "server_momentum": 0.9, "server_learning_rate": 0.5},
    {"strategy": "fedsgd"},
    {"strategy": "fedsgd", "momentum": 0.9, "weight_decay": 0.1},
    {"strategy": "fedsgd", "optimiser": "adam"},
    {"strategy": "fedsgd", "optimiser": "adam", "weight_decay": 0.1},
]


def plan_with(training: dict[str, object]) -> Plan:
    plan = parse(PLAN)
    return dataclasses.replace(plan, training=dataclasses.replace(plan.training, **training))


def weights(values: list[float]) -> Weights:
    return Weights(layout=Layout(names=("w",), shapes=((SIZE,),)), values=np.array(values, dtype=np.float32))


updates = st.lists(st.lists(st.floats(-1, 1, width=32), min_size=SIZE, max_size=SIZE), min_size=1, max_size=12)


@pytest.mark.parametrize("training", STRATEGIES, ids=str)
@settings(max_examples=60)
@given(start=st.lists(st.floats(-5, 5, width=32), min_size=SIZE, max_size=SIZE), deltas=updates, stretch=st.floats(0.01, 1e4))
def test_no_honest_round_is_a_jump(training: dict[str, object], start: list[float], deltas: list[list[float]], stretch: float) -> None:
    plan = plan_with(training)
    strategy, initial = strategy_of(plan.training), weights(start)
    limit = step_limit(plan, plan.aggregation.update_norm, initial)
    state = strategy.init(initial.values)
    for delta in deltas:
        values = np.array(delta, dtype=np.float32) * np.float32(stretch)
        norm = float(np.linalg.norm(values))
        values = values if norm <= 2 else values * np.float32(2 / norm)
        after = strategy.apply(state, AggregateDelta(values=values, num_sites=3))
        assert np.linalg.norm(after.weights.astype(np.float64) - state.weights) <= limit * (1 + 1e-5) + 1e-5
        state = after


def test_adams_longest_step_is_reached_by_a_sudden_gradient() -> None:
    plan = plan_with({"strategy": "fedsgd", "optimiser": "adam", "rounds": 3000})
    strategy, state = strategy_of(plan.training), strategy_of(plan.training).init(np.zeros(1, dtype=np.float32))
    longest = 0.0
    for number in range(3000):
        gradient = np.array([1e-6 if number < 2990 else 1.0 * 1.1 ** (number - 2990)], dtype=np.float32)
        after = strategy.apply(state, AggregateDelta(values=-gradient, num_sites=3))
        longest = max(longest, abs(float(after.weights[0] - state.weights[0])) / 0.3)
        state = after
    assert 5 < longest < 7.3, "the limit is not far from what can happen"

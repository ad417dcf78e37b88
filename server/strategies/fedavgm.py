# SPDX-License-Identifier: Apache-2.0
"""Federated averaging with server momentum: Hsu, Qi, Brown 2019, arXiv 1909.06335, section 4.

    v_{r+1} = momentum * v_r + mean_i(delta_i)
    w_{r+1} = w_r + learning_rate * v_{r+1}

Momentum is post-processing of released updates: it costs no privacy. It evens out rounds whose cohorts differ.
"""

from dataclasses import dataclass

import numpy as np

from common.update import AggregateDelta, Vector
from server.strategies.state import StrategyState

_VELOCITY = "velocity"


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAvgM:
    """learning_rate > 0; 0 <= momentum < 1. With 1 and 0 it is FedAvg."""

    learning_rate: float
    momentum: float

    def init(self, weights: Vector) -> StrategyState:
        return StrategyState(weights=weights, memory={_VELOCITY: np.zeros_like(weights)})

    def apply(self, state: StrategyState, aggregate: AggregateDelta) -> StrategyState:
        """One momentum step; float32, (P,)."""
        velocity = np.float32(self.momentum) * state.memory[_VELOCITY] + aggregate.values
        return StrategyState(weights=state.weights + np.float32(self.learning_rate) * velocity, memory={_VELOCITY: velocity})

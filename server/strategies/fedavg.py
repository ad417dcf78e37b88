# SPDX-License-Identifier: Apache-2.0
"""Federated averaging: McMahan et al., AISTATS 2017, arXiv 1602.05629, algorithm 1, on deltas.

    w_{r+1} = w_r + mean_i(delta_i)

Sites count equally: how many patients each one has is nobody else's business, so it is not a weight.
"""

from dataclasses import dataclass

from common.update import AggregateDelta, Vector
from server.strategies.state import StrategyState


@dataclass(frozen=True, slots=True)
class FedAvg:
    """No parameters, no memory."""

    def init(self, weights: Vector) -> StrategyState:
        return StrategyState(weights=weights)

    def apply(self, state: StrategyState, aggregate: AggregateDelta) -> StrategyState:
        """Add the mean delta; float32, (P,)."""
        return StrategyState(weights=state.weights + aggregate.values)

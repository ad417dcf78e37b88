# SPDX-License-Identifier: Apache-2.0
"""From one global model to the next: a pure function of the state so far and the cohort's mean delta.

One paper, one file. A strategy is a pair, `init` and `apply`; its state is plain arrays, so that a checkpoint can hold it and, later, a
site can compute the same step for itself.
"""

from typing import Protocol

from common.plan import TrainingSpec
from common.update import AggregateDelta, Vector
from server.strategies import fedavg, fedavgm, fedsgd
from server.strategies.state import StrategyState

__all__ = ["Strategy", "StrategyState", "strategy_of"]


class Strategy(Protocol):
    """`init(weights) -> state`, `apply(state, aggregate) -> state`; both pure."""

    def init(self, weights: Vector) -> StrategyState: ...

    def apply(self, state: StrategyState, aggregate: AggregateDelta) -> StrategyState: ...


def strategy_of(spec: TrainingSpec) -> Strategy:
    """The strategy that a plan names."""
    match spec.strategy:
        case "fedavg":
            return fedavg.FedAvg()
        case "fedavgm":
            return fedavgm.FedAvgM(learning_rate=spec.server_learning_rate, momentum=spec.server_momentum)
        case "fedsgd":
            return fedsgd.FedSgd(spec=spec)

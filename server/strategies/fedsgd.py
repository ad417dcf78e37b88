# SPDX-License-Identifier: Apache-2.0
"""One global step a round: McMahan et al., AISTATS 2017, arXiv 1602.05629, section 2 (FedSGD).

A site's delta is minus the mean gradient of one batch; the cohort's mean is one large batch, and the optimiser is the coordinator's:

    sgd    v <- momentum * v + g                       w <- w - learning_rate * (v + weight_decay * w)
    adam   m <- 0.9 m + 0.1 g,  s <- 0.999 s + 0.001 g^2     w <- w - learning_rate * (m' / (sqrt(s') + 1e-8) + weight_decay * w)

with m', s' corrected for their start (Kingma and Ba 2015, arXiv 1412.6980; decoupled decay: Loshchilov and Hutter 2019, arXiv 1711.05101).
What the optimiser remembers is post-processing of released sums: it costs no privacy.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from common.plan import TrainingSpec
from common.plan.spec import ADAM_FIRST as FIRST
from common.plan.spec import ADAM_SECOND as SECOND
from common.update import AggregateDelta, Vector
from server.strategies.state import StrategyState

TINY: Final = 1e-8
_VELOCITY, _MEAN, _SQUARES, _STEPS = "velocity", "mean", "squares", "steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class FedSgd:
    """SGD with momentum, or AdamW, on the cohort's gradient."""

    spec: TrainingSpec

    def init(self, weights: Vector) -> StrategyState:
        zeros = np.zeros_like(weights)
        if self.spec.optimiser == "sgd":
            return StrategyState(weights=weights, memory={_VELOCITY: zeros})
        return StrategyState(weights=weights, memory={_MEAN: zeros, _SQUARES: zeros, _STEPS: np.zeros_like(weights[:1])})

    def apply(self, state: StrategyState, aggregate: AggregateDelta) -> StrategyState:
        """One step against the gradient; float32, (P,)."""
        gradient = -aggregate.values
        direction, memory = self._momentum(state, gradient) if self.spec.optimiser == "sgd" else _adam(state, gradient)
        decayed = direction + np.float32(self.spec.weight_decay) * state.weights
        weights: Vector = (state.weights - np.float32(self.spec.learning_rate) * decayed).astype(np.float32)
        return StrategyState(weights=weights, memory=memory)

    def _momentum(self, state: StrategyState, gradient: Vector) -> tuple[Vector, dict[str, Vector]]:
        velocity = np.float32(self.spec.momentum) * state.memory[_VELOCITY] + gradient
        return velocity, {_VELOCITY: velocity}


def _adam(state: StrategyState, gradient: Vector) -> tuple[Vector, dict[str, Vector]]:
    steps = state.memory[_STEPS] + np.float32(1)
    mean = np.float32(FIRST) * state.memory[_MEAN] + np.float32(1 - FIRST) * gradient
    squares = np.float32(SECOND) * state.memory[_SQUARES] + np.float32(1 - SECOND) * gradient * gradient
    taken = int(steps[0])
    unbiased_mean = mean / np.float32(1 - FIRST**taken)
    unbiased_squares = squares / np.float32(1 - SECOND**taken)
    direction: Vector = (unbiased_mean / (np.sqrt(unbiased_squares) + np.float32(TINY))).astype(np.float32)
    return direction, {_MEAN: mean, _SQUARES: squares, _STEPS: steps}

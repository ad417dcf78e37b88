# SPDX-License-Identifier: Apache-2.0
"""What a strategy carries from round to round: the global weights, and named vectors of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.update import Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyState:
    """Global weights (P,) float32, and memory such as a momentum, each (P,) float32. Everything that a resumed run needs."""

    weights: Vector
    memory: Mapping[str, Vector] = field(default_factory=dict)

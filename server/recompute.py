# SPDX-License-Identifier: Apache-2.0
"""A run's models once more, from its sums: what `common.audit.verify` is lent to hold the coordinator's models against.

    sums of a round's groups -> combine -> strategy -> the model that must have been committed

The same combining and the same strategies as in the rounds themselves (`server.combine`, `server.strategies`), from the plan's own first
weights. Bit for bit: a model that differs in one is another model.
"""

from collections.abc import Sequence

from common.agreement import grid_of
from common.audit.verify import Arithmetic, Make
from common.models import initial_weights
from common.plan import Plan, at_round
from common.roster import Roster
from common.secagg.unmask import AggregateSum
from common.update import Weights
from server.combine import GroupSum, combine
from server.strategies import strategy_of


def arithmetic() -> Arithmetic:
    """The plan's first weights, and its rounds."""
    return Arithmetic(initial=initial_weights, begin=_begin)


def _begin(plan: Plan, initial: Weights) -> Make:
    state, number = strategy_of(plan.training).init(initial.values), 0

    def make(roster: Roster, sums: Sequence[AggregateSum]) -> Weights:
        nonlocal state, number
        number += 1
        groups = [GroupSum(words=each.body, total_weight=each.total_weight, sites=each.survivors) for each in sums]
        state = strategy_of(at_round(plan.training, number)).apply(state, combine(groups, grid_of(plan, roster), plan.aggregation))
        return Weights(layout=initial.layout, values=state.weights)

    return make

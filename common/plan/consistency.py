# SPDX-License-Identifier: Apache-2.0
"""Values that are fine one by one and impossible together.

Each rule is one line of a table: where it points, when it is broken, what is wrong, what to do. `parse` turns a broken rule into
`PlanConflict` with the line of the file.
"""

from collections.abc import Iterator

from common.plan import model_rules, round_rules
from common.plan.rule import Rule
from common.plan.spec import Plan

RULES = (*model_rules.RULES, *round_rules.RULES)


def broken_rules(plan: Plan) -> Iterator[Rule]:
    """The rules that this plan breaks, in the order of the table."""
    return (rule for rule in RULES if rule.broken(plan))

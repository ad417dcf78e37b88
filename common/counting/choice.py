# SPDX-License-Identifier: Apache-2.0
"""Which of a run's judged models is kept, and when further rounds are not worth their epsilon.

Both are read off noised counts that are released already, so they cost no privacy; and rounds that are not trained are paid for by nobody.
Whoever has the counts comes to the same, as a coordinator does that comes back after a crash.

Noise makes the best of many evaluations look better than it is. What is kept is the model, with the figures that were measured on it; a
fresh evaluation of it would on average say a little less.
"""

from collections.abc import Mapping

from common.plan import Plan


def ranked(worths: Mapping[int, float]) -> list[int]:
    """Rounds by what their models are worth, the best first; of equals the earlier."""
    return sorted(worths, key=lambda number: (-worths[number], number))


def best(worths: Mapping[int, float]) -> int | None:
    """The round whose model is worth most; None, if nothing is known of any.

    >>> best({4: 0.71, 8: 0.80, 12: 0.80})
    8
    """
    return next(iter(ranked(worths)), None)


def in_vain(worths: Mapping[int, float]) -> int:
    """How many models were judged after the best one.

    >>> in_vain({4: 0.71, 8: 0.80, 12: 0.80}), in_vain({})
    (1, 0)
    """
    kept = best(worths)
    return 0 if kept is None else sum(number > kept for number in worths)


def is_enough(plan: Plan, worths: Mapping[int, float]) -> bool:
    """Whether the plan's patience is over."""
    patience = plan.evaluation.patience if plan.evaluation else None
    return patience is not None and in_vain(worths) >= patience


def kept(plan: Plan, worths: Mapping[int, float], *, last: int) -> int:
    """The round whose model is given out: the `last` that was trained, unless the plan says the best and something is known of one."""
    found = best(worths) if plan.evaluation and plan.evaluation.keep == "best" else None
    return last if found is None else found

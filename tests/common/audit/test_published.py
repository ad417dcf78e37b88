# SPDX-License-Identifier: Apache-2.0
"""Which models may be given out, as an auditor sees it."""

from dataclasses import replace

from common.audit.verify import _may_be_given
from common.plan import EvaluationSpec
from tests.common.counting.plans import counting_plan


def test_the_last_one_and_where_the_best_is_given_out_any_that_was_judged() -> None:
    plan = counting_plan(("rounds = 3", "rounds = 6"))
    best = replace(plan, evaluation=EvaluationSpec(every=2, epsilon=0.1, keep="best", patience=1))
    assert _may_be_given(None, 6) == {6}
    assert _may_be_given(replace(plan, evaluation=None), 6) == {6}
    assert _may_be_given(plan, 6) == {6}
    assert _may_be_given(best, 6) == {2, 4, 6}
    assert _may_be_given(best, 5) == {2, 4, 5}, "a run that ended early"

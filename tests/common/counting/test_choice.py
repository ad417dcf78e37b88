# SPDX-License-Identifier: Apache-2.0
"""Which judged model is kept, and when training ends: from what was released, and from nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.counting import choice, evaluation
from common.counting.form import Counted
from common.errors import PlanError
from common.plan import EvaluationSpec, Plan, parse, to_toml
from tests.common.counting.plans import counting_plan

WORTHS = st.dictionaries(st.integers(1, 40), st.floats(0, 1), max_size=12)


def plan_of(**more: object) -> Plan:
    return replace(counting_plan(), evaluation=EvaluationSpec(every=1, epsilon=0.1, **more))  # type: ignore[arg-type]


@given(WORTHS, st.integers(1, 40))
def test_the_best_is_never_worth_less_than_the_last_and_last_is_what_a_plan_keeps_that_does_not_say_best(
    worths: dict[int, float], last: int
) -> None:
    assert choice.kept(plan_of(), worths, last=last) == last
    kept = choice.kept(plan_of(keep="best"), worths, last=last)
    assert kept in worths or not worths
    assert all(worths[kept] >= each for each in worths.values())
    assert all(number > kept for number, each in worths.items() if each == worths[kept] and number != kept), "the first of equals"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15), st.integers(1, 4))
def test_training_ends_at_the_first_model_after_which_patience_is_over(curve: list[float], patience: int) -> None:
    plan, seen = plan_of(patience=patience), {}
    for number, worth in enumerate(curve, start=1):
        seen[number] = worth
        best = max(curve[:number])
        since = number - 1 - curve[:number].index(best)
        assert choice.is_enough(plan, seen) == (since >= patience)
        if since >= patience:
            break


def test_without_patience_nothing_ends_and_without_judgements_neither() -> None:
    assert not choice.is_enough(plan_of(), {1: 0.9, 2: 0.1, 3: 0.1})
    assert not choice.is_enough(plan_of(patience=1), {})


def test_patience_that_no_run_can_lose_is_refused() -> None:
    plan = plan_of(patience=1)
    assert parse(to_toml(plan)) == plan
    rounds = plan.training.rounds
    with pytest.raises(PlanError, match="comes after all rounds"):
        parse(to_toml(plan).replace("patience = 1", f"patience = {rounds - 1}"))


def test_what_is_compared_is_the_figure_that_is_shown() -> None:
    plan = plan_of()
    cells = len(evaluation.form(plan).cells)
    values = np.arange(1, cells + 1, dtype=np.float64) * 20
    counted = Counted(values=values, num_sites=3, noise_sd=1.0)
    shown = evaluation.figures(plan, counted).auc
    assert shown is not None
    assert evaluation.worth(plan, counted) == pytest.approx(shown.value)
    nobody = Counted(values=np.zeros(cells), num_sites=3, noise_sd=1.0)
    assert evaluation.worth(plan, nobody) is None

# SPDX-License-Identifier: Apache-2.0
"""A space says which keys may vary; its trials are plans, all different, and keep what was promised."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import DataNotFound, FedwardError, PlanConflict, PlanUnknownKey, PlanValue
from common.plan import CnnSpec, Plan
from simulations import scenario
from simulations.tuning import space
from tests.journeys.made import OPEN, PLAN, PRIVATE

SPACE = """\
[tuning]
trials = 6
[space.training]
learning_rate = { log_uniform = [0.001, 1.0] }
batch = [4, 8]
[space.model]
widths = [[4, 8], [8]]
hidden = { whole = [4, 12] }
dropout = { uniform = [0.0, 0.5] }
"""


def plan(privacy: str = PRIVATE) -> Plan:
    return scenario.parse(PLAN.format(privacy=privacy)).plan


@given(st.integers(0, 2**32), st.integers(2, 20))
@settings(max_examples=12, deadline=None)
def test_trials_are_plans_of_their_own_inside_the_space(seed: int, trials: int) -> None:
    asked = space.parse(SPACE.replace("trials = 6", f"trials = {trials}\nseed = {seed}"))
    found = space.draw(asked, plan())
    assert len(found) == trials
    assert [trial.number for trial in found] == list(range(trials))
    assert len({repr(sorted(trial.keys.items(), key=str)) for trial in found}) == trials
    for trial in found[1:]:
        training, model = trial.plan.training, trial.plan.model
        assert 0.001 <= training.learning_rate <= 1.0
        assert training.batch in (4, 8)
        assert isinstance(model, CnnSpec)
        assert model.widths in ((4, 8), (8,))
        assert 4 <= model.hidden <= 12
        assert 0 <= model.dropout <= 0.5
        assert trial.plan.privacy == plan().privacy
        assert trial.keys["training.batch"] == training.batch


def test_the_first_trial_is_the_plan_itself() -> None:
    first = space.draw(space.parse(SPACE), plan())[0]
    assert first.plan == plan()
    assert first.keys["training.learning_rate"] == plan().training.learning_rate


def test_a_space_of_lists_that_is_small_enough_is_tried_whole() -> None:
    asked = space.parse("[tuning]\ntrials = 9\n[space.training]\nbatch = [4, 8, 16]\nlearning_rate = [0.2, 0.1]\n")
    found = space.draw(asked, plan())
    assert {(trial.plan.training.batch, trial.plan.training.learning_rate) for trial in found} == {
        (batch, rate) for batch in (4, 8, 16) for rate in (0.2, 0.1)
    }
    assert len(found) == 6, "the plan itself is one of the six"


def test_the_same_seed_draws_the_same_trials_and_another_seed_others() -> None:
    one, again = (space.draw(space.parse(SPACE), plan()) for _ in range(2))
    other = space.draw(space.parse(SPACE.replace("trials = 6", "trials = 6\nseed = 1")), plan())
    assert one == again
    assert one[1:] != other[1:]


@pytest.mark.parametrize(
    "section",
    [
        "[space.privacy]\nepsilon = [1.0, 8.0]",
        '[space.privacy]\nunit = ["none"]',
        "[space.training]\nseed = [1, 2]",
        "[space.input]\nheight = [8, 16]",
        '[space.task]\nlabel_column = ["finding"]',
        "[space.evaluation]\nepsilon = [1.0]",
        "[space.aggregation]\nminimum_cohort = [1]",
    ],
)
def test_what_is_promised_asked_or_given_is_not_for_tuning(section: str) -> None:
    with pytest.raises(PlanConflict, match=r"line 2: .* is not for tuning"):
        space.parse(section)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("[space]\n", PlanConflict, "names no key"),
        ("[tuning]\ntrails = 3\n[space.training]\nbatch = [4]", PlanUnknownKey, "Did you mean 'trials'"),
        ("[space.training]\nlearning_rate = { log_uniform = [0.0, 1.0] }", PlanValue, "line 2"),
        ("[space.training]\nlearning_rate = { uniform = [1.0, 0.5] }", PlanValue, "lower end first"),
        ("[space.training]\nbatch = { whole = [4, 8.5] }", PlanValue, "lower end first"),
        ("[space.training]\nbatch = []", PlanValue, "neither a list"),
        ("[space.training]\nbatch = 4", PlanValue, "neither a list"),
    ],
)
def test_a_space_that_says_nothing_sensible_is_refused_with_its_line(text: str, kind: type[FedwardError], words: str) -> None:
    with pytest.raises(kind, match=words):
        space.parse(text)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("[space.training]\nbatch_size = [4]", PlanUnknownKey, "no such key"),
        ("[space.augmentations]\nrotate = [4]", PlanUnknownKey, "no such key"),
        ("[space.training]\nbatch = [0]", PlanValue, r"with batch 0, \[training\] batch"),
        ("[space.training]\nlocal_epochs = [2]", PlanConflict, "narrow the space"),
    ],
)
def test_a_point_that_is_no_plan_is_named(text: str, kind: type[FedwardError], words: str) -> None:
    with pytest.raises(kind, match=words):
        space.draw(space.parse(text), plan(OPEN))


def test_numbers_from_the_command_line_are_in_the_text_that_is_kept() -> None:
    asked = space.parse(SPACE)
    changed = space.with_tuning(asked, replace(asked.tuning, trials=3, folds=4))
    again: Any = space.parse(changed.text)
    assert (again.tuning, again.dimensions) == (changed.tuning, changed.dimensions)
    assert (changed.tuning.trials, changed.tuning.folds) == (3, 4)


def test_a_space_file_that_is_not_there_is_named(tmp_path: Any) -> None:
    with pytest.raises(DataNotFound, match="does not exist"):
        space.load(tmp_path / "space.toml")

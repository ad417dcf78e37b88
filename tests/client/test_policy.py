# SPDX-License-Identifier: Apache-2.0
"""A site's policy makes plans stricter or refuses them, says which line is wrong, and widens nothing."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import policy
from client.policy import Policy, admit, check_recorded, objections
from common.errors import DataNotFound, PlanSyntax, PlanUnknownKey, PlanValue, PolicyRefused
from common.plan import Plan
from common.privacy.entries import Caps
from tests.client.homes import patient_plan
from tests.journeys.made import made_scenario


def relaxed(text: str = "") -> Policy:
    return policy.parse(f"[budget]\ndelta = 1e-3\n{text}")


def test_the_template_is_the_strict_default() -> None:
    written = policy.parse(policy.TEMPLATE)
    assert written == Policy()
    assert written.budget == Caps(eps_plan=8.0, eps_total=8.0, own_share_plan=8.0, own_share_total=8.0, delta=1e-6)
    assert written.plans.releases == ("training",)
    assert written.plans.units == ("patient",)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("[budget]\neps_total = 8.0\neps_plann = 2.0", PlanUnknownKey, r"line 3.*eps_plann"),
        ("[budgets]\neps_total = 8.0", PlanUnknownKey, "budgets"),
        ("[budget]\neps_total = -1.0", PlanValue, "line 2"),
        ('[budget]\neps_total = "8"', PlanValue, "line 2"),
        ("[budget]\neps_total = inf", PlanValue, "line 2"),
        ("[budget]\n\ndelta = 0.1", PlanValue, "line 3"),
        ('[budget]\nown_share_plan = "infinite"', PlanValue, "line 2"),
        ('[plans]\nunits = ["patients"]', PlanValue, "line 2"),
        ("[plans]\nminimum_cohort = 2", PlanValue, "line 2"),
        ("[budget\n", PlanSyntax, "not valid TOML"),
    ],
)
def test_a_mistake_is_refused_with_its_line(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        policy.parse(text)


@pytest.mark.parametrize("word", ['"inf"', "inf"])
def test_no_limit_is_only_ever_an_explicit_word(word: str) -> None:
    assert policy.parse(f"[budget]\nown_share_plan = {word}").budget.own_share_plan == math.inf


def shared(plan: Plan) -> Plan:
    privacy = replace(plan.privacy, noise="distributed", minimum_patients=16, noise_quorum=4)
    return replace(plan, privacy=privacy)


@pytest.mark.parametrize(
    ("rules", "plan", "said"),
    [
        ("", made_scenario(private=False).plan, 'unit = "none"'),
        ("", made_scenario(private=True).plan, 'unit = "record"'),
        ('[plans]\nnoise = ["local"]', shared(patient_plan()), 'noise = "distributed"'),
        ('[plans]\nfamilies = ["resnet"]', patient_plan(), 'family = "cnn"'),
        ("[plans]\nminimum_cohort = 6", patient_plan(), "cohorts of 3"),
        ("", replace(patient_plan(), privacy=replace(patient_plan().privacy, delta=2e-3)), "delta = 0.002, at most 0.001"),
    ],
)
def test_what_a_plan_may_not_be(rules: str, plan: Plan, said: str) -> None:
    [found] = objections(relaxed(rules), plan, units=None)
    assert said in found
    with pytest.raises(PolicyRefused, match=plan.name):
        admit(relaxed(rules), plan, "RESERVE", units=10)


def test_delta_is_held_against_the_number_of_patients() -> None:
    """At 1/N a promise could be kept by publishing one patient of N."""
    assert objections(relaxed(), patient_plan(), units=1000) == []
    assert all(objections(relaxed(), patient_plan(), units=units) == [] for units in range(897, 1024)), "nothing tells of one patient"
    [found] = objections(relaxed(), patient_plan(), units=1024)
    assert "1/(10 N)" in found


@pytest.mark.parametrize(("use", "release"), [("EVAL", "evaluation"), ("STAT", "statistics")])
def test_releases_beside_training_are_off_until_allowed(use: policy.Use, release: str) -> None:
    with pytest.raises(PolicyRefused, match=f'kind "{release}"'):
        admit(relaxed(), patient_plan(), use, units=10)
    admit(relaxed(f'[plans]\nreleases = ["{release}"]'), patient_plan(), use, units=10)


def test_everything_in_the_way_is_said_at_once() -> None:
    with pytest.raises(PolicyRefused) as refusal:
        admit(policy.parse('[plans]\nfamilies = []\nunits = ["none"]\nminimum_cohort = 9'), patient_plan(), "STAT", units=10)
    for word in ("unit", "family", "cohorts", "delta", "statistics"):
        assert word in refusal.value.message


EPSILONS = st.floats(0.01, 100)


@given(EPSILONS, EPSILONS)
def test_a_higher_cap_than_was_signed_for_is_refused_and_a_lower_one_is_not(recorded: float, wanted: float) -> None:
    before, after = Caps(eps_total=recorded), Policy(budget=Caps(eps_total=wanted))
    if wanted > recorded:
        with pytest.raises(PolicyRefused, match="eps_total"):
            check_recorded(after, before)
    else:
        check_recorded(after, before)


@pytest.mark.parametrize("name", ["eps_plan", "eps_total", "own_share_plan", "own_share_total", "delta"])
def test_every_cap_is_looked_at(name: str) -> None:
    recorded = Caps()
    raised = Policy(budget=replace(recorded, **{name: getattr(recorded, name) * 2}))
    with pytest.raises(PolicyRefused, match=name):
        check_recorded(raised, recorded)


def test_a_simulations_policy_admits_its_plan() -> None:
    for plan in (patient_plan(), made_scenario(private=True).plan, made_scenario(private=False).plan, shared(patient_plan())):
        assert objections(policy.admitting(plan), plan, units=None) == []


def test_a_site_without_a_policy_is_told_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataNotFound, match=r"policy\.toml") as refusal:
        policy.load(tmp_path)
    assert "site policy new" in refusal.value.fix

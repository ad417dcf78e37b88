# SPDX-License-Identifier: Apache-2.0
"""What a medical director is shown before saying yes: the ledger's own numbers, this hospital's peers, what leaves, what the rules say."""

from dataclasses import replace
from pathlib import Path

import pytest

from client import policy
from client.membership import approval, forecast, reading
from client.membership.forecast import Cost, Unknown
from client.membership.reading import Reading
from common.errors import BudgetExceeded
from common.fingerprint import Fingerprint
from common.plan import EvaluationSpec, Plan
from simulations import scenario
from tests.client.homes import account, edit, patient_plan, release
from tests.client.hospitals import Hospitals, hospitals
from tests.client.members import Members, a_plan, members


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Hospitals:
    return hospitals(tmp_path_factory.mktemp("hospitals"))


def cost(home: Path, plan: Plan) -> Cost:
    found = forecast.cost_of(home, plan, policy.load(home))
    assert isinstance(found, Cost), found
    return found


def read_at(three: Hospitals, name: str = "north") -> Reading:
    found, said = approval.read_signed(three.homes[name], three.signed)
    return reading.read(three.homes[name], found, said)


def page(found: Reading) -> str:
    return "\n".join(reading.in_words(found))


# The forecast.


def test_the_forecast_is_what_the_ledger_says_when_all_rounds_are_trained(tmp_path: Path) -> None:
    """Every round and every spare one is charged for real; then the ledger's own sums are those that were shown beforehand."""
    three = hospitals(tmp_path)
    home, plan = three.homes["north"], three.plan
    told = cost(home, plan)
    assert (told.spent, told.rounds) == (0.0, None)
    last = None
    for number in range(plan.training.rounds + plan.privacy.spare_rounds):
        account(home).pay(release(number, plan))
        last = account(home).ledger().chain.last.fact
    after = last.after  # type: ignore[union-attr]
    assert told.plan == pytest.approx(after.outside, rel=1e-9)
    assert told.after == pytest.approx(after.outside_total, rel=1e-9)
    again = cost(home, plan)
    assert again.spent == pytest.approx(told.after, rel=1e-9)
    assert again.after == pytest.approx(told.after, rel=1e-9), "what the plan has spent already is not asked for twice"


def test_the_forecast_says_after_how_many_rounds_a_cap_binds(tmp_path: Path) -> None:
    three = hospitals(tmp_path)
    home, plan = three.homes["north"], replace(three.plan, training=replace(three.plan.training, rounds=20))
    edit(home / "policy.toml", "eps_plan = 8.0", "eps_plan = 5.0")
    told = cost(home, plan)
    assert told.rounds is not None
    assert 0 < told.rounds < 20
    for number in range(told.rounds):
        account(home).pay(release(number, plan))
    with pytest.raises(BudgetExceeded):
        account(home).pay(release(told.rounds, plan))


def test_before_data_are_prepared_the_reason_is_said(tmp_path: Path) -> None:
    north: Members = members(tmp_path)
    found = forecast.cost_of(north.home, patient_plan(), policy.Policy())
    assert isinstance(found, Unknown)
    assert "fedward site snapshot" in found.reason


# The page.


def test_the_page_answers_the_six_questions_in_order(three: Hospitals) -> None:
    text = page(read_at(three))
    questions = ["as asked of north", "our images", "Who else is in", "leaves the building", "costs our patients", "own rules say"]
    assert [text.index(each) for each in questions] == sorted(text.index(each) for each in questions)


def test_the_page_names_everybody_with_their_words_and_not_this_site_itself(three: Hospitals) -> None:
    company = page(read_at(three)).partition("Who else is in")[2].partition("What leaves")[0]
    for member in three.members.roster.members:
        assert (Fingerprint.of(member.public_key).words in company) == (member.site_id != "north")
    assert Fingerprint.of(three.members.coordinator.public).words in company
    assert "3 hospitals at least" in company


def test_the_page_has_the_sites_own_numbers(three: Hospitals) -> None:
    found = read_at(three)
    told = cost(three.homes["north"], three.plan)
    text = page(found)
    assert f"With the {told.units} patients prepared for training here that is epsilon {told.plan:.3f}." in text
    assert f"epsilon {told.after:.3f} of 12" in text
    assert f"{found.bytes_up / 1000:.3g} kB" in text
    assert "Nothing in policy.toml is against it." in text


def test_shared_noise_says_what_more_colluders_leave(three: Hospitals) -> None:
    shared = replace(
        three.plan,
        training=replace(three.plan.training, strategy="fedsgd", local_steps=1),
        privacy=replace(three.plan.privacy, noise="distributed", noise_quorum=3, minimum_patients=8),
    )
    told = cost(three.homes["north"], shared)
    assert told.plan_own_share > told.plan
    text = page(replace(read_at(three), plan=shared, cost=told))
    assert f"our patients are left with epsilon {told.plan_own_share:.1f}" in text
    assert "3 hospitals are in the sum and at most 1" in text


def test_a_plan_without_privacy_says_so_in_capitals(three: Hospitals) -> None:
    plain = replace(three.plan, privacy=replace(three.plan.privacy, unit="none", epsilon=None, delta=None, clip_norm=None))
    assert "NOT PRIVATE" in page(replace(read_at(three), plan=plain, cost=None))


def test_what_the_policy_leaves_out_and_forbids_is_on_the_page(three: Hospitals) -> None:
    judged = replace(three.plan, evaluation=EvaluationSpec(every=2, epsilon=1.0))
    allowed = policy.load(three.homes["north"])
    found = replace(
        read_at(three),
        plan=judged,
        declined=policy.declined(allowed, judged),
        objections=tuple(policy.objections(allowed, replace(judged, privacy=replace(judged.privacy, unit="record")), units=None)),
    )
    text = page(found)
    assert "Left out here, since policy.toml does not allow it: evaluation." in text
    assert 'AGAINST IT: unit = "record"' in text


def test_the_page_fits_a_letter_and_the_facts_fit_json(three: Hospitals) -> None:
    found = read_at(three)
    assert max(map(len, page(found).splitlines())) <= 140
    facts = reading.as_json(found)
    assert facts["others"] == ["east", "south"]
    here = facts["cost_here"]
    assert isinstance(here, dict)
    assert here["units"] == cost(three.homes["north"], three.plan).units


def test_an_unlimited_cost_is_a_word_in_json(three: Hospitals) -> None:
    told = replace(cost(three.homes["north"], three.plan), plan_own_share=float("inf"))
    here = reading.as_json(replace(read_at(three), cost=told))["cost_here"]
    assert isinstance(here, dict)
    assert here["plan_own_share"] == "inf"


def test_a_plan_of_one_image_each_is_read_so(three: Hospitals) -> None:
    text = page(replace(read_at(three), plan=a_plan()))
    assert "each single image" in text
    assert "about 8 images" in text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "cell-outlines",
            "(a network with an answer for each pixel, down and up again) learns to outline, pixel by pixel: background, nucleus.",
        ),
        ("cells-as-boxes", "(a network that finds where things have their centres) learns to find, as boxes: pale, dark."),
        ("low-resolution", "(a network that makes images better) learns to mend images that were made worse."),
        ("tissue-patches", "(a network of convolutions alone) learns to tell apart: loose, clustered."),
    ],
)
def test_the_page_says_what_is_learnt_whatever_the_task(three: Hospitals, name: str, said: str) -> None:
    played = scenario.load(scenario.find(name))
    assert said in page(replace(read_at(three), plan=played.plan))


def test_a_plan_that_may_end_early_and_gives_out_the_best_says_so(three: Hospitals) -> None:
    found = read_at(three)
    spec = EvaluationSpec(every=1, epsilon=1.0, keep="best", patience=2)
    said = page(replace(found, plan=replace(found.plan, evaluation=spec)))
    assert "Training may end before: when the model was tried 2 times in a row and was no better." in said
    assert "The model that was best when it was tried is given out, which may not be the last." in said
    usual = page(replace(found, plan=replace(found.plan, evaluation=EvaluationSpec(every=1, epsilon=1.0))))
    assert "may end before" not in usual
    assert "may not be the last" not in usual

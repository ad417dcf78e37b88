# SPDX-License-Identifier: Apache-2.0
"""Laws of agreement: whatever was said of an image, in whatever order, it gets a class that was said, or a reason."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.imaging.labels.account import LabelAccount, Pair
from client.imaging.labels.agreement import MEANING, Statement, Why, settle
from client.imaging.labels.rules import Policy
from common.errors import DataError

law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no broken law
POLICIES: tuple[Policy, ...] = ("refuse", "majority", "newest")
DATES = st.sampled_from(["", "20240101", "20240102", "20240102080000", "20240102093000", "20240103120000"])
STATEMENTS = st.lists(
    st.builds(
        Statement,
        source=st.sampled_from(["csv", "structured_report", "fhir"]),
        document=st.sampled_from("abcde"),
        date=DATES,
        label=st.integers(0, 2),
    ),
    max_size=8,
)


def say(label: int, document: str = "a", date: str = "") -> Statement:
    return Statement(source="fhir", document=document, date=date, label=label)


@law
@given(STATEMENTS, st.sampled_from(POLICIES), st.integers(0, 9))
def test_order_and_repetition_do_not_matter(said: list[Statement], policy: Policy, turn: int) -> None:
    assert settle([*said[turn:], *said[:turn], *said[:2]], policy) == settle(said, policy)
    assert settle(said[::-1], policy) == settle(said, policy)


@law
@given(STATEMENTS, st.sampled_from(POLICIES))
def test_an_image_has_a_class_that_was_said_or_a_reason(said: list[Statement], policy: Policy) -> None:
    found = settle(said, policy)
    assert (found.label is None) != (found.why is None)
    assert found.label is None or found.label in {each.label for each in said}
    assert found.contested == (len({each.label for each in said}) > 1)


@law
@given(STATEMENTS)
def test_who_refuses_labels_least_and_says_the_same(said: list[Statement]) -> None:
    refused = settle(said, "refuse")
    if refused.label is not None:
        assert {settle(said, policy).label for policy in POLICIES} == {refused.label}
    assert not (refused.contested and refused.label is not None)


@law
@given(STATEMENTS)
def test_a_majority_has_more_documents_than_any_other_class(said: list[Statement]) -> None:
    found = settle(said, "majority")
    voters = {label: {each.document for each in said if each.label == label} for label in range(3)}
    most = max(map(len, voters.values()))
    leaders = [label for label, documents in voters.items() if len(documents) == most]
    if said:
        assert found.label == (leaders[0] if len(leaders) == 1 else None)


@law
@given(STATEMENTS, st.integers(0, 2))
def test_what_is_older_does_not_change_what_is_newest(said: list[Statement], label: int) -> None:
    before = settle(said, "newest")
    after = settle([*said, say(label, "old", "20231231")], "newest")
    if said and before.label is not None and all(each.date for each in said):
        assert after.label == before.label


def test_a_day_without_a_time_is_the_whole_day() -> None:
    assert settle([say(0, "a", "20240102"), say(1, "b", "20240102093000")], "newest").why is Why.TIE
    assert settle([say(0, "a", "20240102080000"), say(1, "b", "20240102093000")], "newest").label == 1
    assert settle([say(0, "a", "20240101"), say(1, "b", "20240102")], "newest").label == 1


def test_a_statement_without_a_date_is_neither_old_nor_new() -> None:
    assert settle([say(0, "a"), say(1, "b", "20240102")], "newest").why is Why.UNDATED
    assert settle([say(1, "a"), say(1, "b", "20240102")], "newest").label == 1


def test_a_document_that_says_many_times_the_same_has_one_vote() -> None:
    assert settle([say(0, "a"), say(0, "a"), say(1, "b")], "majority").why is Why.TIE
    assert settle([say(0, "a"), say(1, "b"), say(1, "c")], "majority").label == 1


def test_every_reason_has_its_words() -> None:
    assert set(MEANING) == set(Why)


def test_an_account_that_lost_an_image_cannot_be_given() -> None:
    with pytest.raises(DataError, match="3 images, but 1 labelled and 1 not"):
        LabelAccount(
            images=3,
            labelled=Counter({0: 1}),
            unlabelled=Counter({Why.CONFLICT: 1}),
            settled=0,
            spoke={},
            unused=Counter(),
            pairs=(),
        )


def test_with_who_says_one_class_of_everything_there_is_no_kappa() -> None:
    assert Pair(first="csv", second="fhir", both=Counter({(0, 0): 9})).kappa is None
    assert Pair(first="csv", second="fhir", both=Counter({(0, 0): 9, (1, 0): 1})).kappa is None
    assert Pair(first="csv", second="fhir", both=Counter({(0, 1): 5, (1, 0): 5})).kappa == -1

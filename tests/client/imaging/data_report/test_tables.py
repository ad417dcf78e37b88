# SPDX-License-Identifier: Apache-2.0
"""Counts are of what is there, and no line can be about one patient by what somebody typed."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.imaging.data_report import tables
from client.imaging.data_report.facts import Case
from client.imaging.rejection import Reason

WORDS = st.sampled_from(["", "Thorax", "Abdomen", "Doe Jane", "Head", "CT-X"])
law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no broken law
CASES = st.lists(
    st.builds(
        Case,
        patient=st.sampled_from("abcdefgh"),
        reason=st.sampled_from([None, None, Reason.MODALITY]),
        label=st.sampled_from([None, 0, 1]),
        years=st.sampled_from([None, 0, 17, 18, 59, 80, 130]),
        about=st.fixed_dictionaries({"protocol": WORDS, "modality": st.sampled_from(["CT", "MR", "", "Doe^Jane", "ct"]), "sex": WORDS}),
    ),
    max_size=40,
)


def case(number: int, *, label: int | None = 0, reason: Reason | None = None, years: int | None = None, **about: Any) -> Case:
    return Case(patient=f"p{number}", reason=reason, label=label, years=years, about=about)


@law
@given(CASES)
def test_every_table_counts_every_image_once(cases: list[Case]) -> None:
    for table in tables.of(cases, ("a", "b")):
        assert sum(line.images for line in table.lines) == len(cases)
        assert sum(line.used for line in table.lines) == sum(each.is_used for each in cases)
        for line in table.lines:
            assert line.used <= line.images
            assert sum(line.by_class) <= line.used
            assert line.patients <= line.images
    assert sum(line.images for line in tables.by_class(cases, ("a", "b"))) == len(cases)


@law
@given(CASES)
def test_what_few_patients_have_is_not_shown(cases: list[Case]) -> None:
    for table in tables.of(cases, ("a", "b")):
        for line in table.lines:
            patients = {each.patient for each in cases if each.about["protocol"] == line.name}
            if table.title == "Protocol" and line.name in ("Doe Jane", "Thorax", "Abdomen", "Head", "CT-X"):
                assert len(patients) >= tables.ENOUGH
            if table.title in ("Modality", "Sex"):
                assert line.name in ("CT", "MR", tables.NOT_STATED)


def test_a_scanner_is_not_named_twice() -> None:
    assert tables.scanner(case(1, manufacturer="Acme", model="Acme Scan 3")) == "Acme Scan 3"
    assert tables.scanner(case(1, manufacturer="Acme ", model="Scan 3")) == "Acme Scan 3"
    assert tables.scanner(case(1)) == ""


def test_bands_are_in_the_order_of_age() -> None:
    cases = [case(number, years=years) for number, years in enumerate([85, None, 5, 40, 18, 79])]
    table = next(each for each in tables.of(cases, ()) if each.title.startswith("Age"))
    assert [line.name for line in table.lines] == ["0 to 17", "18 to 39", "40 to 59", "60 to 79", "80 and over", tables.NOT_STATED]


def test_a_question_that_no_header_answers_makes_no_table() -> None:
    assert [table.title for table in tables.of([case(1, modality="CT")], ())] == ["Modality"]

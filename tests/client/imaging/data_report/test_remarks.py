# SPDX-License-Identifier: Apache-2.0
"""What has spoilt models before is pointed at, and what is well is left alone."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from client.imaging.data_report import remarks
from client.imaging.data_report.facts import Case, Facts, Samples
from client.imaging.labels.account import LabelAccount
from client.imaging.labels.agreement import Why
from client.imaging.rejection import Reason
from client.imaging.report import IntakeReport
from client.imaging.rows import Findings
from common.plan import Plan

Build = Callable[..., Facts]


@pytest.fixture
def facts(plan_for: Callable[..., Plan]) -> Build:
    """facts(cases, ...) -> what a folder of these cases would give."""

    def make(
        cases: Sequence[Case],
        *,
        rejected: Mapping[Reason, int] | None = None,
        account: LabelAccount | None = None,
        pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint16]] | None = None,
        findings: Findings | None = None,
        problem: str = "",
    ) -> Facts:
        used = sum(case.is_used for case in cases)
        lost = Counter(rejected or {})
        return Facts(
            plan=plan_for(),
            classes=("normal", "nodule"),
            cases=tuple(cases),
            samples=Samples(pixels=np.empty((0, 1, 2, 2), dtype=np.uint16) if pixels is None else pixels, cases=()),
            report=IntakeReport(seen=used + lost.total(), used=used, rejected=lost, labels=account),
            findings=findings,
            problem=problem,
        )

    return make


def cases(count: int = 60, *, scanner: Callable[[int, int], str] = lambda number, label: f"Scan {number // 2 % 2}") -> list[Case]:
    return [
        Case(
            patient=f"p{number}",
            reason=None,
            label=number % 2,
            years=40 + number // 2 % 30,
            about={"modality": "CT", "model": scanner(number, number % 2), "sex": "MF"[number // 2 % 2]},
        )
        for number in range(count)
    ]


def said(found: Facts) -> list[tuple[str, str]]:
    return [(remark.weight, remark.text) for remark in remarks.of(found)]


def test_what_is_well_is_left_alone(facts: Build) -> None:
    assert said(facts(cases())) == []


def test_a_class_that_comes_from_one_scanner_is_pointed_at(facts: Build) -> None:
    found = said(facts(cases(scanner=lambda number, label: "Scan 1" if label or number % 10 == 0 else "Scan 2")))
    assert len(found) == 1
    assert found[0][0] == "look"
    assert "100 % of the images with “nodule” share one scanner, and 20 % of the others do" in found[0][1]


def test_one_scanner_for_all_is_no_shortcut(facts: Build) -> None:
    assert said(facts(cases(scanner=lambda number, label: "Scan 1"))) == []


def test_lost_files_are_said_with_the_commonest_reason(facts: Build) -> None:
    assert said(facts(cases(), rejected={Reason.MULTIFRAME: 3})) == []
    (weight, text), *rest = said(facts(cases(), rejected={Reason.MULTIFRAME: 15, Reason.HEADER: 5, Reason.LABEL_SOURCE: 500}))
    assert (weight, rest) == ("look", [])
    assert text.startswith("25 % of the files would not be used. Most often (15): More than one frame.")
    assert said(facts(cases(), rejected={Reason.HEADER: 70}))[0][0] == "alarm"


def test_a_class_that_nobody_has_is_an_alarm_and_one_of_few_a_reason_to_look(facts: Build) -> None:
    assert ("alarm", "Nobody here has “nodule”. The model will see none of it from this site.") in said(
        facts([case for case in cases() if case.label == 0])
    )
    few = [case for case in cases(60) if case.label == 0 or int(case.patient[1:]) < 10]
    assert ("look", "“nodule” comes from 5 patients only.") in said(facts(few))


def test_one_patient_with_many_images_is_pointed_at(facts: Build) -> None:
    one = Case(patient="p1", reason=None, label=1, years=50, about={"sex": "F"})
    assert any("One patient has 31 of the 90 images" in text for _, text in said(facts([*cases(), *[one] * 30])))


def test_documents_that_speak_of_another_patient_are_an_alarm(facts: Build) -> None:
    account = LabelAccount(
        images=60,
        labelled=Counter({0: 30, 1: 28}),
        unlabelled=Counter({Why.CONFLICT: 2}),
        settled=3,
        spoke={"fhir": 60},
        unused=Counter({Why.OTHER_PATIENT: 4}),
        pairs=(),
    )
    found = said(facts(cases(), account=account))
    assert found[0][0] == "alarm"
    assert "4 times a document of one patient" in found[0][1]
    assert ("look", "Images on which sources contradict each other: 5. Labelled all the same: 3.") in found


def test_burned_in_names_and_gaps_and_a_wrong_window_are_pointed_at(facts: Build) -> None:
    marked = [Case(patient="x", reason=Reason.BURNED_IN, about={"burned_in": "YES"})]
    findings = Findings(images=60, patients=60, under_two_issuers=2, series=60, series_with_gaps=4, missing_slices=9, duplicate_slices=1)
    white = np.full((3, 1, 4, 4), 65535, dtype=np.uint16)
    found = said(facts([*cases(), *marked], rejected={Reason.BURNED_IN: 1}, findings=findings, pixels=white))
    text = " ".join(words for _, words in found)
    for part in (
        "written into the picture",
        "2 patients share",
        "4 of 60 series have gaps: 9 slices",
        "series does: 1.",
        "100 % of the pixels are plain white",
    ):
        assert part in text
    assert found[0][0] == "alarm"


def test_labels_that_cannot_be_used_are_said_first(facts: Build) -> None:
    assert said(facts(cases(), problem="labels.csv, row 4: no."))[0] == (
        "alarm",
        "The labels cannot be used as they are. labels.csv, row 4: no.",
    )

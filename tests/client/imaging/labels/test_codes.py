# SPDX-License-Identifier: Apache-2.0
"""One code has one spelling, whoever wrote it."""

import doctest

import pytest

from client.imaging.labels import account, agreement, codes, fhir
from client.imaging.labels.codes import FINDING, Code, coded, parse


@pytest.mark.parametrize("module", [account, agreement, codes, fhir], ids=lambda module: module.__name__)
def test_the_examples_hold(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scheme", "value", "expected"),
    [
        ("SRT", "T-62000", Code("SCT", "10200004")),
        ("SRT", "T-99999-unheard-of", Code("SRT", "T-99999-unheard-of")),
        ("SCT ", "10200004\0", Code("SCT", "10200004")),
        ("http://snomed.info/sct", "10200004", Code("SCT", "10200004")),
        ("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "C34.1", Code("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "C34.1")),
    ],
)
def test_dicom_and_fhir_meet(scheme: str, value: str, expected: Code) -> None:
    assert coded(scheme, value) == expected


def test_a_finding_and_an_evaluation_are_not_mistaken_for_each_other() -> None:
    grade = Code("RADLEX", "RID5741")
    assert parse("SCT:1").matches(FINDING, Code("SCT", "1"))
    assert parse("SCT:1").matches(None, Code("SCT", "1"))
    assert not parse("SCT:1").matches(grade, Code("SCT", "1"))
    assert parse("RADLEX:RID5741=SCT:1").matches(grade, Code("SCT", "1"))
    assert not parse("RADLEX:RID5741=SCT:1").matches(FINDING, Code("SCT", "1"))


def test_a_star_is_a_beginning_within_one_vocabulary() -> None:
    chapter = parse("http://fhir.de/CodeSystem/bfarm/icd-10-gm|C34*")
    assert chapter.matches(None, coded("http://fhir.de/CodeSystem/bfarm/icd-10-gm", "C34.9"))
    assert not chapter.matches(None, coded("http://hl7.org/fhir/sid/icd-10", "C34.9"))
    assert not parse("I10:C34").matches(None, Code("I10", "C34.9"))


@pytest.mark.parametrize("text", ["", "SCT", "SCT:", ":1", "SCT:*", "=SCT:1", "SCT:1=", "x" * 300 + ":1"])
def test_what_is_no_code_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SCHEME:VALUE"):
        parse(text)

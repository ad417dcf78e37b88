# SPDX-License-Identifier: Apache-2.0
"""A code of a clinical vocabulary, spelled in one way however DICOM and FHIR spell it.

    >>> coded("http://snomed.info/sct", "27925004") == coded("SCT", "27925004") == parse("SCT:27925004").value
    True
    >>> coded("SRT", "T-62000")                     # SNOMED's codes of before 2018 (PS3.16 section 8.1), as older software still writes
    Code(scheme='SCT', value='10200004')
    >>> parse("I10:C34*").matches(None, coded("http://hl7.org/fhir/sid/icd-10", "C34.1"))
    True

A pattern of labels.toml is `SCHEME:VALUE`, `SYSTEM|VALUE` with FHIR's address of the vocabulary, or for an evaluation of a report
`NAME=VALUE`, each side a code. A star at the end stands for whatever follows: chapters of ICD-10 are named by it.
"""

from dataclasses import dataclass

LONGEST = 64  # characters of a code (SH has 16, UC and FHIR more)

SYSTEMS = {  # FHIR's addresses to DICOM's designators (PS3.16 table 8-1; https://terminology.hl7.org)
    "http://snomed.info/sct": "SCT",
    "http://loinc.org": "LN",
    "http://dicom.nema.org/resources/ontology/DCM": "DCM",
    "http://hl7.org/fhir/sid/icd-9-cm": "I9C",
    "http://hl7.org/fhir/sid/icd-10": "I10",
    "http://hl7.org/fhir/sid/icd-10-cm": "I10C",
    "http://id.who.int/icd/release/11/mms": "I11",
    "http://radlex.org": "RADLEX",
    "http://www.radlex.org": "RADLEX",
}


@dataclass(frozen=True, slots=True)
class Code:
    """One code: DICOM's designator of its vocabulary, or FHIR's address where DICOM has none, and its value."""

    scheme: str
    value: str


FINDING = Code("DCM", "121071")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """What labels.toml says of codes. Without a name it means findings, segments and diagnoses; with one, that evaluation."""

    name: Code | None
    value: Code
    is_prefix: bool

    def matches(self, name: Code | None, value: Code) -> bool:
        if (self.name or FINDING) != (name or FINDING) or self.value.scheme != value.scheme:
            return False
        return value.value.startswith(self.value.value) if self.is_prefix else value == self.value


def coded(scheme: str, value: str) -> Code:
    """A code as DICOM or FHIR spells it."""
    scheme, value = scheme.strip(" \0"), value.strip(" \0")
    scheme = SYSTEMS.get(scheme, scheme)
    if scheme == "SRT":
        # pydicom compares by this table, and gives no other way to it. Half a second to import, which only old codes are worth.
        from pydicom.sr._snomed_dict import mapping as legacy

        if value in legacy["SRT"]:
            return Code("SCT", legacy["SRT"][value])
    return Code(scheme, value)


def parse(text: str) -> Pattern:
    """A pattern of labels.toml. Raises: ValueError, with what is wrong of it."""
    name, equals, value = text.rpartition("=")
    star = value.endswith("*")
    return Pattern(name=_code(name) if equals else None, value=_code(value.removesuffix("*")), is_prefix=star)


def _code(text: str) -> Code:
    scheme, bar, value = text.strip().partition("|")
    if not bar:
        scheme, _, value = text.strip().partition(":")
    if not scheme or not value or len(text) > 4 * LONGEST:
        raise ValueError("a code is written SCHEME:VALUE, such as SCT:27925004, or SYSTEM|VALUE with FHIR's address of the vocabulary")
    return coded(scheme, value)

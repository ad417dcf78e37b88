# SPDX-License-Identifier: Apache-2.0
"""A FHIR R4 export (a Bundle in JSON) as which patient has which diagnosis. Runs in the limited child process.

Two kinds of resource say something: a Condition by its code, and a DiagnosticReport by its conclusion codes (what its own code names is the
kind of examination). A patient is known by the identifiers of the Patient that the resource refers to inside the bundle, or by the
identifier that its reference carries itself; a report that names an ImagingStudy of the bundle is about that study alone.

Whether something is a diagnosis depends on its status (https://hl7.org/fhir/R4/condition.html, diagnosticreport.html): what is provisional,
refuted, preliminary or entered in error comes out as not confirmed. Names, addresses, notes and texts are not looked at.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from client.imaging.rejection import Reason, Rejected

CONFIRMED: Final = frozenset({"confirmed"})  # Condition.verificationStatus; absent means that nobody doubts it
FINAL: Final = frozenset({"final", "amended", "corrected", "appended"})  # DiagnosticReport.status
DICOM_UID: Final = "urn:dicom:uid"
MOST_RESOURCES = 2_000_000

Resource = Mapping[str, Any]


def read(content: bytes) -> dict[str, Any]:
    """Diagnoses with their codes, date, status and subject; and the patients of the bundle, by identifiers.

    Raises: Rejected with HEADER, if it is no Bundle; TOO_LARGE.
    """
    resources = _resources(content)
    by_reference = {reference: resource for resource, references in resources for reference in references}
    said = []
    for resource, _ in resources:
        match resource.get("resourceType"):
            case "Condition":
                said.append(_condition(resource, by_reference))
            case "DiagnosticReport":
                said.append(_report(resource, by_reference))
    patients = [_identifiers(resource) for resource, _ in resources if resource.get("resourceType") == "Patient"]
    return {"diagnoses": said, "patients": [found for found in patients if found]}


def _resources(content: bytes) -> list[tuple[Resource, tuple[str, ...]]]:
    """Each resource, and what references to it may look like."""
    try:
        bundle = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Rejected(Reason.HEADER) from error
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise Rejected(Reason.HEADER)
    entries = [entry for entry in _list(bundle, "entry") if isinstance(entry.get("resource"), dict)]
    if len(entries) > MOST_RESOURCES:
        raise Rejected(Reason.TOO_LARGE)
    return [(entry["resource"], _names(entry)) for entry in entries]


def _names(entry: Resource) -> tuple[str, ...]:
    resource = entry["resource"]
    own = (f"{resource.get('resourceType')}/{resource['id']}",) if isinstance(resource.get("id"), str) else ()
    return (*own, entry["fullUrl"]) if isinstance(entry.get("fullUrl"), str) else own


def _condition(resource: Resource, by_reference: Mapping[str, Resource]) -> dict[str, Any]:
    status = {value for _, value in _codings(resource.get("verificationStatus"))}
    return {
        "id": _name(resource),
        "codes": _codings(resource.get("code")),
        "confirmed": not status or bool(status & CONFIRMED),
        "date": moment(_text(resource, "recordedDate") or _text(resource, "onsetDateTime")),
        "patients": _subject(resource, by_reference),
        "studies": [],
    }


def _report(resource: Resource, by_reference: Mapping[str, Resource]) -> dict[str, Any]:
    studies = [by_reference.get(_text(reference, "reference"), {}) for reference in _list(resource, "imagingStudy")]
    return {
        "id": _name(resource),
        "codes": [coding for concept in _list(resource, "conclusionCode") for coding in _codings(concept)],
        "confirmed": _text(resource, "status") in FINAL,
        "date": moment(_text(resource, "issued") or _text(resource, "effectiveDateTime")),
        "patients": _subject(resource, by_reference),
        "studies": [study_uid for study in studies for study_uid in _study_uids(study)] if studies else [],
        "of_study": bool(studies),
    }


def _name(resource: Resource) -> str:
    """Its id, which is one among resources of its kind only; empty, without one."""
    name = _text(resource, "id")
    return f"{resource.get('resourceType')}/{name}" if name else ""


def _subject(resource: Resource, by_reference: Mapping[str, Resource]) -> list[tuple[str, str]]:
    subject = resource.get("subject")
    if not isinstance(subject, dict):
        return []
    patient = by_reference.get(_text(subject, "reference"))
    if patient is not None and patient.get("resourceType") == "Patient":
        return _identifiers(patient)
    return [pair] if (pair := _identifier(subject.get("identifier"))) else []


def _identifiers(patient: Resource) -> list[tuple[str, str]]:
    return [pair for each in _list(patient, "identifier") if each.get("use") != "old" and (pair := _identifier(each))]


def _identifier(value: Any) -> tuple[str, str] | None:
    if not isinstance(value, dict) or not _text(value, "value"):
        return None
    return _text(value, "system"), _text(value, "value")


def _study_uids(study: Resource) -> Iterator[str]:
    """ImagingStudy.identifier with system urn:dicom:uid holds urn:oid: and the Study Instance UID."""
    for each in _list(study, "identifier"):
        if _text(each, "system") == DICOM_UID:
            yield _text(each, "value").removeprefix("urn:oid:")


def _codings(concept: Any) -> list[tuple[str, str]]:
    if not isinstance(concept, dict):
        return []
    return [(_text(each, "system"), _text(each, "code")) for each in _list(concept, "coding") if _text(each, "code")]


def _list(resource: Resource, key: str) -> list[Resource]:
    value = resource.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(resource: Resource, key: str) -> str:
    value = resource.get(key)
    return value if isinstance(value, str) else ""


def moment(text: str) -> str:
    """An instant as 14 digits in UTC, a day as 8; nothing for less than a day, or what is no date.

    >>> moment("2020-03-01T00:30:00+01:00"), moment("2020-03-01"), moment("2020"), moment("soon")
    ('20200229233000', '20200301', '', '')
    >>> moment("0001-01-01T00:00:00+01:00"), moment("0001-01-01")
    ('', '00010101')
    """
    try:
        when = datetime.fromisoformat(text)
        if "T" not in text:
            return f"{when:%Y%m%d}".zfill(8) if len(text) == len("2020-03-01") else ""
        return f"{when.astimezone(UTC) if when.tzinfo else when:%Y%m%d%H%M%S}".zfill(14)
    except (ValueError, OverflowError):  # the first and the last day of the calendar stand for "not known", and have no time zone
        return ""

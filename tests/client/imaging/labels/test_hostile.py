# SPDX-License-Identifier: Apache-2.0
"""Documents made to hurt cost a reason; they neither end the survey nor make anybody's name appear."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from client.imaging.identity import PatientSecret
from client.imaging.intake import DataSource, open_dataset
from client.imaging.labels import fhir, told
from client.imaging.labels.agreement import Why
from client.imaging.labels.survey import in_children
from client.imaging.rejection import Reason, Rejected
from client.imaging.worker import Limits
from common.plan import InputSpec, Plan
from tests.client.imaging.labels.ward import NODULE, NORMAL, Ward, condition

Opened = Callable[..., Any]
REPORTS = '[structured_report.classes]\nnodule = ["SCT:27925004"]\nnormal = ["SCT:17621005"]\n'
EXPORT = '[fhir]\nfiles = ["export.json"]\n[fhir.classes]\nnodule = ["I10:R91*"]\n'


def nested(levels: int, *, lengths: bool) -> bytes:
    """A Content Sequence (0040,A730) in explicit little endian, so many levels deep; pydicom itself takes ages to write such a thing."""
    content = b""
    for _ in range(levels):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(content) if lengths else 0xFFFFFFFF) + content
        item += b"" if lengths else struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
        head = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, len(item) if lengths else 0xFFFFFFFF)
        content = head + item + (b"" if lengths else struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    return content


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("levels", [100, 5000])
def test_a_report_nested_deeper_than_reports_are_is_unreadable(ward: Ward, opened: Opened, levels: int, lengths: bool) -> None:
    image = ward.image()
    ward.report([(image, NODULE)])
    ward.report([(image, NORMAL)], name="deep.dcm")
    deep = dcmread(ward.folder / "deep.dcm")
    for element in [element.tag for element in deep if element.tag >= 0x0040A730]:
        del deep[element]
    with ward.keep(deep, "deep.dcm").open("ab") as file:
        file.write(nested(levels, lengths=lengths))
    ward.rules(REPORTS)
    labels, account = opened(ward)
    assert labels == {0: "nodule"}
    is_parsed = lengths or levels == 100  # deeper, without lengths, not even its header is found: a file that does not parse, not a report
    assert account.unused == ({Why.UNREADABLE: 1} if is_parsed else {})
    if not is_parsed:
        with pytest.raises(Rejected, match="E_HEADER"):
            told.tell((ward.folder / "deep.dcm").read_bytes())


def test_every_cut_of_a_report_is_a_report_or_a_reason(ward: Ward) -> None:
    image = ward.image()
    ward.report([(image, NODULE)])
    whole = (ward.folder / "report.dcm").read_bytes()
    for length in range(0, len(whole), 97):
        try:
            found = told.tell(whole[:length])
        except Rejected:
            continue
        assert found["kind"] in ("structured_report", "image")
        assert "Doe" not in json.dumps(found)
        assert "Diologist" not in json.dumps(found)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"resourceType": "Bundle", "entry": ' + b'{"a":' * 50_000,
        b'{"resourceType": "Patient"}',
        b"null",
        b'"Bundle"',
    ],
)
def test_what_is_no_bundle_is_a_reason(content: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        fhir.read(content)
    assert refused.value.reason is Reason.HEADER


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {},
        {"entry": {}},
        {"entry": [None, 7, {}, {"resource": []}, {"resource": {"resourceType": ["Condition"]}}]},
        {"entry": [{"resource": {"resourceType": "Condition", "code": [], "subject": 7, "verificationStatus": "confirmed"}}]},
        {"entry": [{"resource": {"resourceType": "Condition", "code": {"coding": [{"code": 7}, None]}, "recordedDate": {}}}]},
        {"entry": [{"fullUrl": 7, "resource": {"resourceType": "Patient", "id": [], "identifier": [{"value": 7}]}}]},
        {"entry": [{"resource": {"resourceType": "DiagnosticReport", "status": [], "imagingStudy": [{"reference": []}, {}]}}]},
    ],
)
def test_a_bundle_of_wrong_types_says_nothing(entry: dict[str, Any] | None) -> None:
    found = fhir.read(json.dumps({"resourceType": "Bundle", **(entry or {})}).encode())
    assert not [each for each in found["diagnoses"] if each["codes"]]
    assert found["patients"] == []


def test_an_export_that_is_none_is_counted_and_the_rest_goes_on(ward: Ward, opened: Opened) -> None:
    image = ward.image()
    ward.report([(image, NODULE)])
    (ward.folder / "export.json").write_bytes(b"{" * 10_000)
    ward.rules(REPORTS + EXPORT)
    labels, account = opened(ward)
    assert labels == {0: "nodule"}
    assert account.unused == {Why.UNREADABLE: 1}


def test_what_is_told_of_a_document_names_nobody(ward: Ward) -> None:
    image = ward.image()
    ward.report([(image, NODULE)])
    for name in ("image_00.dcm", "report.dcm"):
        found = json.dumps(told.tell((ward.folder / name).read_bytes()))
        for private in ("Doe", "Jane", "19600229", "Erring", "Diologist"):
            assert private not in found
    header = told.tell((ward.folder / "image_00.dcm").read_bytes())
    assert header["years"] == 64
    ward.export({**condition(("http://snomed.info/sct", "1")), "note": [{"text": "Jane Doe"}], "asserter": {"display": "Dr Doe"}})
    assert "Doe" not in json.dumps(fhir.read((ward.folder / "export.json").read_bytes()))


def test_no_parser_of_documents_is_loaded_where_keys_are() -> None:
    """The process that holds the patient secret imports neither highdicom nor the readers of reports."""
    code = "import sys, client.imaging.intake, client.snapshot; sys.exit('highdicom' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[4], timeout=60)


def test_the_account_of_files_holds_with_documents_among_them(
    ward: Ward, tmp_path: Path, secret: PatientSecret, plan_for: Callable[..., Plan]
) -> None:
    first, second = ward.image("MRN-0001"), ward.image("MRN-0002")
    ward.image("MRN-0003")
    ward.report([(first, NODULE)])
    ward.report([(second, NORMAL)], name="second.dcm")
    (ward.folder / "notes.txt").write_text("Jane Doe")
    ward.export(condition(("http://hl7.org/fhir/sid/icd-10", "R91.1"), "MRN-0001"))
    ward.rules(REPORTS + EXPORT.replace("[fhir.classes]", '[fhir.issuers]\n"urn:oid:1.2.3" = "NORTH"\n[fhir.classes]'))
    options = {"cache": tmp_path / "cache", "key": secret, "workers": 1}
    dataset, report = open_dataset(DataSource(root=ward.folder), plan_for(), **options)
    assert sorted(dataset.labels.tolist()) == [0, 1]
    assert report.rejected == {Reason.LABEL_SOURCE: 3, Reason.NO_LABEL: 1, Reason.NOT_DICOM: 1}
    assert report.seen == report.used + sum(report.rejected.values()) == 7
    assert report.labels is not None
    assert report.labels.as_dict()["labelled"] == 2
    printed = "\n".join(report.lines()) + json.dumps(report.as_dict())
    assert "MRN" not in printed
    assert "image_0" not in printed
    again, _ = open_dataset(DataSource(root=ward.folder), plan_for(), **options)
    assert (again.labels == dataset.labels).all()


def test_an_export_of_a_whole_hospital_is_read(tmp_path: Path) -> None:
    """What is told of a hundred and twenty thousand diagnoses is a line of twenty megabytes; here they are fewer and longer."""
    subject = {"identifier": {"system": "urn:oid:1.2", "value": "MRN-1"}}
    codes = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": f"C34.{'1' * 500_000}"}]}
    entries = [{"resource": {"resourceType": "Condition", "subject": subject, "code": codes}} for _ in range(40)]
    (tmp_path / "export.json").write_text(json.dumps({"resourceType": "Bundle", "entry": entries}))
    spec = InputSpec(modality="any", height=16, width=16)
    ((told, reason),) = in_children(tmp_path, spec, Limits(), workers=1)("fhir", ["export.json"])
    assert reason is None
    assert len(told["diagnoses"]) == 40

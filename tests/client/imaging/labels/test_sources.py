# SPDX-License-Identifier: Apache-2.0
"""What reports, segmentations and exports say lands on the right image, and what labels nothing is counted by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from highdicom import sr
from pydicom import dcmread
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from client.imaging.labels.agreement import Why
from common.errors import DataNotFound, LabelsMismatch, PlanUnknownKey, PlanValue
from tests.client.imaging.labels.ward import LIVER, NODULE, NORMAL, SHAPE, Ward, condition

Opened = Callable[..., Any]

REPORTS = '[structured_report.classes]\nnodule = ["SCT:27925004"]\nnormal = ["SCT:17621005"]\n'
SEGMENTS = '[segmentation.classes]\nnodule = ["SCT:27925004"]\n'
EXPORT = """
[fhir]
files = ["export.json"]
[fhir.issuers]
"urn:oid:1.2.3" = "NORTH"
[fhir.classes]
nodule = ["I10:R91*"]
normal = ["I10:Z00*"]
"""
ICD = "http://hl7.org/fhir/sid/icd-10"


def square(*, lit: bool) -> np.ndarray[Any, Any]:
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[4:8, 3:6] = lit
    return mask


@pytest.mark.parametrize("by_region", [True, False])
def test_a_finding_labels_the_image_that_it_was_seen_in(ward: Ward, opened: Opened, by_region: bool) -> None:
    first, second, _ = ward.image(), ward.image(), ward.image()
    ward.report([(second, NODULE), (first, NORMAL)], by_region=by_region)
    ward.rules(REPORTS)
    labels, account = opened(ward)
    assert labels == {0: "normal", 1: "nodule"}
    assert account.unlabelled == {Why.NOTHING_SAID: 1}
    assert account.spoke == {"structured_report": 2}
    assert not account.unused


def test_a_segment_labels_the_images_that_it_has_pixels_in(ward: Ward, opened: Opened) -> None:
    for _ in range(3):
        ward.image()
    ward.segmentation([square(lit=False), square(lit=True), square(lit=False)])
    ward.rules(SEGMENTS)
    assert opened(ward)[0] == {1: "nodule"}


def test_a_segment_smaller_than_the_site_cares_for_is_not_there(ward: Ward, opened: Opened) -> None:
    ward.image(), ward.image()
    ward.segmentation([square(lit=True), square(lit=True)])
    ward.rules("[segmentation]\nsmallest = 13\n" + SEGMENTS)
    with pytest.raises(LabelsMismatch, match="not one of 2 images gets a label"):
        opened(ward)
    ward.rules("[segmentation]\nsmallest = 12\n" + SEGMENTS)
    assert opened(ward)[0] == {0: "nodule", 1: "nodule"}


def test_silence_is_a_class_only_where_the_site_says_so_and_somebody_looked(ward: Ward, opened: Opened) -> None:
    for _ in range(3):
        ward.image()
    ward.image("MRN-0002")
    drawn = ward.images[:3]
    ward.segmentation([square(lit=False), square(lit=True), square(lit=False)], of=drawn)
    ward.segmentation([square(lit=True)], of=[ward.images[3]], code=LIVER, name="liver.dcm")
    ward.rules('[segmentation]\nabsent = "normal"\n' + SEGMENTS)
    labels, account = opened(ward)
    assert labels == {0: "normal", 1: "nodule", 2: "normal"}  # who drew livers did not look for nodules
    assert account.unused == {Why.UNKNOWN_CODE: 1}


def test_a_diagnosis_labels_all_images_of_its_patient_and_a_study_only_its_own(ward: Ward, opened: Opened) -> None:
    ward.image("MRN-0001"), ward.image("MRN-0001"), ward.image("MRN-0002")
    study = ward.image("MRN-0003", study=generate_uid()).StudyInstanceUID
    ward.image("MRN-0003", study=generate_uid())
    ward.export(
        condition((ICD, "R91.1"), "MRN-0001", recordedDate="2024-03-01"),
        {"resourceType": "Patient", "id": "p2", "identifier": [{"system": "urn:oid:1.2.3", "value": "MRN-0002"}]},
        {"resourceType": "Condition", "code": {"coding": [{"system": ICD, "code": "Z00.0"}]}, "subject": {"reference": "Patient/p2"}},
        {"resourceType": "ImagingStudy", "id": "s3", "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{study}"}]},
        {
            "resourceType": "DiagnosticReport",
            "status": "final",
            "code": {"coding": [{"system": ICD, "code": "Z00.0"}]},
            "conclusionCode": [{"coding": [{"system": ICD, "code": "R91"}]}],
            "imagingStudy": [{"reference": "ImagingStudy/s3"}],
            "subject": {"identifier": {"system": "urn:oid:1.2.3", "value": "MRN-0003"}},
        },
    )
    ward.rules(EXPORT)
    assert opened(ward)[0] == {0: "nodule", 1: "nodule", 2: "normal", 3: "nodule"}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"verificationStatus": {"coding": [{"code": "refuted"}]}}, Why.NOT_CONFIRMED),
        ({"verificationStatus": {"coding": [{"code": "provisional"}]}}, Why.NOT_CONFIRMED),
        ({"code": {"coding": [{"system": ICD, "code": "E11"}]}}, Why.UNKNOWN_CODE),
        ({"code": {"text": "a nodule, says a text"}}, Why.UNKNOWN_CODE),
        ({"subject": {"reference": "Patient/elsewhere"}}, Why.NO_SUBJECT),
        ({"subject": {"identifier": {"system": "urn:oid:9.9.9", "value": "MRN-0001"}}}, Why.NO_SUBJECT),
        ({"subject": {"identifier": {"system": "urn:oid:1.2.3", "value": "MRN-7777"}}}, Why.ABSENT),
    ],
)
def test_what_is_no_diagnosis_of_anybody_here_is_counted_by_name(ward: Ward, opened: Opened, fields: dict[str, Any], why: Why) -> None:
    ward.image("MRN-0001"), ward.image("MRN-0002")
    ward.export({**condition((ICD, "R91.1"), "MRN-0001"), **fields}, condition((ICD, "Z00.0"), "MRN-0002"))
    ward.rules(EXPORT)
    labels, account = opened(ward)
    assert labels == {1: "normal"}
    assert account.unused == {why: 1}


def test_who_is_in_an_export_without_a_diagnosis_is_of_the_absent_class(ward: Ward, opened: Opened) -> None:
    ward.image("MRN-0001"), ward.image("MRN-0002"), ward.image("MRN-0003")
    known = [
        {"resourceType": "Patient", "id": number, "identifier": [{"system": "urn:oid:1.2.3", "value": f"MRN-000{number}"}]}
        for number in ("1", "2")
    ]
    doubted = condition((ICD, "R91.1"), "MRN-0002", verificationStatus={"coding": [{"code": "unconfirmed"}]})
    ward.export(*known, doubted)
    ward.rules(EXPORT.replace("[fhir]\n", '[fhir]\nabsent = "normal"\n'))
    assert opened(ward)[0] == {0: "normal"}  # what is doubted is not absent, and who is not in the export was not looked at


def test_sources_that_contradict_each_other_are_settled_as_the_site_says(ward: Ward, opened: Opened) -> None:
    image, other = ward.image("MRN-0001"), ward.image("MRN-0002")
    ward.report([(image, NORMAL)], on="20240301")
    ward.report([(other, NODULE)], name="other.dcm")
    ward.export(condition((ICD, "R91.1"), "MRN-0001", recordedDate="2024-03-05"), condition((ICD, "R91.1"), "MRN-0002"))
    (ward.folder / "labels.csv").write_text("path,label\nimage_00.dcm,nodule\n")
    sources = REPORTS + EXPORT + '[csv]\nfile = "labels.csv"\n'
    expected = {"refuse": (None, Why.CONFLICT), "majority": ("nodule", None), "newest": (None, Why.UNDATED)}
    for policy, (label, why) in expected.items():
        ward.rules(f'[labels]\nconflicts = "{policy}"\n' + sources)
        labels, account = opened(ward)
        assert labels.get(0) == label, policy
        assert account.unlabelled == ({} if why is None else {why: 1})
        assert account.settled == (label is not None)
        assert labels[1] == "nodule"
    agreed = {(pair.first, pair.second): (pair.agreed, pair.images) for pair in account.pairs}
    assert agreed == {("csv", "structured_report"): (0, 1), ("csv", "fhir"): (1, 1), ("structured_report", "fhir"): (1, 2)}
    ward.rules('[labels]\nconflicts = "newest"\n' + REPORTS + EXPORT)
    assert opened(ward)[0] == {0: "nodule", 1: "nodule"}


@pytest.mark.parametrize(("tag", "value"), [("PreliminaryFlag", "PRELIMINARY"), ("VerificationFlag", "UNVERIFIED")])
def test_a_report_that_nobody_stands_for_labels_nothing(ward: Ward, opened: Opened, tag: str, value: str) -> None:
    first, second = ward.image(), ward.image("MRN-0002")
    ward.report([(first, NODULE)], **{"VerificationFlag": "VERIFIED", tag: value})
    ward.report([(second, NORMAL)], name="verified.dcm", VerificationFlag="VERIFIED")
    ward.rules("[structured_report]\nverified = true\n" + REPORTS)
    labels, account = opened(ward)
    assert labels == {1: "normal"}
    assert account.unused == {Why.NOT_CONFIRMED: 1}


def test_an_evaluation_is_known_by_its_name_and_its_value(ward: Ward, opened: Opened) -> None:
    first, second = ward.image(), ward.image("MRN-0002")
    grade, high, low = Code("RID10312", "RADLEX", "Grade"), Code("1", "SCT", "High"), Code("2", "SCT", "Low")
    for number, (image, value) in enumerate(((first, high), (second, low))):
        ward.report([(image, LIVER)], name=f"report_{number}.dcm", evaluations=[sr.QualitativeEvaluation(name=grade, value=value)])
    ward.rules('[structured_report.classes]\nnodule = ["RADLEX:RID10312=SCT:1"]\nnormal = ["RADLEX:RID10312=SCT:2", "SCT:1"]\n')
    labels, account = opened(ward)
    assert labels == {0: "nodule", 1: "normal"}
    assert not account.unused


def test_an_evaluation_of_the_whole_report_is_of_every_image_it_was_made_from(ward: Ward, opened: Opened) -> None:
    first, _ = ward.image(), ward.image()
    ward.image("MRN-0002")
    ward.report([(first, LIVER)])
    document = dcmread(ward.folder / "report.dcm")
    whole = sr.ContainerContentItem(name=Code("C0034375", "UMLS", "Qualitative Evaluations"), relationship_type="CONTAINS")
    answer = sr.CodeContentItem(name=Code("RID10312", "RADLEX", "Grade"), value=Code("1", "SCT", "High"), relationship_type="CONTAINS")
    whole.ContentSequence = sr.ContentSequence([answer])
    document.ContentSequence.append(whole)
    ward.keep(document, "report.dcm")
    ward.rules('[structured_report.classes]\nnodule = ["RADLEX:RID10312=SCT:1"]\n')
    labels, account = opened(ward)
    assert labels == {0: "nodule", 1: "nodule"}
    assert account.unused == {Why.UNKNOWN_CODE: 1}


def test_a_finding_in_a_segment_is_of_the_images_that_this_segment_was_drawn_on(ward: Ward, opened: Opened) -> None:
    for _ in range(3):
        ward.image()
    lit, dark = square(lit=True), square(lit=False)
    drawn = ward.segmentation([lit, dark, dark], code=LIVER, others=[(LIVER, [dark, lit, dark])])
    region = sr.ReferencedSegment(
        sop_class_uid=drawn.SOPClassUID,
        sop_instance_uid=drawn.SOPInstanceUID,
        segment_number=2,
        source_series=sr.SourceSeriesForSegmentation(referenced_series_instance_uid=ward.images[0].SeriesInstanceUID),
    )
    ward.report([(ward.images[0], NODULE)], segment=region, evidence=[*ward.images, drawn])
    ward.rules(REPORTS)
    assert opened(ward)[0] == {1: "nodule"}


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_a_segment_is_read_however_it_is_stored(ward: Ward, opened: Opened, kind: str) -> None:
    for _ in range(3):
        ward.image()
    half = square(lit=True) * 0.4 if kind == "FRACTIONAL" else square(lit=False)
    ward.segmentation([square(lit=True), half, square(lit=False)], kind=kind)
    ward.rules(SEGMENTS)
    assert opened(ward)[0] == {0: "nodule"}


def test_a_report_of_one_patient_never_labels_another(ward: Ward, opened: Opened) -> None:
    first, second = ward.image("MRN-0001"), ward.image("MRN-0002")
    ward.report([(first, NODULE), (second, NODULE)], evidence=[first, second])
    ward.rules(REPORTS)
    labels, account = opened(ward)
    assert labels == {0: "nodule"}
    assert account.unused == {Why.OTHER_PATIENT: 1}


def test_a_document_about_images_that_are_not_here_is_counted(ward: Ward, opened: Opened) -> None:
    first, gone, elsewhere = ward.image(), ward.image(), ward.image()
    ward.report([(first, NODULE), (gone, NODULE)])
    ward.segmentation([square(lit=True)], of=[elsewhere])
    for number in (1, 2):
        (ward.folder / f"image_{number:02}.dcm").unlink()
    ward.rules(REPORTS + SEGMENTS)
    labels, account = opened(ward)
    assert labels == {0: "nodule"}
    assert (account.images, account.unused) == (1, {Why.ABSENT: 2})


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        ('[labels]\nconflicts = "refuse"\n', LabelsMismatch, "no source of labels"),
        ('[structured_report.classes]\ntumour = ["SCT:1"]\n', LabelsMismatch, "'tumour' is none of the plan's classes"),
        ('[structured_report.classes]\nnodule = ["a nodule"]\n', LabelsMismatch, "'a nodule' is not a code.*SCHEME:VALUE"),
        ('[fhir]\nfiles = ["gone.json"]\n[fhir.classes]\nnodule = ["I10:R91"]\n', DataNotFound, "names 'gone.json', and no such file"),
        ('[fhir]\nfiles = ["../gone.json"]\n[fhir.classes]\nnodule = ["I10:R91"]\n', DataNotFound, "no such file is in the folder"),
        ('[segmentation]\nabsent = "none"\n[segmentation.classes]\nnodule = ["SCT:1"]\n', LabelsMismatch, "absent: 'none' is none"),
        (
            '[segmentation.classes]\nnodule = ["SCT:10200004"]\nnormal = ["SRT:T-62000"]\n',
            LabelsMismatch,
            "'SRT:T-62000' means both 'nodule' and 'normal'",
        ),
        ('[labels]\nconflict = "refuse"\n', PlanUnknownKey, "Did you mean 'conflicts'"),
        ('[labels]\nconflicts = "mine"\n', PlanValue, "conflicts"),
    ],
)
def test_a_mistake_in_the_rules_is_named(ward: Ward, opened: Opened, rules: str, error: type[Exception], message: str) -> None:
    ward.image()
    ward.rules(rules)
    with pytest.raises(error, match=message):
        opened(ward)

# SPDX-License-Identifier: Apache-2.0
"""A measurement report (DICOM SR, TID 1500) as what it says of which image. Runs in the limited child process.

highdicom finds the measurement groups (TID 1410, 1411, 1501) and their codes. Each group is one thing said: its finding, its evaluations
by name and value. What it is said of are the images that the group names, wherever it does so: as the source of a region, of a segment, or
by themselves. Evaluations of the whole report ("Qualitative Evaluations", TID 1500 row 12) are said of every image it was made from.

Only codes and references are taken out. Free text, numbers, names of observers and dates other than the report's own are not looked at.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from highdicom import sr
from highdicom.sr.templates import MeasurementReport
from pydicom import uid
from pydicom.dataset import Dataset

from client.imaging.labels.codes import FINDING
from client.imaging.rejection import Reason, Rejected

CLASSES: Final[dict[str, Any]] = {
    uid.EnhancedSRStorage: sr.EnhancedSR,
    uid.ComprehensiveSRStorage: sr.ComprehensiveSR,
    uid.Comprehensive3DSRStorage: sr.Comprehensive3DSR,
}
OTHER_REPORTS: Final = frozenset({uid.BasicTextSRStorage, uid.KeyObjectSelectionDocumentStorage, uid.ProcedureLogStorage})
MOST_ITEMS = 200_000  # content items of one report
DEEPEST = 64  # levels of content items; real reports have under ten
_WHOLE_REPORT = ("C0034375", "UMLS")

Ref = tuple[str, list[int] | None, list[int] | None]  # SOP instance, frames, segments
Said = tuple[str, str, str, str]  # name's scheme and value, value's scheme and value


def read(dataset: Dataset) -> dict[str, Any]:
    """Groups with their codes and references, and the images that the report was made from.

    Raises: Rejected, if it is no TID 1500 or does not hold together.
    """
    _check_depth(dataset)
    try:
        content = CLASSES[dataset.SOPClassUID].from_dataset(dataset, copy=False).content
    except Exception as error:  # highdicom checks what the standard demands, and says so in many kinds of exception
        raise Rejected(Reason.HEADER) from error
    if not isinstance(content, MeasurementReport):
        raise Rejected(Reason.NOT_AN_IMAGE)
    evidence = list(_evidence(dataset))
    groups = [
        *content.get_image_measurement_groups(),
        *content.get_planar_roi_measurement_groups(),
        *content.get_volumetric_roi_measurement_groups(),
    ]
    return {
        "verified": dataset.get("VerificationFlag") == "VERIFIED",
        "preliminary": dataset.get("PreliminaryFlag") == "PRELIMINARY",
        "evidence": [item for item, _, _ in evidence],
        "groups": [
            *({"codes": _codes(group), "refs": list(_references(group[0]))} for group in groups),
            *({"codes": codes, "refs": evidence} for codes in _of_the_whole(content[0])),
        ],
    }


def _codes(group: Any) -> list[Said]:
    finding = group.finding_type
    said = [] if finding is None else [_said(FINDING.scheme, FINDING.value, finding)]
    return said + [_said(each.name.scheme_designator, each.name.value, each.value) for each in group.get_qualitative_evaluations()]


def _said(scheme: str, value: str, code: Any) -> Said:
    return (str(scheme), str(value), str(code.scheme_designator), str(code.value))


def _of_the_whole(root: Dataset) -> Iterator[list[Said]]:
    for item in _children(root):
        name = _code_in(item, "ConceptNameCodeSequence")
        if item.get("ValueType") == "CONTAINER" and name is not None and (name.value, name.scheme_designator) == _WHOLE_REPORT:
            yield [
                _said(asked.scheme_designator, asked.value, answer)
                for child in _children(item)
                if child.get("ValueType") == "CODE"
                and (asked := _code_in(child, "ConceptNameCodeSequence")) is not None
                and (answer := _code_in(child, "ConceptCodeSequence")) is not None
            ]


def _code_in(item: Dataset, keyword: str) -> sr.CodedConcept | None:
    sequence = item.get(keyword)
    return sr.CodedConcept.from_dataset(sequence[0]) if sequence else None


def _children(item: Dataset) -> Sequence[Dataset]:
    return item.get("ContentSequence") or ()


def _references(group: Dataset) -> Iterator[Ref]:
    """Every image or segmentation that a group names, at any depth."""
    waiting = [group]
    while waiting:
        item = waiting.pop()
        waiting.extend(_children(item))
        for reference in item.get("ReferencedSOPSequence") or ():
            yield _reference(reference)


def _reference(item: Dataset) -> Ref:
    return (str(item.ReferencedSOPInstanceUID), _numbers(item, "ReferencedFrameNumber"), _numbers(item, "ReferencedSegmentNumber"))


def _numbers(item: Dataset, keyword: str) -> list[int] | None:
    value = item.get(keyword)
    return None if value in (None, "") else [int(each) for each in ([value] if isinstance(value, (int, str)) else value)]


def _evidence(dataset: Dataset) -> Iterator[Ref]:
    for study in dataset.get("CurrentRequestedProcedureEvidenceSequence") or ():
        for series in study.get("ReferencedSeriesSequence") or ():
            for reference in series.get("ReferencedSOPSequence") or ():
                yield _reference(reference)


def _check_depth(dataset: Dataset) -> None:
    """Raises: Rejected, for more content, or deeper, than a report has; before code that is recursive sees it."""
    items, level = [*_children(dataset)], 1
    seen = len(items)
    while items:
        items = [child for item in items for child in _children(item)]
        seen, level = seen + len(items), level + 1
        if level > DEEPEST or seen > MOST_ITEMS:
            raise Rejected(Reason.HEADER)

# SPDX-License-Identifier: Apache-2.0
"""What one DICOM file tells without its pixels: an image whose it is and what made it, a report or segmentation what it says. In the child.

An image's header is told in full allow-list: identifiers, which the parent hashes at once, and the few facts that a data report counts.
An age is told in years; a date of birth stays in the file. Nobody's name is read.
"""

from dataclasses import asdict
from datetime import date
from io import BytesIO
from typing import Any, Final

import pydicom
from pydicom.dataset import Dataset

from client.imaging import dicom, frame_groups, geometry
from client.imaging.identity import LONGEST_ID
from client.imaging.labels import segmentation, structured_report
from client.imaging.rejection import Reason, Rejected

SUBJECT: Final = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "IssuerOfPatientID"]
ABOUT: Final = {  # name in the data report: attribute
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "protocol": "ProtocolName",
    "body_part": "BodyPartExamined",
    "sex": "PatientSex",
    "burned_in": "BurnedInAnnotation",
}
MEASURED: Final = ["Rows", "Columns", "NumberOfFrames", *geometry.TAGS, *frame_groups.TAGS]
AGE: Final = ["PatientAge", "PatientBirthDate", "StudyDate"]
_YEARS: Final = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
OLDEST = 130


def tell(content: bytes) -> dict[str, Any]:
    """Raises: Rejected, if it is no DICOM file, its header does not parse, or it is none of these."""
    if content[128:132] != b"DICM" and not dicom.begins_with_meta(content):
        raise Rejected(Reason.NOT_DICOM)
    try:
        tags = [*SUBJECT, *ABOUT.values(), *MEASURED, *AGE]
        header = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=tags, force=True)
        kind = str(header.get("SOPClassUID", "") or header.file_meta.get("MediaStorageSOPClassUID", ""))
        subject = {
            name: text(header, keyword) for name, keyword in zip(("study", "item"), ("StudyInstanceUID", "SOPInstanceUID"), strict=True)
        }
        subject |= {"issuer": text(header, "IssuerOfPatientID"), "patient": text(header, "PatientID")}
    except Rejected:
        raise
    except Exception as error:  # whatever a parser raises on hostile bytes, RecursionError included
        raise Rejected(Reason.HEADER) from error
    if kind in structured_report.CLASSES or kind in segmentation.CLASSES or kind in structured_report.OTHER_REPORTS:
        return {**subject, **_document(content, kind)}
    if kind not in dicom.IMAGES:
        raise Rejected(Reason.NOT_AN_IMAGE if kind else Reason.HEADER)
    return {**subject, "kind": "image", "about": _about(header), "years": years(header), "frames": _frames(header), **_place(header)}


def _document(content: bytes, kind: str) -> dict[str, Any]:
    """A report or a segmentation; one that cannot be used is told by the reason instead of being lost."""
    source = "segmentation" if kind in segmentation.CLASSES else "structured_report"
    told: dict[str, Any] = {"kind": source, "date": ""}
    try:
        if kind in structured_report.OTHER_REPORTS:
            raise Rejected(Reason.NOT_AN_IMAGE)
        dataset = pydicom.dcmread(BytesIO(content))
        told["date"] = segmentation.moment_of(dataset)
        return told | (segmentation.read(dataset) if source == "segmentation" else structured_report.read(dataset))
    except Rejected as rejected:
        return told | {"unusable": rejected.reason}
    except MemoryError:
        return told | {"unusable": Reason.TOO_LARGE}
    except Exception:
        return told | {"unusable": Reason.HEADER}


def text(dataset: Dataset, keyword: str) -> str:
    """An attribute as text, without padding. Raises: Rejected, if it is longer than an identifier is."""
    value = dataset.get(keyword)
    parts = value if isinstance(value, (list, pydicom.multival.MultiValue)) else [value]
    found = "\\".join("" if part is None else str(part) for part in parts).strip(" \0")
    if len(found) > LONGEST_ID:
        raise Rejected(Reason.HEADER)
    return found


def _about(header: Dataset) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, keyword in ABOUT.items():
        try:
            found[name] = text(header, keyword)[:64]
        except Exception:  # a damaged attribute of no consequence for training
            found[name] = ""
    rows, columns = header.get("Rows"), header.get("Columns")
    found["size"] = f"{rows} × {columns}" if isinstance(rows, int) and isinstance(columns, int) else ""
    return found


def years(header: Dataset) -> int | None:
    """Age in whole years: as it is written (0010,1010), else from birth to study; None where neither gives one."""
    try:
        written = text(header, "PatientAge")
        if written and written[-1] in _YEARS:
            age = int(int(written[:-1]) * _YEARS[written[-1]])
        else:
            born, examined = (date.fromisoformat(text(header, keyword)) for keyword in ("PatientBirthDate", "StudyDate"))
            age = examined.year - born.year - ((examined.month, examined.day) < (born.month, born.day))
    except Exception:
        return None
    return age if 0 <= age <= OLDEST else None


def _frames(header: Dataset) -> int:
    try:
        return max(1, int(header.get("NumberOfFrames") or 1))
    except Exception:
        return 1


def _place(header: Dataset) -> dict[str, Any]:
    """Rows and columns, and where the first frame lies in the patient; nothing of what is no usable number."""
    try:
        shape = [int(header.Rows), int(header.Columns)]
        return {"shape": shape, "geometry": asdict(geometry.geometry_of(frame_groups.attributes_of(header, 0)))}
    except Exception:
        return {"shape": None, "geometry": None}

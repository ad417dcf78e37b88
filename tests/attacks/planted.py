# SPDX-License-Identifier: Apache-2.0
"""A thousand patients who do not exist, made to be looked for, and the hospitals' folders that they lie in.

Everything about them is unlike anything else: names of syllables that no language has, numbers with letters, births in the nineteenth
century. It is written wherever a hospital has it: into the attributes where it belongs, into attributes where it does not, into private
ones, into the names of files and folders, into labels.csv and index.csv. Beside the good files lie damaged and hostile ones of the same
patients, since what fails is what talks.
"""

import csv
import os
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from tests.attacks.needles import spellings_of_date

CLASSES = ("left", "right")
SIZE = 16
ISSUER = "MADE"
_SYLLABLES = """
    zor quil vask mub drex phan wyth oltz kreg juv tamz byl xand frew gost hurk ilph nooz pavr sleq tchu umbz vrin wolx yeph zynd
    brux clov dwim elgr fjor gwaz hild
""".split()  # noqa: SIM905 - thirty-three words are read more easily so


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """All that a hospital knows of one patient. Each field is looked for."""

    family: str
    given: str
    patient_id: str
    other_id: str
    birth: date
    telephone: str
    accession: str
    study_uid: str
    series_uid: str
    sop_uid: str
    description: str
    comment: str
    referring: str
    folder: str
    file: str

    @property
    def name(self) -> str:
        return f"{self.family}^{self.given}"

    def values(self) -> dict[str, set[str]]:
        """Every text that must not be found, by what it is."""
        texts = {field.name: {str(getattr(self, field.name))} for field in fields(self) if field.name != "birth"}
        return {**texts, "birth": spellings_of_date(self.birth)}


def make_patients(count: int, *, seed: int = 0) -> list[Patient]:
    """Patients of whom no two share a value."""
    rng = random.Random(seed)
    words = _words(rng)
    births = rng.sample(range(20 * 365), count)

    def patient(number: int) -> Patient:
        family, given, referring, noun, verb, place, face = (next(words) for _ in range(7))
        if number % 10 == 0:
            family = family.replace("o", "ö").replace("u", "ü") + "ß"
        numbers = [rng.randrange(10**12) for _ in range(7)]
        return Patient(
            family=family.title(),
            given=given.title(),
            patient_id=f"MRN-{numbers[0]:012d}-{number:X}",
            other_id=f"INS/{numbers[1]:012d}",
            birth=date(1871, 1, 1) + timedelta(days=births[number]),
            telephone=f"+990 {numbers[2] % 10**11:011d}",
            accession=f"ACC{numbers[3]:012d}",
            study_uid=f"1.2.826.0.1.3680043.10.511.{number}.{numbers[4]}",
            series_uid=f"1.2.826.0.1.3680043.10.511.{number}.{numbers[5]}",
            sop_uid=f"1.2.826.0.1.3680043.10.511.{number}.{numbers[6]}",
            description=f"CT thorax, known {noun}",
            comment=f"Says that {place} {verb}s",
            referring=referring.title(),
            folder=f"{place}_{number}_folder",
            file=f"{face} scan {number}",
        )

    return [patient(number) for number in range(count)]


def _words(rng: random.Random) -> Iterable[str]:
    """Words of three syllables without end, each once."""
    seen: set[str] = set()
    while True:
        word = "".join(rng.sample(_SYLLABLES, 3))
        if word not in seen:
            seen.add(word)
            yield word


def dicom(patient: Patient, label: int, **attributes: Any) -> bytes:
    """One slice of a patient, bright on one side; `attributes` by keyword are set last, and removed where the value is None."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(patient.sop_uid)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = UID(patient.sop_uid)
    dataset.Modality = "CT"
    _describe(dataset, patient)
    _draw(dataset, patient, label)
    with disable_value_validation():
        for name, value in attributes.items():
            if name in dataset:
                del dataset[name]
            if value is not None:
                setattr(dataset, name, value)
        stream = BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _describe(dataset: Dataset, patient: Patient) -> None:
    dataset.PatientName = patient.name
    dataset.PatientID = patient.patient_id
    dataset.IssuerOfPatientID = ISSUER
    dataset.OtherPatientIDs = patient.other_id
    dataset.PatientBirthDate = patient.birth.strftime("%Y%m%d")
    dataset.PatientTelephoneNumbers = patient.telephone
    dataset.AccessionNumber = patient.accession
    dataset.StudyInstanceUID = UID(patient.study_uid)
    dataset.SeriesInstanceUID = UID(patient.series_uid)
    dataset.StudyDescription = dataset.SeriesDescription = patient.description
    dataset.PatientComments = dataset.ImageComments = patient.comment
    dataset.ReferringPhysicianName = f"{patient.referring}^Dr"
    dataset.private_block(0x0011, "MADE BY NOBODY", create=True).add_new(0x01, "LO", patient.name)


def _draw(dataset: Dataset, patient: Patient, label: int) -> None:
    pixels = np.random.default_rng([label, len(patient.folder), int(patient.accession[3:])]).integers(
        0, 2000, (SIZE, SIZE), dtype=np.uint16
    )
    pixels[3:13, 9 * label + 1 : 9 * label + 6] += 1500
    dataset.Rows = dataset.Columns = SIZE
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"


def fill_hospital(folder: Path, patients: Sequence[Patient], *, by: str, wrecks: Sequence[Patient] = ()) -> Path:
    """A folder for each patient, and labels.csv `by` path or by sop_instance_uid; `wrecks` are of these patients."""
    content = {f"{patient.folder}/{patient.file}.dcm": (patient, dicom(patient, number % 2)) for number, patient in enumerate(patients)}
    for (what, wreck), patient in zip(WRECKS.items(), wrecks, strict=False):
        content[f"{patient.folder}/{patient.file} {what}.dcm"] = (patient, wreck(patient))
    for path, (_, slice_) in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(slice_)
    names = {path: path if by == "path" else patient.sop_uid for path, (patient, _) in content.items()}
    rows = [(names[path], CLASSES[number % 2], content[path][0].name) for number, path in enumerate(content)]
    write_csv(folder / "labels.csv", (by, "label", "whose"), rows)
    if wrecks:
        _litter(folder, wrecks[-1])
    return folder


def _litter(folder: Path, patient: Patient) -> None:
    """What lies about in such folders and is no image."""
    (folder / f"{patient.file} notes.txt").write_text(repr(patient))
    (folder / f"{patient.file} link.dcm").symlink_to(f"/nowhere/{patient.name}")
    os.mkfifo(folder / f"{patient.file} pipe.dcm")
    (folder / f"{patient.folder} disc").mkdir()
    (folder / f"{patient.folder} disc" / "DICOMDIR").write_bytes(dicom(patient, 0))


def _with(**attributes: str | None) -> Callable[[Patient], bytes]:
    """A file in which the patient's own values, by field, stand where another attribute belongs."""

    def wreck(patient: Patient) -> bytes:
        return dicom(patient, 0, **{name: getattr(patient, value) if value else None for name, value in attributes.items()})

    return wreck


def _instead_of_a_number(name: str) -> Callable[[Patient], bytes]:
    """The given name in a decimal string, past the writer's own checks."""

    def wreck(patient: Patient) -> bytes:
        digits = "1" * len(patient.given)
        return dicom(patient, 0, **{name: digits}).replace(digits.encode(), patient.given.encode())

    return wreck


def _garbled(patient: Patient) -> bytes:
    content = bytearray(dicom(patient, 0))
    content[400:900:7] = bytes(len(content[400:900:7]))
    return bytes(content)


def _with_rows_of_text(patient: Patient) -> bytes:
    return dicom(patient, 0).replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00DS")


def _of_an_unknown_compression(patient: Patient) -> bytes:
    syntax, name = ExplicitVRLittleEndian.encode(), patient.given.encode()
    return dicom(patient, 0).replace(syntax, name.ljust(len(syntax))[: len(syntax)], 1)


def _of_an_unknown_alphabet(patient: Patient) -> bytes:
    name = patient.given.encode() + b" " * (len(patient.given) % 2)
    return dicom(patient, 0).replace(b"CS\x0a\x00ISO_IR 192", b"CS" + len(name).to_bytes(2, "little") + name)


WRECKS: dict[str, Callable[[Patient], bytes]] = {
    "cut": lambda patient: dicom(patient, 0)[:-300],
    "torn": lambda patient: dicom(patient, 0)[:600],
    "bare": lambda patient: dicom(patient, 0)[400:],  # without preamble alone it would be read
    "garbled": _garbled,
    "rows": _with_rows_of_text,
    "compression": _of_an_unknown_compression,
    "nobody": _with(PatientID=None),
    "blank": lambda patient: dicom(patient, 0, PatientID="  "),
    "anonymous": lambda patient: dicom(patient, 0, PatientID="ANON"),
    "pixels": _with(PixelData=None),
    "modality": _with(Modality="given"),
    "photometric": _with(PhotometricInterpretation="given"),
    "object": _with(SOPClassUID="study_uid"),
    "charset": _of_an_unknown_alphabet,
    "function": lambda patient: dicom(patient, 0, WindowCenter="1", WindowWidth="2", VOILUTFunction=patient.given),
    "long": lambda patient: dicom(patient, 0, PatientID=patient.patient_id * 20),
    "frames": lambda patient: dicom(patient, 0, NumberOfFrames=50),
    "slope": _instead_of_a_number("RescaleSlope"),
    "window": _instead_of_a_number("WindowCenter"),
    "text": lambda patient: repr(patient).encode(),
}
"""What is wrong with a file, and how to make it so."""


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if header:
            writer.writerow(header)
        writer.writerows(rows)


def picture(label: int, seed: int) -> bytes:
    """A PNG, bright on one side."""
    pixels = np.random.default_rng(seed).integers(40, 120, (SIZE, SIZE), dtype=np.uint8)
    pixels[3:13, 9 * label + 1 : 9 * label + 6] += 80
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def fill_album(folder: Path, patients: Sequence[Patient]) -> Path:
    """A PNG for each patient, and index.csv; the last file is no picture."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, patient in enumerate(patients):
        content = repr(patient).encode() if patient is patients[-1] else picture(number % 2, number)
        (folder / f"{patient.file}.png").write_bytes(content)
        rows.append((f"{patient.file}.png", CLASSES[number % 2], patient.patient_id, patient.name, patient.comment))
    write_csv(folder / "index.csv", ("file", "label", "patient_id", "name", "comment"), rows)
    return folder

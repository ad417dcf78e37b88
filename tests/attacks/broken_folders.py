# SPDX-License-Identifier: Apache-2.0
"""Folders that are no data, each wrong in another way, and the code that says so; and folders that are, under names that nobody should use.

All of them name patients where the mistake is.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.attacks import planted
from tests.attacks.planted import CLASSES, Patient

Spoil = Callable[[Path, Sequence[Patient]], None]


def _index(header: Sequence[str], row: Callable[[int, Patient], Iterable[Any]]) -> Spoil:
    """Pictures of patients, and an index.csv with such rows."""

    def spoil(folder: Path, patients: Sequence[Patient]) -> None:
        planted.fill_album(folder, patients)
        planted.write_csv(folder / "index.csv", header, [list(row(number, patient)) for number, patient in enumerate(patients)])

    return spoil


def _labels(header: Sequence[str], row: Callable[[int, Patient], Iterable[Any]]) -> Spoil:
    """DICOM files of patients, and a labels.csv with such rows."""

    def spoil(folder: Path, patients: Sequence[Patient]) -> None:
        planted.fill_hospital(folder, patients, by="path")
        planted.write_csv(folder / "labels.csv", header, [list(row(number, patient)) for number, patient in enumerate(patients)])

    return spoil


def _wrecks(folder: Path, patients: Sequence[Patient]) -> None:
    planted.fill_hospital(folder, [], by="sop_instance_uid", wrecks=patients[:8])


def _unlabelled(folder: Path, patients: Sequence[Patient]) -> None:
    (planted.fill_hospital(folder, patients, by="path") / "labels.csv").unlink()


def _not_utf_8(folder: Path, patients: Sequence[Patient]) -> None:
    planted.fill_hospital(folder, patients, by="path")
    (folder / "labels.csv").write_bytes(b"path,label\n" + f"{patients[0].family}ß,left\n".encode("latin-1"))


def _folders_of_patients(folder: Path, patients: Sequence[Patient]) -> None:
    for number in range(3):
        planted.fill_hospital(folder / patients[number].name, patients[number::3], by="path")


def _no_archive(folder: Path, patients: Sequence[Patient]) -> None:
    planted.write_csv(folder / "index.csv", ("row", "label", "patient_id"), [(0, "left", patients[0].patient_id)])
    (folder / "images.npz").write_bytes(repr(patients[0]).encode())


_FILE = ("file", "label", "patient_id")
BROKEN: dict[str, tuple[str, Spoil]] = {
    "wrecks": ("E_DATA_UNREADABLE", _wrecks),
    "unlabelled": ("E_DATA_NOT_FOUND", _unlabelled),
    "not utf-8": ("E_LABELS", _not_utf_8),
    "other patients' labels": ("E_LABELS", _labels(("path", "label"), lambda n, p: (f"{p.name}/{p.patient_id}.dcm", CLASSES[n % 2]))),
    "other uids": ("E_LABELS", _labels(("sop_instance_uid", "label"), lambda n, p: (p.study_uid, CLASSES[n % 2]))),
    "cell of text": ("E_LABELS", _labels(("path", "label"), lambda n, p: (p.file, p.name))),
    "another column": ("E_LABELS", _labels(("path", "whose"), lambda n, p: (p.file, p.name))),
    "no header in labels": ("E_LABELS", _labels((), lambda n, p: (p.sop_uid, CLASSES[n % 2], p.name, p.comment))),
    "ragged": ("E_LABELS", _labels(("path", "label"), lambda n, p: (p.file, "left", p.name)[: 2 + n % 2])),
    "quotes": ("E_LABELS", _labels(("path", "label"), lambda n, p: (f'"{p.name}', "left"))),
    "one image, two labels": ("E_LABELS", _labels(("path", "label"), lambda n, p: ("one", CLASSES[n % 2]))),
    "one class": ("E_LABELS", _labels(("sop_instance_uid", "label"), lambda n, p: (p.sop_uid, "left"))),
    "no header in the index": ("E_LABELS", _index((), lambda n, p: (f"{p.file}.png", n % 2, p.patient_id, p.name))),
    "no label in the index": ("E_LABELS", _index(("file", "diagnosis", "patient_id"), lambda n, p: (f"{p.file}.png", n % 2, p.patient_id))),
    "row of text": ("E_LABELS", _index(("row", "label", "patient_id"), lambda n, p: (p.patient_id, n % 2, p.patient_id))),
    "split of text": ("E_LABELS", _index((*_FILE, "split"), lambda n, p: (f"{p.file}.png", n % 2, p.patient_id, p.referring))),
    "outside": ("E_DATA_UNREADABLE", _index(_FILE, lambda n, p: (f"../{p.name}/{p.file}.png", n % 2, p.patient_id))),
    "straddling": ("E_SPLIT", _index((*_FILE, "split"), lambda n, p: (f"{p.file}.png", n % 2, "one", ("train", "test")[n % 2]))),
    "no sites": ("E_LABELS", _index(_FILE, lambda n, p: (f"{p.file}.png", n % 2, p.patient_id))),
    "sites called after patients": ("E_LABELS", _index((*_FILE, "site"), lambda n, p: (f"{p.file}.png", n % 2, p.patient_id, p.name))),
    "folders called after patients, as sites": ("E_LABELS", _folders_of_patients),
    "no archive": ("E_DATA_UNREADABLE", _no_archive),
}  # fmt: skip

MISLEADING: dict[str, Spoil] = {
    "folders called after patients": _folders_of_patients,
    "origins called after patients": _index((*_FILE, "site"), lambda n, p: (f"{p.file}.png", n % 2, p.patient_id, p.name)),
}
"""Dealt to sites with other names, these are data like any other."""

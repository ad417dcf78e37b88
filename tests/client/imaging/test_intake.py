# SPDX-License-Identifier: Apache-2.0
"""From a hospital's folder to a data set: every file accounted for, patients whole, nobody named."""

import base64
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from client.imaging.dataset import Dataset
from client.imaging.identity import PatientSecret, patient_key
from client.imaging.intake import DataSource, Fractions, IntakeReport, open_dataset
from client.imaging.rejection import REMEDY, Reason
from client.imaging.splits import Split
from common.errors import DataError, DataNotFound, DataUnreadable, DiskFull, LabelsMismatch
from common.plan import Plan, Window

Hospital = Callable[..., Path]
Ct = Callable[..., bytes]
Opener = Callable[..., tuple[Dataset, IntakeReport]]


@pytest.fixture
def opened(tmp_path: Path, secret: PatientSecret, plan_for: Callable[..., Plan]) -> Opener:
    """opened(root, labels=None, plan=None, key=None, **options) with a cache of this test's own."""

    def run(
        root: Path, *, labels: Path | None = None, plan: Plan | None = None, key: PatientSecret | None = None, **options: Any
    ) -> tuple[Dataset, IntakeReport]:
        source = DataSource(root=root, labels=labels)
        return open_dataset(source, plan or plan_for(), cache=tmp_path / "cache", key=key or secret, workers=1, **options)

    return run


def test_a_folder_becomes_a_data_set(hospital: Hospital, opened: Opener, secret: PatientSecret) -> None:
    steps: list[tuple[int, int]] = []
    data, report = opened(hospital(patients=4, slices=2), progress=lambda done, total: steps.append((done, total)))
    assert report == IntakeReport(seen=8, used=8, rejected={}, unmatched_labels=0)
    assert data.images.shape == (8, 1, 16, 12)
    assert data.labels.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert data.num_patients == 4
    assert data.unit_source == "patient_id"
    assert data.sites is None
    assert [data.patient_keys[patient] for patient in data.patients[::2]] == [
        patient_key(secret, "NORTH", f"MRN-{number:04d}") for number in range(4)
    ]
    assert steps == [(done, 8) for done in range(1, 9)]


def test_the_pixels_are_the_files(hospital: Hospital, opened: Opener) -> None:
    data, _ = opened(hospital(patients=2, slices=1))
    pixels = np.random.default_rng(2).integers(0, 4096, (16, 12), dtype=np.uint16)  # the first that the fixture drew
    np.testing.assert_allclose(data.images[0][0] / 65535, pixels / 4095, atol=1e-4)


def test_every_bad_file_is_counted_and_none_stops_the_run(hospital: Hospital, opened: Opener, ct: Ct, tmp_path: Path) -> None:
    root = hospital(patients=2, slices=1)
    labelled = [line.split(",")[0] for line in (root / "labels.csv").read_text().splitlines()[1:]]
    (root / "notes.txt").write_text("hello")
    (root / "report.dcm").write_bytes(ct(PixelData=None))
    (root / "nobody.dcm").write_bytes(ct(PatientID=""))
    (root / "mr.dcm").write_bytes(ct(Modality="MR"))
    (root / "unlabelled.dcm").write_bytes(ct())
    (root / "copy.dcm").write_bytes(ct(np.eye(8, dtype=np.uint16), SOPInstanceUID=labelled[0]))
    (root / "link.dcm").symlink_to(tmp_path)
    (root / "DICOMDIR").write_bytes(b"")
    with (root / "labels.csv").open("a") as file:
        file.write("1.2.3.4.5,normal\n")
    _, report = opened(root)
    assert (report.seen, report.used, report.unmatched_labels) == (10, 2, 1)
    assert report.rejected == {
        Reason.NOT_DICOM: 1,
        Reason.NO_LABEL: 2,  # the report has no label either, and is given up before its pixels are missed
        Reason.NO_PATIENT_ID: 1,
        Reason.MODALITY: 1,
        Reason.DUPLICATE: 1,
        Reason.LINK: 1,
        Reason.DICOMDIR: 1,
    }
    assert report.lines()[0] == "10 files seen: 2 used, 8 rejected"
    assert opened(root)[1] == report, "the account of a cached folder is the account of the folder"


def test_labels_may_go_by_path_and_lie_elsewhere(hospital: Hospital, opened: Opener, tmp_path: Path) -> None:
    root = hospital(patients=2, slices=2)
    (root / "labels.csv").unlink()
    labels = tmp_path / "by_path.csv"
    labels.write_text("path,label\nseries/0000_0.dcm,nodule\nseries/0001_1.dcm,0\nseries/absent.dcm,1\n")
    data, report = opened(root, labels=labels)
    assert data.labels.tolist() == [1, 0]
    assert report == IntakeReport(seen=4, used=2, rejected={Reason.NO_LABEL: 2}, unmatched_labels=1)


@given(st.integers(0, 50), st.integers(0, 50), st.dictionaries(st.sampled_from(Reason), st.integers(0, 20), max_size=4))
def test_an_account_that_does_not_add_up_cannot_be_made(seen: int, used: int, rejected: dict[Reason, int]) -> None:
    if seen == used + sum(rejected.values()):
        assert IntakeReport(seen=seen, used=used, rejected=rejected).as_dict()["seen"] == seen
    else:
        with pytest.raises(DataError, match=f"{seen} files seen, but {used} used"):
            IntakeReport(seen=seen, used=used, rejected=rejected)


def test_every_reason_has_a_remedy() -> None:
    assert set(REMEDY) == set(Reason)


def test_the_same_secret_keeps_patients_on_their_side_and_a_new_one_moves_them(hospital: Hospital, opened: Opener) -> None:
    root = hospital(patients=40, slices=1)
    options: dict[str, Any] = {"fractions": Fractions(validation=0.25, test=0.25)}
    first, _ = opened(root, **options)
    again, _ = opened(root, **options)
    moved, _ = opened(root, key=PatientSecret(value=os.urandom(32)), **options)
    np.testing.assert_array_equal(first.splits, again.splits)
    assert first.patient_keys == again.patient_keys
    assert not set(first.patient_keys) & set(moved.patient_keys)
    assert np.mean(first.splits != moved.splits) > 0.2
    assert {int(split) for split in first.splits} == {0, 1, 2}


def test_a_new_patient_moves_nobody(hospital: Hospital, opened: Opener, ct: Ct) -> None:
    root = hospital(patients=12, slices=1)
    before, _ = opened(root)
    uid = generate_uid()
    (root / "a_new_one.dcm").write_bytes(ct(PatientID="MRN-NEW", SOPInstanceUID=uid))
    with (root / "labels.csv").open("a") as file:
        file.write(f"{uid},normal\n")
    after, _ = opened(root)
    sides = {after.patient_keys[patient]: split for patient, split in zip(after.patients, after.splits, strict=True)}
    assert len(sides) == 13
    assert all(sides[before.patient_keys[patient]] == split for patient, split in zip(before.patients, before.splits, strict=True))


def test_no_patient_is_on_two_sides(hospital: Hospital, opened: Opener) -> None:
    data, _ = opened(hospital(patients=15, slices=3))
    for patient in range(15):
        assert len(set(data.splits[data.patients == patient])) == 1
    assert sum(len(data.rows_of(split)) for split in Split) == len(data)


def garble(root: Path) -> None:
    """Replace every DICOM file by zeros of the same size and time: whoever still reads pixels would notice."""
    for path in root.rglob("*.dcm"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_second_opening_decodes_nothing(hospital: Hospital, opened: Opener) -> None:
    root = hospital(patients=3, slices=2)
    first, _ = opened(root)
    garble(root)
    second, _ = opened(root, progress=lambda *_: pytest.fail("a file was read"))
    np.testing.assert_array_equal(first.images[:], second.images[:])


def test_an_epoch_needs_no_source_files(hospital: Hospital, opened: Opener) -> None:
    root = hospital(patients=3, slices=2)
    data, _ = opened(root)
    expected = np.array(data.images)
    shutil.rmtree(root)
    for start in range(0, 6, 2):
        np.testing.assert_array_equal(data.images[np.arange(start, start + 2)], expected[start : start + 2])


def test_a_corrected_label_decodes_nothing_and_counts(hospital: Hospital, opened: Opener) -> None:
    root = hospital(patients=4, slices=1)
    opened(root)
    garble(root)
    lines = (root / "labels.csv").read_text().splitlines()
    lines[1] = lines[1].replace("normal", "nodule")
    (root / "labels.csv").write_text("\n".join(lines))
    data, _ = opened(root)
    assert data.labels.tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize("change", [{"height": 24}, {"channels": 3}, {"window": {"centre": 1000.0, "width": 500.0}}])
def test_another_input_is_another_cache(hospital: Hospital, opened: Opener, plan_for: Callable[..., Plan], change: dict[str, Any]) -> None:
    root = hospital(patients=2, slices=1)
    first, _ = opened(root)
    window = {"window": Window(**change["window"])} if "window" in change else {}
    second, _ = opened(root, plan=plan_for(**{**change, **window}))
    assert first.images.shape != second.images.shape or not np.array_equal(first.images[:], second.images[:])


def test_a_changed_file_is_read_again(hospital: Hospital, opened: Opener) -> None:
    root = hospital(patients=2, slices=1)
    opened(root)
    (root / "series" / "0000_0.dcm").write_bytes(b"no longer an image")
    (root / "series" / "new.txt").write_bytes(b"")
    with pytest.raises(LabelsMismatch, match="every usable image is 'nodule'"):
        opened(root)


PLANTED = ["DOE-JANE-4711", "ISSUER-XYZZY", "1.2.826.0.1.3680043.8.498.4711", "Doe^Jane", "19511105", "folder_of_doe", "file_of_jane"]


def test_no_identifier_and_no_file_name_is_anywhere_in_the_cache(
    tmp_path: Path, ct: Ct, opened: Opener, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    patient, issuer, uid, name, birth, folder, file = PLANTED
    root = tmp_path / "root"
    (root / folder).mkdir(parents=True)
    identity = {"PatientID": patient, "IssuerOfPatientID": issuer, "PatientName": name, "PatientBirthDate": birth}
    rng = np.random.default_rng(0)
    for index in range(4):
        pixels = rng.integers(0, 4096, (16, 12), dtype=np.uint16)
        (root / folder / f"{file}{index}.dcm").write_bytes(ct(pixels, SOPInstanceUID=f"{uid}.{index}", **identity))
    (root / folder / f"{file}_broken.dcm").write_bytes(ct(SOPInstanceUID=f"{uid}.9", **identity)[:-200])
    (root / "labels.csv").write_text("sop_instance_uid,label\n" + "".join(f"{uid}.{index},{index % 2}\n" for index in range(10)))
    _, report = opened(root)
    assert (report.used, report.seen) == (4, 5)
    shown = (*capfd.readouterr(), caplog.text, str(report), *report.lines(), str(report.as_dict()))
    kept = list((tmp_path / "cache").rglob("*"))
    haystack = b"\n".join(
        [*(path.read_bytes() for path in kept if path.is_file()), *(str(path).encode() for path in kept), str(shown).encode()]
    )
    assert len(haystack) > 1000
    for identifier in PLANTED:
        assert not {form for form in spellings(identifier) if form in haystack}, identifier
    control = haystack + patient.encode("utf-16-le")
    assert any(form in control for form in spellings(patient)), "the search must find what is there"


def spellings(text: str) -> set[bytes]:
    """An identifier in the ways it could leak: as it is, in other cases, reversed, in UTF-16, hex and base64."""
    raw = text.encode()
    return {
        raw, raw.lower(), raw.upper(), raw[::-1], text.encode("utf-16-le"), text.encode("utf-16-be"), raw.hex().encode(),
        base64.b64encode(raw)[: len(raw) * 4 // 3 - 2],
    }  # fmt: skip


def test_labels_that_match_nothing_are_explained(hospital: Hospital, opened: Opener, tmp_path: Path) -> None:
    root = hospital(patients=2, slices=2)
    (root / "labels.csv").write_text("sop_instance_uid,label\n1.2.3,normal\n1.2.4,nodule\n1.2.5,nodule\n")
    with pytest.raises(LabelsMismatch) as refused:
        opened(root)
    for part in ("3 images are labelled", "column 'label'", "4 files lie in", "not one file has a label", "SOPInstanceUIDs (0008,0018)"):
        assert part in str(refused.value)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_labels_by_path_that_match_nothing_are_explained(hospital: Hospital, opened: Opener, tmp_path: Path) -> None:
    root = hospital(patients=2, slices=2)
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\nelsewhere/1.dcm,normal\nelsewhere/2.dcm,nodule\n")
    with pytest.raises(LabelsMismatch, match=r"2 images are labelled.*5 files lie in.*their paths start below it"):
        opened(root, labels=labels)


def test_a_folder_without_a_usable_file_is_explained(tmp_path: Path, opened: Opener, ct: Ct) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "labels.csv").write_text("path,label\na.dcm,0\nb.dcm,1\n")
    for name in "ab":
        (root / f"{name}.dcm").write_bytes(ct(PatientID="ANON"))
    with pytest.raises(DataUnreadable, match=r"none of its 2 files can be used \(E_NO_PATIENT_ID 2\).*pseudonym per patient"):
        opened(root)


def test_folders_that_are_absent_empty_or_unlabelled_are_explained(tmp_path: Path, opened: Opener) -> None:
    with pytest.raises(DataNotFound, match="does not exist"):
        opened(tmp_path / "nowhere")
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(DataNotFound, match=r"no labels.*sop_instance_uid and 'label'"):
        opened(root)
    (root / "labels.csv").write_text("path,label\na.dcm,0\n")
    with pytest.raises(DataNotFound, match="is empty"):
        opened(root)
    with pytest.raises(DataNotFound, match="no labels"):
        opened(root, labels=tmp_path / "absent.csv")


def test_a_disk_without_room_is_explained_before_anything_is_read(
    hospital: Hospital, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(DiskFull, match=r"0 MiB free.*name a folder on another disk"):
        opened(hospital(), progress=lambda *_: pytest.fail("a file was read"))


def test_a_subset_is_lazy_and_keeps_everything_aligned(hospital: Hospital, opened: Opener) -> None:
    data, _ = opened(hospital(patients=5, slices=2))
    rows = np.array([7, 2, 3])
    part = data.subset(rows)
    assert part.images.base is data.images.base
    np.testing.assert_array_equal(part.images[:], data.images[rows])
    np.testing.assert_array_equal(part.images[1], data.images[2])
    assert part.labels.tolist() == data.labels[rows].tolist()
    assert part.num_patients == 2
    assert part.patient_keys == data.patient_keys
    np.testing.assert_array_equal(part.subset(np.array([True, False, True])).images[:], data.images[np.array([7, 3])])
    assert part.images.nbytes == 3 * 16 * 12 * 2

# SPDX-License-Identifier: Apache-2.0
"""Made data must be real DICOM, the same for the same seed, unlike from hospital to hospital, and not solvable by brightness."""

import hashlib
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from common.errors import DiskFull, PlanValue, RunFolderTaken
from simulations.phantoms import PhantomSpec, write

SMALL = PhantomSpec(hospitals=2, patients_per_hospital=5, slices_per_patient=2, size_px=64, seed=7)
WINDOW_LOW_HU, WINDOW_HIGH_HU = -1350.0, 150.0

# PS3.3 A.3: what a CT image must carry (types 1 and 2), apart from what pydicom writes by itself.
REQUIRED = [
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "IssuerOfPatientID", "StudyInstanceUID", "StudyDate",
    "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber", "Modality", "SeriesInstanceUID", "SeriesNumber",
    "PatientPosition", "FrameOfReferenceUID", "PositionReferenceIndicator", "Manufacturer", "InstanceNumber",
    "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "SliceThickness", "ImageType", "SamplesPerPixel",
    "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelData", "RescaleIntercept", "RescaleSlope", "KVP", "AcquisitionNumber", "WindowCenter", "WindowWidth",
    "SOPClassUID", "SOPInstanceUID",
]  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_labels(hospital: Path) -> dict[str, int]:
    header, *lines = (hospital / "labels.csv").read_text().splitlines()
    assert header == "sop_instance_uid,label"
    return {uid: int(label) for uid, label in (line.split(",") for line in lines)}


def hounsfield(dataset: pydicom.Dataset) -> NDArray[np.float64]:
    return dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "small"
    write(SMALL, folder)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten hospitals, as in the default plan, with fewer patients."""
    folder = tmp_path_factory.mktemp("phantoms") / "large"
    write(PhantomSpec(hospitals=10, patients_per_hospital=40, slices_per_patient=1, size_px=64, seed=1), folder)
    return folder


def test_same_seed_writes_the_same_bytes_with_any_number_of_workers(small: Path, tmp_path: Path) -> None:
    write(SMALL, tmp_path / "again", workers=2)
    assert digests(tmp_path / "again") == digests(small)


def test_another_seed_writes_other_people(small: Path, tmp_path: Path) -> None:
    other = PhantomSpec(hospitals=2, patients_per_hospital=5, slices_per_patient=2, size_px=64, seed=8)
    write(other, tmp_path / "other")
    assert set(digests(tmp_path / "other").values()).isdisjoint(digests(small).values())


def test_a_patient_does_not_depend_on_how_many_hospitals_there_are(small: Path, tmp_path: Path) -> None:
    write(PhantomSpec(hospitals=1, patients_per_hospital=5, slices_per_patient=2, size_px=64, seed=7), tmp_path / "one")
    assert digests(tmp_path / "one").items() <= digests(small).items()


def test_patients_may_differ_in_how_many_slices_they_have(tmp_path: Path) -> None:
    spec = replace(SMALL, patients_per_hospital=12, slices_per_patient=(3, 6))
    write(spec, tmp_path / "some", workers=2)
    found = Counter(f"{path.parent.name}/{path.name[:6]}" for path in (tmp_path / "some").rglob("*.dcm"))
    assert set(found.values()) == {3, 4, 5, 6}
    assert found.total() == spec.num_slices


def test_a_range_of_one_number_writes_the_bytes_of_that_number(small: Path, tmp_path: Path) -> None:
    write(replace(SMALL, slices_per_patient=(2, 2)), tmp_path / "two")
    assert digests(tmp_path / "two") == digests(small)


def test_every_file_is_a_whole_ct_image(small: Path) -> None:
    files = sorted(small.rglob("*.dcm"))
    assert len(files) == SMALL.num_slices
    for path in files:
        dataset = pydicom.dcmread(path)
        missing = [name for name in REQUIRED if name not in dataset]
        assert not missing
        assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert dataset.SOPClassUID == pydicom.uid.CTImageStorage
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        assert dataset.SOPInstanceUID.is_valid
        assert len(dataset.SOPInstanceUID) <= 64
        assert dataset.pixel_array.shape == (64, 64)
        assert "phantom" in dataset.ImageComments


def test_identifiers_are_unique_where_they_must_be_and_shared_where_they_must_be(small: Path) -> None:
    datasets = [pydicom.dcmread(path, stop_before_pixels=True) for path in small.rglob("*.dcm")]
    assert len({d.SOPInstanceUID for d in datasets}) == SMALL.num_slices
    patients = {(d.IssuerOfPatientID, d.PatientID) for d in datasets}
    assert len(patients) == SMALL.hospitals * SMALL.patients_per_hospital
    assert len({d.StudyInstanceUID for d in datasets}) == len({d.SeriesInstanceUID for d in datasets}) == len(patients)
    assert len({d.PatientID for d in datasets}) == SMALL.patients_per_hospital, "hospitals reuse each other's numbers"


def test_every_file_has_one_label_and_all_slices_of_a_patient_agree(small: Path) -> None:
    for hospital in sorted(small.iterdir()):
        labels = read_labels(hospital)
        datasets = [pydicom.dcmread(path, stop_before_pixels=True) for path in hospital.glob("*.dcm")]
        assert {str(d.SOPInstanceUID) for d in datasets} == set(labels)
        assert len({(d.PatientID, labels[d.SOPInstanceUID]) for d in datasets}) == SMALL.patients_per_hospital
        assert set(labels.values()) == {0, 1}


def test_hounsfield_units_are_those_of_a_chest(small: Path) -> None:
    for path in small.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        hu = hounsfield(dataset)
        if "PixelPaddingValue" in dataset:
            hu = hu[dataset.pixel_array != dataset.PixelPaddingValue]
        assert hu.min() >= -1250
        assert hu.max() <= 1200
        lung, tissue = np.mean((hu > -950) & (hu < -700)), np.mean((hu > -150) & (hu < 120))
        assert 0.05 < lung < 0.5
        assert 0.15 < tissue < 0.7


def test_hospitals_differ_in_encoding_noise_and_prevalence(large: Path) -> None:
    encodings, prevalences, noise = set(), [], []
    for hospital in sorted(large.iterdir()):
        dataset = pydicom.dcmread(hospital / "001000_1.dcm")
        encodings.add((dataset.RescaleSlope, dataset.RescaleIntercept, dataset.PixelRepresentation, dataset.Manufacturer))
        prevalences.append(np.mean(list(read_labels(hospital).values())))
        air = hounsfield(dataset)[2:8, 24:40]
        noise.append(float(air.std()))
    assert len(encodings) == 4
    assert max(prevalences) - min(prevalences) > 0.1
    assert max(noise) > 1.5 * min(noise)


def windowed(path: Path) -> NDArray[np.float64]:
    """A slice as the network sees it: window, then half the size by averaging."""
    hu = hounsfield(pydicom.dcmread(path))
    scaled = np.clip((hu - WINDOW_LOW_HU) / (WINDOW_HIGH_HU - WINDOW_LOW_HU), 0, 1)
    return np.asarray(scaled.reshape(32, 2, 32, 2).mean((1, 3)))


def test_brightness_alone_does_not_give_the_nodule_away(large: Path) -> None:
    histograms, labels, groups = [], [], []
    for index, hospital in enumerate(sorted(large.iterdir())):
        by_uid = read_labels(hospital)
        for path in sorted(hospital.glob("*.dcm")):
            histograms.append(np.histogram(windowed(path), bins=64, range=(0, 1))[0])
            labels.append(by_uid[pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID])
            groups.append(f"{index}/{path.name[:6]}")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    scores = cross_val_predict(model, np.array(histograms), labels, groups=groups, cv=GroupKFold(5), method="predict_proba")
    assert roc_auc_score(labels, scores[:, 1]) < 0.65


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    with pytest.raises(RunFolderTaken, match="exists already"):
        write(SMALL, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine.txt"]


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(_written: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(SMALL, tmp_path / "data", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_is_noticed_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _where: SimpleNamespace(free=1))
    with pytest.raises(DiskFull, match="MiB are needed"):
        write(SMALL, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_progress_ends_at_the_number_of_slices(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write(SMALL, tmp_path / "data", progress=lambda written, total: seen.append((written, total)))
    assert seen[-1] == (SMALL.num_slices, SMALL.num_slices)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hospitals", 0),
        ("patients_per_hospital", 1),
        ("slices_per_patient", 0),
        ("slices_per_patient", (6, 3)),
        ("slices_per_patient", (3, 10)),
        ("size_px", 16),
        ("nodule_diameter_mm", (30.0, 16.0)),
    ],
)
def test_an_impossible_spec_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(PlanValue, match=f"phantoms.{name}"):
        PhantomSpec(**{name: value})

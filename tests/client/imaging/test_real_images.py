# SPDX-License-Identifier: Apache-2.0
"""Real and hostile files, where they are at hand: nothing crashes, nothing is lost. What each of them is: test_inventory.py."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.imaging.identity import PatientSecret
from client.imaging.intake import DataSource, open_dataset
from client.imaging.rejection import Reason
from client.imaging.splits import Split
from common.plan import Plan

RealData = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "column", "classes", "channels", "size", "patients", "source"),
    [
        ("ct-lung", "label", ("normal", "abnormal"), 1, 878, 76, "patient_id"),
        ("ct-lung", "label3", ("normal", "benign", "malignant"), 1, 878, 76, "patient_id"),
        ("xray-pneumonia", "label", ("normal", "pneumonia"), 1, 5232, 5232, "none"),
        ("cell-malaria", "label", ("uninfected", "parasitised"), 3, 21972, 157, "patient_id"),
        ("cell-bccd3", "label_name", ("RBC", "WBC", "Platelets"), 3, 1322, 292, "group_id"),
        ("det-bccd", "split", ("train", "val"), 3, 292, 292, "image_id"),  # has no class of its own
        ("seg-nuclei", "split", ("train", "val"), 1, 531, 197, "group_id"),  # nor has this one
    ],
)
def test_every_real_set_opens_whole(
    name: str, column: str, classes: tuple[str, ...], channels: int, size: int, patients: int, source: str,
    real_data: RealData, plan_for: Callable[..., Plan], secret: PatientSecret, tmp_path: Path,
) -> None:  # fmt: skip
    plan = plan_for(classes=classes, column=column, channels=channels, height=24, width=24, modality="any")
    data, report = open_dataset(DataSource(root=real_data(name)), plan, cache=tmp_path, key=secret)
    assert (report.used, len(data), data.num_patients, data.unit_source) == (size, size, patients, source)
    assert report.rejected == {Reason.NOT_LISTED: report.seen - size}, "the licence, and what else lies beside the pictures"
    assert data.images.shape == (size, channels, 24, 24)
    assert len(data.rows_of(Split.TRAIN)) > len(data.rows_of(Split.VALIDATION)) > 0
    assert len(data.rows_of(Split.TEST)) == 0
    assert set(np.unique(data.labels)) == set(range(len(classes)))
    spread = data.images[:].reshape(size, -1).std(axis=1)
    assert np.mean(spread > 500) > 0.99


def index_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "index.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def labels(real_data: RealData, tmp_path: Path) -> Path:
    """Labels by path for every file of the DICOM collection, the broken ones included."""
    root = real_data("dicom")
    path = tmp_path / "labels.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        writer.writerows([entry["file"], number % 2] for number, entry in enumerate(index_of(root)))
    return path


def test_all_real_and_hostile_files_go_through_in_one_run(
    real_data: RealData,
    labels: Path,
    plan_for: Callable[..., Plan],
    secret: PatientSecret,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = real_data("dicom")
    plan = plan_for(modality="any", height=64, width=64)
    data, report = open_dataset(DataSource(root=root, labels=labels), plan, cache=tmp_path / "cache", key=secret)
    assert report.seen == sum(path.is_file() for path in root.rglob("*"))
    assert report.seen == report.used + sum(report.rejected.values())
    assert report.used == len(data) > 100
    assert Reason.CRASHED not in report.rejected
    assert Reason.TIMEOUT not in report.rejected
    assert capfd.readouterr() == ("", "")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*.json"))
    for entry in index_of(root):
        assert Path(entry["file"]).name.encode() not in kept


@pytest.mark.parametrize("modality", ["CT", "MR", "US"])
def test_only_the_plans_modality_is_used(
    modality: str, real_data: RealData, labels: Path, plan_for: Callable[..., Plan], secret: PatientSecret, tmp_path: Path
) -> None:
    root = real_data("dicom")
    plan = plan_for(modality=modality, height=32, width=32)
    _, report = open_dataset(DataSource(root=root, labels=labels), plan, cache=tmp_path / "cache", key=secret)
    listed = sum(entry["modality"] == modality for entry in index_of(root) if entry["status"] == "ok")
    assert 0 < report.used <= listed
    assert report.rejected[Reason.MODALITY] > 100

# SPDX-License-Identifier: Apache-2.0
"""Made DICOM files, small enough to read in a millisecond, and a plan to read them for."""

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

from client.imaging.identity import PatientSecret
from common.plan import AggregationSpec, ClassificationSpec, CnnSpec, Identity, InputSpec, Plan, PrivacySpec, TrainingSpec

ENCODERS = {RLELossless: "pydicom", JPEG2000Lossless: "pylibjpeg"}
REPO = Path(__file__).resolve().parents[3]


def make_dataset(pixels: NDArray[Any], *, syntax: UID = ExplicitVRLittleEndian, bits: int | None = None, **attributes: Any) -> Dataset:
    """A CT image of these stored values; `attributes` by keyword are set last, and removed where the value is None."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "CT"
    dataset.PatientID = "MRN-0017"
    dataset.IssuerOfPatientID = "NORTH"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    if syntax in ENCODERS:
        dataset.compress(syntax, encoding_plugin=ENCODERS[syntax], generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    for name, value in attributes.items():
        if value is None:
            del dataset[name]
        else:
            setattr(dataset, name, value)
    return dataset


def encode(dataset: Dataset) -> bytes:
    """The file's bytes, with preamble and file meta."""
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or generate_uid()
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def make_ramp(shape: tuple[int, int] = (40, 36), *, low: int = 0, high: int = 4095, dtype: Any = np.uint16) -> NDArray[Any]:
    """Every value different enough to notice a mistake."""
    return np.linspace(low, high, shape[0] * shape[1]).reshape(shape).astype(dtype)


@pytest.fixture
def ct() -> Callable[..., bytes]:
    """ct(pixels=..., **attributes) -> the bytes of one DICOM file."""

    def make(pixels: NDArray[Any] | None = None, **options: Any) -> bytes:
        return encode(make_dataset(make_ramp() if pixels is None else pixels, **options))

    return make


@pytest.fixture
def ramp() -> Callable[..., NDArray[Any]]:
    return make_ramp


@pytest.fixture
def secret() -> PatientSecret:
    return PatientSecret(value=bytes(range(32)))


@pytest.fixture
def plan_for() -> Callable[..., Plan]:
    """plan_for(classes=..., column=..., **input) -> a small plan."""

    def make(*, classes: tuple[str, ...] = ("normal", "nodule"), column: str = "label", **fields: Any) -> Plan:
        return Plan(
            plan=Identity(name="test", purpose="test"),
            input=InputSpec(**{"modality": "CT", "height": 16, "width": 12, **fields}),
            task=ClassificationSpec(kind="classification", classes=classes, label_column=column),
            model=CnnSpec(family="cnn"),
            training=TrainingSpec(rounds=1, local_steps=1, batch=1, learning_rate=0.1),
            privacy=PrivacySpec(unit="none"),
            aggregation=AggregationSpec(),
        )

    return make


@pytest.fixture
def hospital(tmp_path: Path, ct: Callable[..., bytes]) -> Callable[..., Path]:
    """hospital(patients=..., slices=...) -> a folder of DICOM files and labels.csv; every second patient has a nodule."""

    def make(*, patients: int = 4, slices: int = 2, name: str = "hospital") -> Path:
        folder = tmp_path / name
        (folder / "series").mkdir(parents=True)
        lines = ["sop_instance_uid,label"]
        rng = np.random.default_rng(patients)
        for patient in range(patients):
            for index in range(slices):
                uid = generate_uid()
                pixels = rng.integers(0, 4096, (16, 12), dtype=np.uint16)
                content = ct(pixels, bits=12, PatientID=f"MRN-{patient:04d}", SOPInstanceUID=uid)
                (folder / "series" / f"{patient:04d}_{index}.dcm").write_bytes(content)
                lines.append(f"{uid},{('normal', 'nodule')[patient % 2]}")
        (folder / "labels.csv").write_text("\n".join(lines) + "\n")
        return folder

    return make


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """real_data(name) -> a folder of real images; the test is skipped, with the reason, where there is none."""

    def find(name: str) -> Path:
        root = Path(os.environ.get("FEDWARD_DATA", REPO.parent / "shared" / "data"))
        if not (root / name / "index.csv").is_file():
            pytest.skip(f"no real data '{name}' in '{root}' (set FEDWARD_DATA)")
        return root / name

    return find

# SPDX-License-Identifier: Apache-2.0
"""`fedward site import`, typed; and made instances of several studies, series and transfer syntaxes."""

import hashlib
import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid
from typer.testing import CliRunner

from client.pacs.import_cli import app
from tests.client.imaging.conftest import encode, make_dataset

SYNTAXES = (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless)


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A file as it was stored."""

    study: str
    series: str
    uid: str
    content: bytes


def made(*, studies: int = 3, series: int = 2, images: int = 4) -> list[Instance]:
    """One patient and one transfer syntax a study."""
    random = np.random.default_rng(studies)
    places = [(patient, str(study), str(generate_uid())) for patient, study in enumerate(uids(studies)) for _ in range(series)]
    return [
        instance(study, within, pixels=random.integers(0, 4096, (32, 32), dtype=np.uint16), patient=patient)
        for patient, study, within in places
        for _ in range(images)
    ]


def uids(count: int) -> list[str]:
    return [str(generate_uid()) for _ in range(count)]


def instance(study: str, series: str, *, pixels: NDArray[np.uint16], patient: int = 0) -> Instance:
    uid = str(generate_uid())
    dataset = make_dataset(
        pixels,
        bits=12,
        syntax=SYNTAXES[patient % 3],
        PatientID=f"MRN-{patient:04d}",
        StudyInstanceUID=study,
        SeriesInstanceUID=series,
        SOPInstanceUID=uid,
        StudyDate=f"2024010{patient + 1}",
        AccessionNumber=f"ACC{patient}",
        PatientBirthDate="",
    )
    return Instance(study=study, series=series, uid=uid, content=encode(dataset))


def pixels_of(content: bytes) -> str:
    """SHA-256 of the stored values, with the transfer syntax that they lie in."""
    dataset = pydicom.dcmread(BytesIO(content))
    return f"{dataset.file_meta.TransferSyntaxUID} {hashlib.sha256(dataset.pixel_array.tobytes()).hexdigest()}"


def data_set_of(content: bytes) -> bytes:
    """All behind the meta group, whose author is whoever wrote the file."""
    return content[144 + int.from_bytes(content[140:144], "little") :]


def files_in(into: Path) -> list[Path]:
    return sorted((into / "images").rglob("*.dcm"))


def contents(into: Path) -> set[bytes]:
    return {path.read_bytes() for path in files_in(into)}


def typed(into: Path, *words: str, fails: bool = False, free: str = "0.1") -> dict[str, Any]:
    """The account, as `--json` says it. A refusal is raised."""
    result = CliRunner().invoke(app, ["import", "--into", str(into), *words, "--keep-free-gib", free, "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == int(fails), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    if "asked" in found:
        assert found["asked"] == found["received"] + sum(found["failed"].values())
    return found

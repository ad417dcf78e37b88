# SPDX-License-Identifier: Apache-2.0
"""A second opinion on pixels: dcmtk's decoders and its renderer, which share no code with ours, on made files and on real ones."""

import csv
import logging
import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.imaging import dicom, pixels
from client.imaging.intensity import VoiTable, to_unit
from client.imaging.rejection import Rejected

pytestmark = [
    pytest.mark.debian,
    pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="needs the Debian package dcmtk"),
]
Ct = Callable[..., bytes]
RealData = Callable[[str], Path]
WHOSE = dicom.Identity(issuer="", patient_id="17", sop_instance_uid="1.2")
JPEG, JPEG_LS = "dcmj2pnm", "dcml2pnm"
RENDERERS = {
    uid.JPEGBaseline8Bit: JPEG, uid.JPEGExtended12Bit: JPEG, uid.JPEGLossless: JPEG, uid.JPEGLosslessSV1: JPEG,
    uid.JPEGLSLossless: JPEG_LS, uid.JPEGLSNearLossless: JPEG_LS,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _silent() -> Any:
    """As in a worker: what a parser says of a file is nobody's to read."""
    logging.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def rendered(content: bytes) -> tuple[NDArray[np.int64], dicom.Instance]:
    """The first frame as ours, in 256 greys; where padding is, as if there were none, since dcmtk paints it like anything else."""
    dataset = dicom.parse(content)
    instance = next(dicom.read_frames(dataset, WHOSE, "first"))
    unit = to_unit(instance.values, plan=None, voi=instance.voi, full_range=instance.full_range, inverted=instance.inverted)
    return np.rint(unit * 255).astype(np.int64), instance


def rendered_by_dcmtk(path: Path, instance: dicom.Instance, syntax: str) -> NDArray[np.int64] | None:
    """The same by dcmtk, without overlays; None where it has no decoder."""
    look = ["+Wl", "1"] if isinstance(instance.voi, VoiTable) else ["+Wi", "1"] if instance.voi else ["-W"]
    command = [RENDERERS.get(uid.UID(syntax), "dcm2pnm"), "+F", "1", "-O", *look, "+op", str(path)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return np.asarray(Image.open(BytesIO(done.stdout))).astype(np.int64) if done.stdout else None


def furthest(content: bytes, path: Path) -> int | None:
    """The largest difference in grey levels."""
    ours, instance = rendered(content)
    theirs = rendered_by_dcmtk(path, instance, str(dicom.parse(content).file_meta.TransferSyntaxUID))
    return None if theirs is None else int(np.abs(ours - theirs).max())


def table(first: int, entries: list[int], bits: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = entries
    item["LUTData"].VR = "US"
    return Sequence([item])


PALETTE: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
for _colour, _entries in (("Red", [0, 20000, 40000, 65535]), ("Green", [65535, 3000, 9, 0]), ("Blue", [1, 2, 30000, 40000])):
    PALETTE[f"{_colour}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
    PALETTE[f"{_colour}PaletteColorLookupTableData"] = np.array(_entries, "<u2").tobytes()

MADE: dict[str, dict[str, Any]] = {
    "window": {"WindowCenter": 900, "WindowWidth": 700, "bits": 12},
    "window, rescaled": {"WindowCenter": 40, "WindowWidth": 400, "bits": 12, "RescaleSlope": 1, "RescaleIntercept": -1024},
    "window, exact": {"WindowCenter": 2000, "WindowWidth": 900, "bits": 12, "VOILUTFunction": "LINEAR_EXACT"},
    "window, sigmoid": {"WindowCenter": 2000, "WindowWidth": 900, "bits": 12, "VOILUTFunction": "SIGMOID"},
    "window of one": {"WindowCenter": 2000, "WindowWidth": 1, "bits": 12},
    "none": {"bits": 12},
    "white is low": {"WindowCenter": 900, "WindowWidth": 700, "bits": 12, "PhotometricInterpretation": "MONOCHROME1"},
    "table": {"bits": 12, "VOILUTSequence": table(100, [*range(0, 4096, 3)], 12)},
    "table before window": {"bits": 12, "WindowCenter": 9, "WindowWidth": 9, "VOILUTSequence": table(0, [*range(255, -1, -1)], 8)},
    "modality table": {"bits": 12, "ModalityLUTSequence": table(0, [value * 15 for value in range(4096)], 16)},
    "run lengths": {"bits": 12, "WindowCenter": 900, "WindowWidth": 700, "syntax": uid.RLELossless},
    "big-endian": {"bits": 12, "WindowCenter": 900, "WindowWidth": 700, "syntax": uid.ExplicitVRBigEndian},
}


@pytest.mark.parametrize("kind", MADE)
def test_a_made_image_looks_as_dcmtk_shows_it(kind: str, ct: Ct, ramp: Any, tmp_path: Path) -> None:
    attributes = dict(MADE[kind])
    for name, sequence in attributes.items():
        if name == "ModalityLUTSequence":
            sequence[0].ModalityLUTType = "US"
    content = ct(ramp(high=4095), **attributes)
    (tmp_path / "made.dcm").write_bytes(content)
    found = furthest(content, tmp_path / "made.dcm")
    assert found is not None
    assert found <= 1


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian], ids=lambda syntax: syntax.name)
def test_a_palette_has_its_colours_in_either_byte_order(syntax: uid.UID, ct: Ct, tmp_path: Path) -> None:
    content = ct((np.arange(64, dtype=np.uint16) % 4).reshape(8, 8), syntax=syntax, bits=8, **PALETTE)
    if syntax == uid.ExplicitVRBigEndian:
        for value in PALETTE.values():
            if isinstance(value, bytes):
                content = content.replace(value, np.frombuffer(value, "<u2").astype(">u2").tobytes())
    (tmp_path / "made.dcm").write_bytes(content)
    off = furthest(content, tmp_path / "made.dcm")
    assert off is not None
    assert off <= 1  # dcmtk cuts sixteen bits down to eight, and does not round


@pytest.mark.parametrize(
    ("tool", "options", "lossless"),
    [
        ("dcmcjpeg", ["+e1"], True),  # lossless, first-order prediction
        ("dcmcjpeg", ["+el"], True),  # lossless, any predictor
        ("dcmcjpeg", ["+ee"], False),  # extended, twelve bits
        ("dcmcjpls", ["+el"], True),  # JPEG-LS
        ("dcmcjpls", ["+en"], False),
        ("dcmcrle", [], True),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else str(part),
)
@pytest.mark.parametrize("is_signed", [False, True], ids=["unsigned", "signed"])
def test_what_dcmtk_packed_is_unpacked_to_the_bit(
    tool: str, options: list[str], lossless: bool, is_signed: bool, ct: Ct, ramp: Any, tmp_path: Path
) -> None:
    if is_signed and options == ["+en"]:
        pytest.skip("dcmtk packs no signed values near-losslessly")
    values = ramp(low=-2048, high=2047, dtype=np.int16) if is_signed else ramp(high=4095)
    plain, packed, unpacked = (tmp_path / name for name in ("plain.dcm", "packed.dcm", "unpacked.dcm"))
    plain.write_bytes(ct(values, bits=12))
    done = subprocess.run([tool, *options, str(plain), str(packed)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    ours = pixels.decode(dicom.parse(packed.read_bytes())).values
    if not lossless:
        opener = "dcmdjpeg" if tool == "dcmcjpeg" else "dcmdjpls"
        subprocess.run([opener, str(packed), str(unpacked)], capture_output=True, timeout=60, check=True)
        values = pixels.decode(dicom.parse(unpacked.read_bytes())).values
    np.testing.assert_array_equal(ours, values)


@pytest.mark.slow
def test_real_images_look_as_dcmtk_shows_them(real_data: RealData) -> None:
    """Within one grey level; two where dcmtk itself rounds in between: YBR as it is stored, and a rescale that is no whole number."""
    root = real_data("dicom")
    found: Counter[str] = Counter()
    with (root / "index.csv").open(encoding="utf-8") as file:
        entries = [entry for entry in csv.DictReader(file) if entry["status"] == "ok"]
    for entry in entries:
        path = root / entry["file"]
        if entry["transfer_syntax"].startswith(("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")):
            continue  # dcmtk has no JPEG 2000
        try:
            content = path.read_bytes()
            off = furthest(content, path)
        except Rejected:
            continue
        rounds = entry["photometric"] == "YBR_FULL" or float(dicom.parse(content).get("RescaleSlope") or 1) % 1 != 0
        if off is None:
            found["dcmtk cannot"] += 1
        elif off <= 1 + rounds:
            found["the same"] += 1
        else:
            pytest.fail(f"{entry['file']}: {off} grey levels off")
    assert found["the same"] > 170
    assert found["dcmtk cannot"] < 12

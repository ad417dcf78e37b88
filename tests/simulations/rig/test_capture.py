# SPDX-License-Identifier: Apache-2.0
"""A search that finds nothing must be able to find: each kind of needle is found where it was put."""

import base64
from pathlib import Path

import numpy as np
import pytest

from client.home import PATIENT_KEY_FILE
from common import credentials, keyfile, transport_key
from simulations.rig import capture, toy
from simulations.rig.places import Hospital


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    made = Hospital(number=1, folder=tmp_path / "h1")
    made.home.mkdir(parents=True)
    made.mailbox.mkdir()
    keyfile.create(made.home / credentials.KEY_FILE, "site")
    (made.home / PATIENT_KEY_FILE).write_bytes(bytes(range(100, 132)))
    transport_key.create(made.mailbox / transport_key.KEY_FILE, name="h1")
    toy.write_pictures(made.images, patients=4, seed=1)
    return made


def test_a_planted_secret_is_found_in_every_spelling(hospital: Hospital, tmp_path: Path) -> None:
    needles = dict(capture.secrets_of(hospital))
    assert len(needles) == 7
    seed = keyfile.load(hospital.home / credentials.KEY_FILE, "site").seed
    for spelt in (seed, seed.hex().encode(), base64.b64encode(seed)):
        planted = tmp_path / "somewhere"
        planted.write_bytes(b"before " + spelt + b" after")
        assert len(capture.found_in([planted], needles)) == 1
    planted.write_bytes((hospital.mailbox / "node.key").read_bytes())
    assert capture.found_in([planted], needles) == ["h1: transport key is in somewhere"]


def test_a_planted_patient_and_a_planted_image_are_found(hospital: Hospital, tmp_path: Path) -> None:
    needles = dict(capture.patients_of(hospital))
    planted = tmp_path / "log"
    planted.write_text('{"patient": "made 1-3"}')
    assert capture.found_in([planted], needles) == ["h1: patient made 1-3 is in log"]
    pixels = np.load(hospital.images / "images.npz")["images"][5]
    planted.write_bytes(b"\0" * 100 + pixels.tobytes())
    assert capture.found_in([planted], needles) == ["h1: image 5 is in log"]


def test_a_planted_update_is_found_though_a_page_cuts_it_and_zeros_are_no_needle(tmp_path: Path) -> None:
    vector = np.random.default_rng(0).integers(0, 2**32, 2000, dtype=np.uint32)
    needles = dict(capture.update_windows("h1", vector))
    assert len(needles) >= 8
    raw, planted = vector.tobytes(), tmp_path / "state.db"
    planted.write_bytes(b"page one" + raw[:3000] + b"\0\0\0\7" + raw[3000:])
    assert len(capture.found_in([planted], needles)) >= 7
    assert dict(capture.update_windows("h1", np.zeros(2000, dtype=np.uint32))) == {}


def test_the_control_complains_when_there_is_nothing_to_find(hospital: Hospital) -> None:
    (hospital.home / "ledger").write_text("x")
    assert capture.control(hospital) == []
    (hospital.images / "index.csv").write_text("row,label,patient_id\n0,0,somebody else\n")
    secret = (hospital.home / PATIENT_KEY_FILE).read_bytes()
    assert secret in b"".join(path.read_bytes() for path in hospital.folder.rglob("*") if path.is_file())

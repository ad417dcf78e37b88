# SPDX-License-Identifier: Apache-2.0
"""Parsers quote what they choke on; the process they run in says nothing, and nobody listens to it."""

import ast
import dataclasses
import json
import logging
import os
import subprocess
import sys
import warnings
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from client.imaging import readers
from client.imaging.dicom import Identity
from client.imaging.index import Item
from client.imaging.labels import Labels
from client.imaging.listing import File
from client.imaging.readers import Task
from client.imaging.rejection import Reason
from client.imaging.worker import Brief, Limits
from common.plan import InputSpec
from tests.attacks.planted import WRECKS, Patient, make_patients

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def patients() -> list[Patient]:
    return make_patients(len(WRECKS))


def test_a_reader_says_nothing_whatever_it_reads(tmp_path: Path, patients: list[Patient]) -> None:
    """The very process that the intake starts, but with open ears: its standard output and error, which are usually thrown away."""
    paths = []
    for (what, wreck), patient in zip(WRECKS.items(), patients, strict=True):
        (tmp_path / f"{what}.dcm").write_bytes(wreck(patient))
        paths.append(f"{what}.dcm")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n" + patients[0].name.encode())
    brief = Brief(kind="dicom", input=InputSpec(modality="CT", height=16, width=16), limits=Limits(), wanted=None)
    answers, said = _read(tmp_path, brief, [*paths, "damaged.png"])
    assert said == b""
    assert len(answers) == len(paths) + 1
    reasons = {reason for _, reason, *_ in answers if reason is not None}
    assert len(reasons & set(Reason)) >= 10
    assert reasons <= set(Reason)


def _read(root: Path, brief: Brief, paths: list[str]) -> tuple[list[list[str]], bytes]:
    """Each task's answer, and everything that the process wrote elsewhere, with Python's most talkative settings around it."""
    tasks_out, tasks_in = os.pipe()
    results_out, results_in = os.pipe()
    folder, output = os.open(root, os.O_RDONLY), os.open(root / "samples", os.O_RDWR | os.O_CREAT)
    handed = (tasks_out, results_in, folder, output)
    command = [sys.executable, "-I", "-c", readers.BOOT, str(ROOT), *map(str, handed)]
    talkative = {**os.environ, "PYTHONWARNINGS": "always", "PYTHONDEVMODE": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=handed, env=talkative) as process:
        for descriptor in handed:
            os.close(descriptor)
        with os.fdopen(tasks_in, "w") as tasks:
            tasks.write("\n".join([brief.to_json(), *(json.dumps([slot, path, 1]) for slot, path in enumerate(paths))]) + "\n")
        with os.fdopen(results_out) as results:
            ready, *answers = map(json.loads, results)
        assert ready == readers.READY
        assert process.stdout is not None
        said = process.stdout.read()
    assert process.returncode == 0
    return answers, said


def test_pydicom_would_have_quoted_a_patient(patients: list[Patient], caplog: pytest.LogCaptureFixture) -> None:
    """The control: read in the open, some of the same files name their patients in warnings, and in the log."""
    quoted = set()
    for (what, wreck), patient in zip(WRECKS.items(), patients, strict=True):
        caplog.clear()
        with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG), suppress(Exception):
            warnings.simplefilter("always")
            str(pydicom.dcmread(BytesIO(wreck(patient)), force=True))
        if patient.given in caplog.text and any(patient.given in str(each.message) for each in warned):
            quoted.add(what)
    assert quoted >= {"charset", "compression"}


def test_pydicom_keeps_no_diary() -> None:
    assert pydicom.config.debugging is False


PARSERS = {
    ("pydicom", "dcmread"),
    ("Image", "open"),
    ("dicom", "header"),
    ("dicom", "parse"),
    ("pictures", "read"),
    ("nifti", "open_volume"),
}
ALLOWED_TO_PARSE = {
    "worker.py": {"header", "read", "open_volume"},
    "examination.py": {"header", "open_volume"},
    "dicom.py": {"dcmread"},
    "told.py": {"dcmread"},
    "segmentation.py": {"dcmread"},
    "pictures.py": {"open"},
}


def test_only_readers_parse() -> None:
    """In the process that holds keys and ledger no parser of images runs, so none can talk there."""
    for path in (ROOT / "client").rglob("*.py"):
        parses = {
            node.attr
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (node.value.id, node.attr) in PARSERS
        }
        assert parses <= ALLOWED_TO_PARSE.get(path.name, set()), path


@pytest.mark.parametrize("kind", [Identity, Item, Labels, File, Task, Brief])
def test_what_holds_identifiers_does_not_show_them(kind: type) -> None:
    """A dataclass prints its fields, and so would a debugger's log: those with identifiers in plain text do not."""
    private = {"issuer", "patient_id", "sop_instance_uid", "name", "patient", "site", "by_item", "path", "wanted"}
    shown = {field.name for field in dataclasses.fields(kind) if field.repr} if "__repr__" in vars(kind) else set()
    assert not shown & private

# SPDX-License-Identifier: Apache-2.0
"""What a site may find in its own folder, each time another thing: spent, torn, not its own, or scribbled on with a patient's name.

Each damage spoils one file of the home and returns it, so that it can be taken away before what was said about it is searched. Beside it
stands the code with which the site then refuses.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.attacks.planted import Patient

Damage = Callable[[Path, Patient], Path]


def _scribbled(name: str, text: Callable[[Patient], str], *, before: bytes = b"") -> Damage:
    """A file that holds this text and nothing else."""

    def damage(home: Path, patient: Patient) -> Path:
        (home / name).write_bytes(before + text(patient).encode())
        return home / name

    return damage


def _exchanged(name: str, other: str) -> Damage:
    """A file that is another run's; `other` is its path from where runs lie."""

    def damage(home: Path, patient: Patient) -> Path:
        del patient
        shutil.copy(home.parents[2] / other, home / name)
        return home / name

    return damage


def _key_open_to_all(home: Path, patient: Patient) -> Path:
    del patient
    (home / "identity.key").chmod(0o644)
    return home / "identity.key"


def _labels_of_text(home: Path, patient: Patient) -> Path:
    path = home / "data" / "columns.json"
    columns = json.loads(path.read_text())
    path.write_text(json.dumps({**columns, "labels": [patient.name] * len(columns["labels"])}))
    return path


def _nothing_can_be_written(home: Path, patient: Patient) -> Path:
    """The ledger is a folder, and what the site says about it goes to a disk that is always full."""
    del patient
    (home / "ledger.jsonl").unlink(missing_ok=True)
    (home / "ledger.jsonl").mkdir()
    (home / "error.log").unlink(missing_ok=True)
    (home / "error.log").symlink_to("/dev/full")
    return home / "error.log"


def _a_file_in_the_way(home: Path, patient: Patient) -> Path:
    shutil.rmtree(home / "fsa1", ignore_errors=True)
    (home / "fsa1").write_text(patient.name)
    return home / "fsa1"


DAMAGE: dict[str, tuple[str, Damage]] = {
    "budget too small": ("E_PRIVACY_BUDGET", _scribbled("policy.toml", lambda _: "[budget]\neps_plan = 0.01\ndelta = 1e-3\n")),
    "policy of text": ("E_PLAN_VALUE", _scribbled("policy.toml", lambda patient: f'[budget]\neps_plan = "{patient.name}"\n')),
    "ledger of others": ("E_LEDGER_TAMPERED", _exchanged("ledger.jsonl", "whole/ledgers/south.jsonl")),
    "site called after a patient": ("E_PLAN_VALUE", _scribbled("site.toml", lambda patient: f'[site]\nname = "{patient.name}"\n')),
    "site file is not text": ("E_PLAN_SYNTAX", _scribbled("site.toml", lambda patient: patient.name, before=b"\xff\xfe")),
    "key open to all": ("E_SECRET_FILE", _key_open_to_all),
    "roster of others": ("E_ROSTER_SIGNATURE", _exchanged("roster", "ideal/sites/site_00/roster")),
    "roster scribbled on": ("E_ROSTER_FORMAT", _scribbled("roster", lambda patient: f"{patient.name}\n{patient.comment}\n")),
    "labels of text": ("E_DATA_UNREADABLE", _labels_of_text),
    "images of text": ("E_DATA_UNREADABLE", _scribbled("data/images.npy", repr)),
    "ledger of text": ("E_LEDGER_TAMPERED", _scribbled("ledger.jsonl", lambda patient: json.dumps({"patient": patient.name}) + "\n")),
    "nothing can be written": ("E_LEDGER_ROLLBACK", _nothing_can_be_written),
    "a file in the way": ("E_TRAIN_FAILED", _a_file_in_the_way),
}

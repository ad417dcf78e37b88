# SPDX-License-Identifier: Apache-2.0
"""What fedward does with a thousand planted patients, and how it fails, in every way that we know: what is said is then searched.

`python -m tests.attacks.phi_journey FOLDER` runs the commands that a person would type, one after another, in one process of its own, so
that its standard output and error are all that was said. It leaves

    FOLDER/data           the hospitals' folders: the only place where patients may be found
           desk           where the commands were typed: plans, runs, cache, temporary files, home
           said           what each command wrote to standard output and error; `processes` is what its children wrote
           wire           every message between coordinator and sites, as Flower would send it, and messages.jsonl about their shapes
           attempts.json  each command's name, exit code, and which was expected

It uses the command's own doors; only the engine is tapped, and its nursery lent from one run to the next.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from simulations.apps import FAULTY_APP
from simulations.engine.nursery import Nursery
from tests.attacks import planted
from tests.attacks.broken_folders import BROKEN, MISLEADING
from tests.attacks.damaged_homes import DAMAGE
from tests.attacks.phi_stage import exit_code, heard, kill_when, lend, lines, small_disk, tap
from tests.attacks.planted import Patient

PATIENTS_VARIABLE = "FEDWARD_PHI_PATIENTS"
PLAN = """\
[plan]
name = "{name}"
purpose = "a federation of patients who do not exist"
[input]
modality = "{modality}"
height = 16
width = 16
[task]
kind = "classification"
classes = ["left", "right"]
[model]
family = "cnn"
widths = [4]
hidden = 4
[training]
strategy = "{strategy}"
rounds = {rounds}
local_steps = 1
batch = 8
learning_rate = 0.1
[privacy]
{privacy}
[aggregation]
minimum_cohort = 3
deadline_s = 30
[simulation]
sites = {sites}
partition = "{partition}"
evaluate_every = 10
"""
PATIENTS_SHARE_NOISE = """\
unit = "patient"
epsilon = 2
delta = 1e-4
clip_norm = 1
noise = "distributed"
noise_quorum = 3
minimum_patients = {minimum}
[statistics]
epsilon = 0.5
[evaluation]
every = 2
epsilon = 0.5"""
OPEN = 'unit = "none"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A command, how it ended, and how it should have: 0, or the codes that it should have said."""

    name: str
    exit: int
    expected: str
    seconds: float


class Journey:
    """One folder, one nursery, and a book of what was attempted."""

    def __init__(self, folder: Path, patients: Sequence[Patient]) -> None:
        self.data, self.desk, self.said, self.wire = (folder / name for name in ("data", "desk", "said", "wire"))
        self.patients = patients
        self.attempts: list[Attempt] = []

    def attempt(self, name: str, expected: str, *arguments: str | Path) -> None:
        """Type a command."""
        started = time.monotonic()
        with heard(self.said / name):
            code = exit_code(["fedward", *map(str, arguments)])
        self.attempts.append(Attempt(name=name, exit=code, expected=expected, seconds=time.monotonic() - started))

    def start(self, name: str, *arguments: str | Path) -> "subprocess.Popen[bytes]":
        """Type a command that is going to be killed."""
        command = [sys.executable, "-m", "fedward", *map(str, arguments)]
        with (self.said / name).open("wb") as said:
            return subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)


def travel(folder: Path, patients: Sequence[Patient]) -> list[Attempt]:
    """The whole journey."""
    journey = Journey(folder, patients)
    for place in (journey.data, journey.desk, journey.said, journey.wire, journey.desk / "tmp"):
        place.mkdir()
    os.chdir(journey.desk)
    tempfile.tempdir = str(journey.desk / "tmp")
    os.environ.update(TMPDIR=tempfile.tempdir, FEDWARD_CACHE=str(journey.desk / "cache"), HOME=str(journey.desk / "home"))
    with heard(journey.said / "processes"):
        nursery = Nursery(FAULTY_APP)
    lend(nursery)
    tap(journey.wire)
    _write_plans(len(patients))
    _fill(journey)
    with nursery:
        for chapter in (
            _succeed, _fall_and_rise, _lose_power, _keep_house, _open_damaged_homes, _read_what_is_no_data, _run_out, _mistype,
        ):  # fmt: skip
            chapter(journey)
    return journey.attempts


def _fill(journey: Journey) -> None:
    """Hospitals of four, two and three tenths of the patients, each with twenty wrecks; the rest are pictures, or in broken folders."""
    tenth = len(journey.patients) // 10
    for name, first, last, by in (("north", 0, 4, "path"), ("south", 4, 6, "sop_instance_uid"), ("west", 6, 9, "path")):
        theirs = journey.patients[first * tenth : last * tenth]
        planted.fill_hospital(journey.data / "hospitals" / name, theirs[:-20], by=by, wrecks=theirs[-20:])
    planted.fill_album(journey.data / "album", journey.patients[9 * tenth : -20])


def _write_plans(num_patients: int) -> None:
    private = PATIENTS_SHARE_NOISE.format(minimum=num_patients // 10)  # half of the smallest hospital
    for name, privacy, modality, rounds, sites, partition in (
        ("by-site", private, "CT", 4, 3, "by-site"),
        ("dealt", OPEN, "CT", 2, 5, "iid"),
        ("long", OPEN, "CT", 40, 3, "by-site"),
        ("album", OPEN, "any", 2, 3, "iid"),
        ("album-by-site", OPEN, "any", 2, 3, "by-site"),
    ):
        strategy = "fedavg" if privacy is OPEN else "fedsgd"
        written = PLAN.format(
            name=name, strategy=strategy, privacy=privacy, modality=modality, rounds=rounds, sites=sites, partition=partition
        )
        Path(f"{name}.toml").write_text(written)


def _simulate(plan: str, data: Path, out: str, *more: str) -> list[str | Path]:
    return ["simulate", f"{plan}.toml", "--data", data, "--out", out, "--workers", "2", *more]


def _resume(out: str, *more: str) -> list[str]:
    return ["simulate", "--resume", "--out", out, "--no-compare", "--workers", "1", *more]


def _succeed(journey: Journey) -> None:
    hospitals, album = journey.data / "hospitals", journey.data / "album"
    journey.attempt("whole way", "0", *_simulate("by-site", hospitals, "whole"))
    journey.attempt("ideal", "0", *_simulate("dealt", hospitals, "ideal", "--aggregation", "ideal", "--no-compare", "--json"))
    journey.attempt("album", "0", *_simulate("album", album, "album", "--aggregation", "plain", "--no-compare"))
    for name, mislead in MISLEADING.items():
        mislead(journey.data / name.replace(" ", "-"), journey.patients[-len(journey.patients) // 10 :])
        journey.attempt(name, "0", *_simulate("album", journey.data / name.replace(" ", "-"), name, "--no-compare"))
    journey.attempt("evaluate", "0", "evaluate", "--model", "whole", "--data", hospitals / "north", "--json")
    for name, folder in (("checked", hospitals / "north"), ("checked pictures", album)):
        command = ["site", "check-data", folder, "--plan", "album/plan.toml" if folder == album else "whole/plan.toml"]
        journey.attempt(name, "0", *command, "--report", journey.data / f"{name}.csv")
        journey.attempt(f"{name}, for programs", "0", *command, "--json")
    journey.attempt("plan", "0", "plan", "show", "by-site.toml")


def _fall_and_rise(journey: Journey) -> None:
    hospitals = journey.data / "hospitals"
    faults = ("--fault", "site_01:crash:1", "--fault", "site_02:raise:2:mask")
    journey.attempt("two sites fail", "0", *_simulate("dealt", hospitals, "rough", "--no-compare", *faults))
    journey.attempt("too few are left", "E_COHORT_TOO_SMALL", *_simulate("by-site", hospitals, "fallen", "--fault", "south:crash:1"))
    shutil.copytree("fallen", "spare", symlinks=True)
    journey.attempt("resumed", "0", *_resume("fallen"))


def _lose_power(journey: Journey) -> None:
    hospitals = journey.data / "hospitals"
    process = journey.start("killed in a round", *_simulate("long", hospitals, "killed", "--no-compare"))
    kill_when(process, lambda: lines(Path("killed/metrics.jsonl")) >= 2)
    journey.attempt("after the kill", "0", *_resume("killed", "--json"))
    process = journey.start("killed in the intake", "evaluate", "--model", "whole", "--data", hospitals / "south")
    kill_when(process, lambda: any(path.stat().st_size for path in Path("tmp").glob("fedward-*/images/.*/images.npy")))


def _keep_house(journey: Journey) -> None:
    """What a hospital does for itself: patients come, and withdraw, and the ledger tells what was spent."""
    home, images = Path("house/sites/south"), journey.data / "hospitals" / "south"
    shutil.copytree("whole/sites/south", home)
    said = (home / "site.toml").read_text()
    (home / "site.toml").write_text(said.replace("[data]\n", f'[data]\nroot = "{images}"\n'))
    new, known, wreck = journey.patients[0], journey.patients[len(journey.patients) // 2], journey.patients[-1]
    register = images.parent / "withdrawn.txt"
    register.write_text("".join(f"{patient.patient_id}\n" for patient in (new, wreck)))
    for name, code, *command in (
        ("first snapshot", "0", "snapshot", "--plan", "whole/plan.toml"),
        ("withdrawn", "0", "exclude", known.patient_id, "--issuer", planted.ISSUER),
        ("withdrawn again", "0", "exclude", known.patient_id, "--issuer", planted.ISSUER, "--json"),
        ("withdrawn, unknown", "E_DATA_NOT_FOUND", "exclude", new.patient_id, wreck.name),
        ("withdrawn, listed", "0", "exclude", "--from-file", register, "--not-yet-here"),
        ("second snapshot", "0", "snapshot", "--plan", "whole/plan.toml", "--json"),
        ("policy", "0", "policy", "new"),
        ("ledger shown", "0", "ledger", "show"),
        ("ledger verified", "0", "ledger", "verify"),
        ("ledger explained", "0", "ledger", "explain", "--out", "ledger.html"),
        ("ledger exported", "0", "ledger", "export", "--out", "ledger"),
    ):
        journey.attempt(name, code, "site", *command, "--home", home)


def _open_damaged_homes(journey: Journey) -> None:
    """Three sites are needed, so that one is enough to stop the run."""
    for name, (code, damage) in DAMAGE.items():
        shutil.copytree("spare", name, symlinks=True)
        spoilt = damage(Path(name) / "sites" / "south", journey.patients[1])
        journey.attempt(name, f"E_COHORT_TOO_SMALL {code}", *_resume(name))
        spoilt.unlink()


def _read_what_is_no_data(journey: Journey) -> None:
    for name, (code, spoil) in BROKEN.items():
        folder = journey.data / "broken" / name.replace(" ", "-")
        folder.mkdir(parents=True)
        spoil(folder, journey.patients[-20:])
        plan = "album-by-site" if "sites" in name else "album"
        journey.attempt(name, code, *_simulate(plan, folder, f"broken {name}", "--no-compare"))
    journey.attempt("scored on no data", "E_LABELS", "evaluate", "--model", "whole", "--data", journey.data / "broken" / "cell-of-text")
    typed = journey.data / f"typed {journey.patients[0].family}"
    typed.mkdir()
    journey.attempt("typed", "E_DATA_NOT_FOUND", "evaluate", "--model", "whole", "--data", typed)


def _run_out(journey: Journey) -> None:
    hospitals = journey.data / "hospitals"
    journey.attempt("too many sites", "E_TOO_FEW_PATIENTS", *_simulate("dealt", hospitals, "crowded", "--sites", "900"))
    large = Path("by-site.toml").read_text().replace("batch = 8", "batch = 8000").replace("minimum_patients = ", "minimum_patients = 99")
    Path("large.toml").write_text(large)
    journey.attempt("too large a batch", "E_TOO_FEW_PATIENTS", *_simulate("large", hospitals, "large"))
    with small_disk():
        journey.attempt("no room to stage", "E_DISK_FULL", *_simulate("dealt", hospitals, "full"))
        journey.attempt("no room to read", "E_DISK_FULL", "evaluate", "--model", "whole", "--data", hospitals / "west")


def _mistype(journey: Journey) -> None:
    table, image = journey.data / "hospitals" / "north" / "labels.csv", next((journey.data / "hospitals" / "north").glob("*/*.dcm"))
    shutil.copy(image, "image.toml")
    journey.attempt("a table for a plan", "E_PLAN_SYNTAX", "plan", "check", table)
    journey.attempt("an image for a plan", "E_PLAN_SYNTAX", "plan", "check", "image.toml")
    journey.attempt("nowhere to write", "E_UNFORESEEN", "plan", "new", journey.data / journey.patients[2].name / "new.toml")
    Path("image.toml").unlink()
    journey.attempt("no such run", "E_DATA_NOT_FOUND", *_resume("nowhere"))
    journey.attempt("a run is there", "E_RUN_FOLDER", *_simulate("dealt", journey.data / "hospitals", "whole"))
    shutil.copytree("whole", "forged", ignore=lambda *_: {"sites", "holdout", "coordinator"})
    shutil.copy("ideal/model.safetensors", "forged")
    journey.attempt("another's card", "E_MODEL_HASH", "evaluate", "--model", "forged", "--data", journey.data / "hospitals" / "north")


def main(folder: Path) -> None:
    """Travel, and write down how it went."""
    logging.basicConfig(level=logging.DEBUG)  # a library's most talkative setting is the one to be searched
    patients = planted.make_patients(int(os.environ.get(PATIENTS_VARIABLE, "1000")))
    attempts = travel(folder, patients)
    (folder / "attempts.json").write_text(json.dumps([asdict(attempt) for attempt in attempts], indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

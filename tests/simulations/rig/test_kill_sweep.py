# SPDX-License-Identifier: Apache-2.0
"""A federation killed anywhere loses nothing; and each thing that the sweep looks for is missed when it is taken away."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from common import failpoints
from server.aggregation import Silent
from server.journal import CommittedRound
from simulations.engine.nursery import Nursery
from simulations.federation import JOURNAL
from simulations.rig import evidence, kill_sweep
from simulations.rig.struck import APP, TRAININGS_FILE
from simulations.stage import Stage, find_stage

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_a_federation_killed_at_any_failpoint_loses_nothing_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "simulations.rig.kill_sweep", "--times", "1", "--json", "--folder", str(tmp_path / "sweep")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    said = json.loads(done.stdout)
    assert said["complaints"] == []
    assert done.returncode == 0
    killed = {row["failpoint"]: row["trials"] for row in said["rows"]}
    assert killed == dict.fromkeys(failpoints.NAMES - kill_sweep.UNREACHED, 1)
    assert len(killed) >= 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A run in which nobody died."""
    stage = kill_sweep.made(tmp_path_factory.mktemp("sweep") / "whole")
    with Nursery(APP) as nursery:
        kill_sweep.federation(stage, faults=()).train(Silent(), engine="local", workers=2, nursery=nursery)
    return stage


@pytest.fixture
def stage(whole: Stage, tmp_path: Path) -> Stage:
    """A copy to damage."""
    shutil.copytree(whole.folder, tmp_path / "copy")
    return find_stage(tmp_path / "copy")


def complaints(stage: Stage, before: list[CommittedRound] | None = None) -> str:
    return "; ".join(evidence.complaints(stage, before or []))


def test_there_is_nothing_to_complain_about_where_nobody_died(stage: Stage) -> None:
    assert complaints(stage, evidence.committed(stage.folder, stage.scenario.plan)) == ""
    assert len(evidence.trainings(stage.folder)) == kill_sweep.ROUNDS * kill_sweep.NUM_SITES


def test_a_lost_round_is_missed(stage: Stage) -> None:
    before = evidence.committed(stage.folder, stage.scenario.plan)
    with closing(sqlite3.connect(stage.folder / JOURNAL)) as db, db:
        db.execute("UPDATE rounds SET state = 'open' WHERE round = 2")
    assert "round 2 was committed and is not what it was" in complaints(stage, before)


def test_a_torn_checkpoint_is_missed(stage: Stage) -> None:
    newest = max((stage.folder / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    assert "E_CHECKPOINT_CORRUPT" in complaints(stage)


def test_a_file_that_was_left_half_written_is_missed(stage: Stage) -> None:
    (stage.folder / "vectors" / ".vector-000003-UPDATE-0-site_01.1.tmp").write_bytes(b"half a vector")
    assert "left about: vectors/.vector-000003-UPDATE-0-site_01.1.tmp" in complaints(stage)


def test_a_flipped_byte_of_a_sites_record_is_missed(stage: Stage) -> None:
    [record] = (stage.home("site_02") / "fsa1").glob("record-*")
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 1
    record.write_bytes(bytes(content))
    assert "site_02: E_" in complaints(stage)


def test_a_round_that_was_not_paid_for_is_missed(stage: Stage) -> None:
    """The last line of a ledger taken away: its sealed head notices, and so does whoever counts."""
    ledger = stage.home("site_00") / "ledger.jsonl"
    ledger.write_bytes(b"".join(ledger.read_bytes().splitlines(keepends=True)[:-1]))
    found = complaints(stage)
    assert "E_LEDGER_ROLLBACK" in found
    assert "never paid for it" in found
    assert "trained 1 times in round 3 and paid for 0" in found


def test_a_training_that_nobody_charged_is_missed_by_its_epsilon(stage: Stage) -> None:
    line = {"site": "site_00", "round": 3, "units": 8, "steps": 2, "noise_multiplier": 0.6}
    with (stage.folder / TRAININGS_FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert "its trainings cost" in complaints(stage)


def test_a_failpoint_that_killed_nobody_is_no_proof(stage: Stage) -> None:
    trial = kill_sweep.Trial(name="coordinator_after_mask", point="coordinator_after_mask:3")
    [complaint] = kill_sweep.undead(trial, stage, 0)
    assert "did not die" in complaint

# SPDX-License-Identifier: Apache-2.0
"""A power cut costs nothing: a run that was killed ends with the same bits, and nothing is trained or paid for twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.update import Weights
from server.aggregation import Silent
from server.journal import CommittedRound
from simulations.engine.nursery import Nursery
from simulations.stage import Stage, find_stage
from tests.journeys.made import made_federation, made_scenario, made_stage, reserved_rounds

ROUNDS = 4


class Watch(Silent):
    """An observer that can pull the plug: it raises when `cut_at` sites have answered in round `in_round`."""

    def __init__(self, *, in_round: int = 0, cut_at: int = 0) -> None:
        self._cut = (in_round, cut_at)
        self._answers = 0
        self.committed: list[int] = []

    def round_opened(self, number: int, cohort: list[str]) -> None:
        self._answers = 0

    def site_answered(self, number: int, site: str, *, refused: bool) -> None:
        assert not refused
        self._answers += 1
        if (number, self._answers) == self._cut:
            raise KeyboardInterrupt

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        self.committed.append(done.round)


def train(stage: Stage, nursery: Nursery, watch: Watch | None = None) -> bytes:
    weights, committed = made_federation(stage).train(watch or Watch(), engine="local", workers=2, nursery=nursery)
    assert len(committed) == ROUNDS
    return weights.digest


@pytest.mark.parametrize("private", [False, True], ids=["plain", "private"])
@pytest.mark.parametrize(("in_round", "cut_at"), [(1, 1), (2, 4), (4, 3)])
def test_a_coordinator_that_dies_between_answers_ends_with_the_same_bits(
    tmp_path: Path, nursery: Nursery, private: bool, in_round: int, cut_at: int
) -> None:
    whole = train(made_stage(tmp_path / "whole", made_scenario(private=private)), nursery)
    stage = made_stage(tmp_path / "cut", made_scenario(private=private))
    with pytest.raises(KeyboardInterrupt):
        made_federation(stage).train(Watch(in_round=in_round, cut_at=cut_at), engine="local", workers=2, nursery=nursery)
    assert train(find_stage(stage.folder), nursery) == whole


def test_sites_that_had_answered_are_not_charged_again(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "cut", made_scenario(private=True))
    with pytest.raises(KeyboardInterrupt):
        made_federation(stage).train(Watch(in_round=2, cut_at=4), engine="local", workers=2, nursery=nursery)
    train(stage, nursery)
    for site in stage.sites:
        assert reserved_rounds(stage, site) == list(range(1, ROUNDS + 1))


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=True))
    first = train(stage, nursery)
    watch = Watch()
    assert train(stage, nursery, watch) == first
    assert watch.committed == [ROUNDS]  # told once more, in case the crash came before it was heard


def test_a_damaged_newest_checkpoint_costs_one_round(tmp_path: Path, nursery: Nursery) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=True))
    whole = train(stage, nursery)
    newest = max((stage.folder / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-3])
    watch = Watch()
    assert train(stage, nursery, watch) == whole
    assert watch.committed == [ROUNDS - 1, ROUNDS]


@pytest.mark.parametrize("private", [False, True], ids=["plain", "private"])
def test_kill_minus_nine_then_resume_ends_with_the_same_bits(tmp_path: Path, private: bool) -> None:
    """The command itself, killed by the kernel in the middle of a round, with its workers."""
    change = ("rounds = 4", "rounds = 30")
    whole = made_stage(tmp_path / "whole", made_scenario(private=private, change=change))
    run(whole.folder).wait()
    cut = made_stage(tmp_path / "cut", made_scenario(private=private, change=change))
    process = run(cut.folder)
    metrics = cut.folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert metrics.read_bytes().count(b"\n") < 30, "killed too late to prove anything"
    assert run(cut.folder).wait() == 0
    assert (cut.folder / "model.safetensors").read_bytes() == (whole.folder / "model.safetensors").read_bytes()
    assert metrics.read_bytes().count(b"\n") == 30
    run_file = json.loads((cut.folder / "run.json").read_text())
    assert (run_file["aggregation"], run_file["secure_aggregation"]) == ("fsa1", True)


def run(folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "fedward", "simulate", "--resume", "--out", str(folder), "--no-compare", "--workers", "2", "--json"]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)

# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a coordinator as deployed (everything synced to the disk), at each moment that has a name: it goes on at the same step.

The sweep in `simulations.rig.kill_sweep` does this many times over and looks at what is left on every disk; here it is what is asked next.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from common import failpoints
from common.errors import SecondCoordinator
from common.update import Weights
from server.journal import CommittedRound
from server.persistence import Persistence
from simulations.engine.nursery import Nursery
from simulations.federation import Federation
from simulations.stage import Stage
from tests.journeys.made import Quiet, made_federation, made_scenario, made_stage, reserved_rounds

SITES = 4
CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
from simulations.stage import find_stage
from tests.journeys.made import Quiet, made_federation
replace(made_federation(find_stage(Path(sys.argv[1]))), power_cut_safe=True).train(Quiet(), engine="local", workers=2)
"""
NEXT = {
    "coordinator_after_train:2": (2, "SHARE"),
    "coordinator_after_share:2": (2, "MASK"),
    f"coordinator_after_vector:{SITES + 2}": (2, "MASK"),
    "coordinator_after_mask:2": (2, "CONFIRM"),
    "coordinator_after_confirm:2": (2, "UNMASK"),
    "coordinator_after_unmask:2": (3, "KEYS"),
    "coordinator_after_sum:2": (3, "KEYS"),
    "coordinator_before_commit:2": (3, "KEYS"),
    "coordinator_between_checkpoint_and_journal:2": (3, "KEYS"),
    "coordinator_after_commit:2": (3, "KEYS"),
}
"""Where it dies, always in round 2, and what the next coordinator asks first."""
PROMPT = ("coordinator_after_mask:2", "coordinator_between_checkpoint_and_journal:2")


class First(Quiet):
    """An observer that keeps the first thing that anybody was asked."""

    def __init__(self) -> None:
        self.asked: tuple[int, str] | None = None

    def phase_opened(self, number: int, phase: str, *, asked: Sequence[str]) -> None:
        self.asked = self.asked or (number, phase)


def deployed(stage: Stage) -> Federation:
    return replace(made_federation(stage), power_cut_safe=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose runs all have the same patients."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def whole(shared: Path, nursery: Nursery) -> bytes:
    """The model of a run in which nobody died."""
    stage = made_stage(shared / "whole", made_scenario(private=True).with_changes(rounds=3))
    return deployed(stage).train(Quiet(), engine="local", workers=2, nursery=nursery)[0].digest


@pytest.mark.parametrize("point", [point if point in PROMPT else pytest.param(point, marks=pytest.mark.slow) for point in NEXT])
def test_a_coordinator_killed_at(shared: Path, nursery: Nursery, whole: bytes, point: str) -> None:
    stage = made_stage(shared / point.replace(":", " "), made_scenario(private=True).with_changes(rounds=3))
    child = [sys.executable, "-c", CHILD, str(stage.folder)]
    died = subprocess.run(child, env={**os.environ, failpoints.VARIABLE: point}, capture_output=True, timeout=300, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    first = First()
    weights, rounds = deployed(stage).train(first, engine="local", workers=2, nursery=nursery)
    assert first.asked == NEXT[point]
    assert weights.digest == whole
    assert [(done.attempt, done.missing) for done in rounds] == [(0, ())] * 3
    assert {tuple(reserved_rounds(stage, site)) for site in stage.sites} == {(1, 2, 3)}


class Copy(Quiet):
    """Copies the run folder after a round: a backup, which somebody will restore."""

    def __init__(self, folder: Path, to: Path, *, after: int) -> None:
        self._folder, self._to, self._after = folder, to, after

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        if done.round == self._after:
            shutil.copytree(self._folder, self._to, ignore=shutil.ignore_patterns("sites", "coordinator"))


@pytest.mark.parametrize("persistence", [None, Persistence()], ids=["simulated", "deployed"])
def test_a_second_coordinator_on_an_old_copy_is_refused_by_the_sites_and_stops_by_name(
    tmp_path: Path, nursery: Nursery, persistence: Persistence | None
) -> None:
    stage = made_stage(tmp_path / "run", made_scenario(private=True).with_changes(rounds=3))
    watch = Copy(stage.folder, tmp_path / "copy", after=1)
    weights, _ = deployed(stage).train(watch, engine="local", workers=2, nursery=nursery)
    second = replace(deployed(stage), folder=tmp_path / "copy", persistence=persistence)
    with pytest.raises(SecondCoordinator, match=r"round 2: sites .* site_00: E_REPLAY"):
        second.train(Quiet(), engine="local", workers=2, nursery=nursery)
    assert {tuple(reserved_rounds(stage, site)) for site in stage.sites} == {(1, 2, 3)}, "nobody trained for it"
    assert deployed(stage).train(Quiet(), engine="local", workers=2, nursery=nursery)[0].digest == weights.digest

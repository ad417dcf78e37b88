# SPDX-License-Identifier: Apache-2.0
"""The deployed system from end to end on one machine: `fedward server start`, a real SuperLink with TLS and node keys, mailboxes, sites.

The oracle is the strongest that there is: the model has the very bits that the in-process engine gives for the same plan, patients, keys
and session. Whatever was killed on the way.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from common import credentials
from common.plan import digest_of
from server.export import MODEL_FILE
from server.home import JOURNAL_FILE, CoordinatorHome
from server.journal import CommittedRound, Journal
from simulations.engine.nursery import Nursery
from simulations.hospitals import Coordinates, furnish
from simulations.stage import Stage
from tests.journeys.made import made_federation, made_scenario, made_stage, reserved_rounds, train
from tests.server.coordinators import Running, free_port, started

BACK_WITHIN_S = 300
"""The bar is 60 s on a machine of its own, as docs/figures/deployed-round.md has it; tests share theirs with many others."""


@dataclass(frozen=True, slots=True)
class Federation:
    """A coordinator's folder, its hospitals, and the stage whose twin the engine has trained."""

    home: CoordinatorHome
    hospitals: Path
    stage: Stage

    def committed(self) -> list[CommittedRound]:
        journal = Journal(self.home.run / JOURNAL_FILE, plan=digest_of(self.stage.scenario.plan), session=bytes(16), power_cut_safe=True)
        try:
            return journal.committed()
        finally:
            journal.close()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short name: the path of a Unix-domain socket has room for a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="fw") as folder:
        yield Path(folder)


@pytest.fixture
def federation(short: Path) -> Federation:
    """Three hospitals and a coordinator, whose session is the one that the engine will take too."""
    played = made_scenario(private=True, change=("rounds = 4", "rounds = 2")).with_changes(sites=3)
    stage = made_stage(short / "stage", played)
    folder = short / "coordinator"
    words = [sys.executable, "-m", "fedward", "server", "init", str(folder), "--plan", str(stage.plan_file), "--live-port", "0"]
    key = ["--key", str(stage.coordinator / credentials.KEY_FILE), "--port", str(free_port())]
    subprocess.run([*words, *key], check=True, capture_output=True)
    for name in (credentials.ROSTER_FILE, credentials.ROOTS_FILE):
        shutil.copy(stage.coordinator / name, folder / name)
    home = CoordinatorHome.open(folder)
    home.run.mkdir()
    plan = digest_of(played.plan)
    Journal(home.run / JOURNAL_FILE, plan=plan, session=made_federation(stage).session(), power_cut_safe=True).close()
    homes = {site: stage.home(site) for site in stage.sites}
    furnish(short / "hospitals", homes, stage.plan_file, Coordinates(address=home.address, ca=home.ca, nodes=home.nodes))
    return Federation(home, short / "hospitals", stage)


@contextmanager
def hospitals(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The hospitals' process; it ends with the test."""
    with (folder.parent / "hospitals.log").open("ab") as words:
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}  # as the engine's workers: a float's last bit depends on how many add up
        command = [sys.executable, "-m", "simulations.hospitals", str(folder)]
        process = subprocess.Popen(command, stdout=words, stderr=words, env=alone)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def expect_the_engines_bits(federation: Federation, running: Running, nursery: Nursery, *, within_s: float) -> None:
    """The run ends, every round has all sites in its first attempt, nobody paid twice, and the model is the engine's."""
    stage, rounds = federation.stage, federation.stage.scenario.plan.training.rounds
    assert running.process.wait(timeout=within_s) == 0, running.words()
    assert [(done.attempt, done.sites, done.missing) for done in federation.committed()] == [(0, stage.sites, ())] * rounds
    assert {tuple(reserved_rounds(stage, site)) for site in stage.sites} == {tuple(range(1, rounds + 1))}
    twin = made_stage(stage.folder.parent / "twin", stage.scenario)
    weights, _ = train(twin, nursery)
    card = json.loads((federation.home.run / "model.json").read_text())
    assert card["model_digest"] == weights.digest.hex()
    assert (federation.home.run / MODEL_FILE).stat().st_size > 0


@pytest.mark.slow
def test_a_deployed_run_whose_coordinator_is_killed_ends_with_the_bits_of_the_engine(federation: Federation, nursery: Nursery) -> None:
    with hospitals(federation.hospitals), started(federation.home) as running:
        running.wait_for("phase_opened", round=2, phase="MASK")
        os.kill(running.app_pid(), signal.SIGKILL)
        expect_the_engines_bits(federation, running, nursery, within_s=600)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["superlink", "superexec", "supervisor", "database"])
def test_whatever_dies_the_round_goes_on_by_itself_and_ends_with_the_bits_of_the_engine(
    federation: Federation, nursery: Nursery, victim: str
) -> None:
    with hospitals(federation.hospitals), ExitStack() as stack:
        running = stack.enter_context(started(federation.home))
        running.wait_for("phase_opened", round=2, phase="SHARE")
        killed = time.monotonic()
        if victim == "supervisor":
            running.process.kill()
            running.process.wait()
            running = stack.enter_context(started(federation.home))
        elif victim == "database":
            for path in federation.home.superlink.glob("state.db*"):
                path.unlink()
        else:
            os.kill(running.pid_of(victim), signal.SIGKILL)
        running.wait_for("phase_closed", round=2, phase="SHARE", within_s=600)
        took_s = time.monotonic() - killed
        expect_the_engines_bits(federation, running, nursery, within_s=600)
    assert took_s < BACK_WITHIN_S

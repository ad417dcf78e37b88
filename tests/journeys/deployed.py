# SPDX-License-Identifier: Apache-2.0
"""A federation as it is deployed, on one machine, with the twin that the engine trains."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common import credentials
from common.plan import digest_of
from server.home import JOURNAL_FILE, CoordinatorHome
from server.journal import CommittedRound, Journal
from simulations.hospitals import Coordinates, furnish
from simulations.stage import Stage
from tests.journeys.made import made_federation, made_scenario, made_stage
from tests.server.coordinators import free_port


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


def deployed(folder: Path) -> Federation:
    """Three hospitals and a coordinator, whose session is the one that the engine will take too."""
    played = made_scenario(private=True, change=("rounds = 4", "rounds = 2")).with_changes(sites=3)
    stage = made_stage(folder / "stage", played)
    coordinator = folder / "coordinator"
    words = [sys.executable, "-m", "fedward", "server", "init", str(coordinator), "--plan", str(stage.plan_file), "--live-port", "0"]
    key = ["--key", str(stage.coordinator / credentials.KEY_FILE), "--port", str(free_port())]
    subprocess.run([*words, *key], check=True, capture_output=True)
    for name in (credentials.ROSTER_FILE, credentials.ROOTS_FILE):
        shutil.copy(stage.coordinator / name, coordinator / name)
    home = CoordinatorHome.open(coordinator)
    home.run.mkdir()
    plan = digest_of(played.plan)
    Journal(home.run / JOURNAL_FILE, plan=plan, session=made_federation(stage).session(), power_cut_safe=True).close()
    homes = {site: stage.home(site) for site in stage.sites}
    furnish(folder / "hospitals", homes, stage.plan_file, Coordinates(address=home.address, ca=home.ca, nodes=home.nodes))
    return Federation(home, folder / "hospitals", stage)


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

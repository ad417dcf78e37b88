# SPDX-License-Identifier: Apache-2.0
"""What a round of secure aggregation costs where it is deployed: a real coordinator, a stock SuperLink, a mailbox for each site.

    python -m simulations.benchmarks.deployed_round --sites 10 --rounds 8 --out docs/figures/deployed-round.json

The coordinator is `fedward server start` as an operator types it. The sites are many in one process (`simulations.hospitals`), and train
the toy plan, which takes them milliseconds, so a round's time is nearly all protocol. Times are from the run's log; the first round is left
out, in which connections are made. Then one process after the other is killed in the middle of a round, and the seconds are counted until a
step is closed again; Flower's database is deleted likewise. Then the run is paused, and what an idle coordinator takes of a processor is
counted for half a minute.

Everything shares one machine, which at a consortium it does not: with few cores the sites' own work is part of what is measured.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from common import credentials
from server.home import APP_LOCK_FILE, LOG_FILE, CoordinatorHome
from server.process.processes import Lock
from simulations import scenario
from simulations.benchmarks.footprint import cpu_s, pss_bytes, tree
from simulations.benchmarks.transport import free_port, running
from simulations.hospitals import Coordinates, furnish
from simulations.rig import toy
from simulations.stage import Workshop, set_stage

STEPS: Final = ("KEYS", "SHARE", "MASK", "CONFIRM", "UNMASK")
VICTIMS: Final = ("serverapp", "superexec", "superlink", "database")
IDLE_S: Final = 30.0
_PATIENCE_S: Final = 600.0


def measure(folder: Path, *, sites: int, rounds: int, victims: Sequence[str] = VICTIMS) -> dict[str, Any]:
    """Set up, run, pause near the end, measure, and take everything down."""
    home, hospitals = _furnished(folder, sites, rounds + 4 + 3 * len(victims))
    command = [sys.executable, "-m", "simulations.hospitals", str(hospitals)]
    start = [sys.executable, "-m", "fedward", "server", "start", "--folder", str(home.folder)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    with running(command, folder / "hospitals.log", alone) as played, running(start, folder / "start.log", alone) as coordinator:
        _until(lambda: len(_lines(home, "round_committed")) >= 1)
        before = cpu_s(coordinator.pid), cpu_s(played.pid), time.monotonic()
        _until(lambda: len(_lines(home, "round_committed")) >= rounds + 1)
        after = cpu_s(coordinator.pid), cpu_s(played.pid), time.monotonic()
        undisturbed = {
            "round_s": _summary([line["seconds"] for line in _lines(home, "round_committed")][1:]),
            "steps_s": {step: _summary(_took(home, step)[1:]) for step in STEPS},
        }
        back = {victim: _back_after(home, victim) for victim in victims}
        _fedward("server", "pause", "--folder", str(home.folder))
        _until(lambda: bool(_lines(home, "waiting")))
        idle = _idle(coordinator.pid, played.pid)
    return {
        "sites": sites,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
        **undisturbed,
        "coordinator_cpu_s_per_round": round((after[0] - before[0]) / rounds, 2),
        "sites_cpu_s_per_round": round((after[1] - before[1]) / rounds, 2),
        "back_after_s": back,
        **idle,
    }


def _back_after(home: CoordinatorHome, victim: str) -> float:
    """Kill one in the next round's third step, and count the seconds until a step is closed again."""
    opened = len(_lines(home, "phase_opened", phase="MASK"))
    _until(lambda: len(_lines(home, "phase_opened", phase="MASK")) > opened)
    began, closed = time.monotonic(), len(_lines(home, "phase_closed"))
    if victim == "database":
        for path in home.superlink.glob("state.db*"):
            path.unlink()
    elif victim == "serverapp":
        holder = Lock.holder(home.run / APP_LOCK_FILE)
        assert holder is not None
        holder.signal(signal.SIGKILL)
    else:
        os.kill(_lines(home, "process_started", process=victim)[-1]["pid"], signal.SIGKILL)
    _until(lambda: len(_lines(home, "phase_closed")) > closed)
    return round(time.monotonic() - began, 1)


def _furnished(folder: Path, sites: int, rounds: int) -> tuple[CoordinatorHome, Path]:
    """A stage with patients, a coordinator's folder that knows its roster, and mailboxes for the sites."""
    text = toy.plan_text(rounds=rounds, minimum_cohort=sites) + toy.SIMULATED.format(sites=sites)
    played = scenario.parse(text.replace("epsilon = 8", "epsilon = 60"))
    shop = Workshop(cache=folder / "cache", workers=1, progress=lambda *_: None)
    stage = set_stage(played, toy.write_pictures(folder / "pictures", patients=20 * sites), folder / "stage", shop)
    place = folder / "coordinator"
    key = stage.coordinator / credentials.KEY_FILE
    command = ["server", "init", str(place), "--plan", str(stage.plan_file), "--key", str(key), "--port", str(free_port())]
    _fedward(*command, "--live-port", str(free_port()))
    for name in (credentials.ROSTER_FILE, credentials.ROOTS_FILE):
        shutil.copy(stage.coordinator / name, place / name)
    home = CoordinatorHome.open(place)
    homes = {site: stage.home(site) for site in stage.sites}
    furnish(folder / "hospitals", homes, stage.plan_file, Coordinates(address=home.address, ca=home.ca, nodes=home.nodes))
    return home, folder / "hospitals"


def _idle(pid: int, hospitals: int) -> dict[str, float]:
    """Of the coordinator's processes, while they have nothing to do but wait and be there: share of one core, and memory.

    And the share that all sites' mailboxes take together, which here are threads of one process.
    """
    used, by_hospitals, began = cpu_s(pid), cpu_s(hospitals), time.monotonic()
    time.sleep(IDLE_S)
    lasted = time.monotonic() - began
    return {
        "idle_share_of_a_core": round((cpu_s(pid) - used) / lasted, 3),
        "idle_share_of_a_core_mailboxes": round((cpu_s(hospitals) - by_hospitals) / lasted, 3),
        "pss_mb": round(pss_bytes(tree(pid)) / 2**20),
    }


def _took(home: CoordinatorHome, step: str) -> list[float]:
    """Seconds between a step's opening and its end, round by round."""
    opened, closed = (_lines(home, event, phase=step) for event in ("phase_opened", "phase_closed"))
    return [_at(end) - _at(begin) for begin, end in zip(opened, closed, strict=False)]


def _at(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["time"]).timestamp()


def _lines(home: CoordinatorHome, event: str, **facts: object) -> list[dict[str, Any]]:
    path = home.run / LOG_FILE
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["event"] == event and all(line.get(name) == fact for name, fact in facts.items())]


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    return {"median": round(statistics.median(seconds), 3), "least": round(min(seconds), 3), "most": round(max(seconds), 3)}


def _fedward(*command: str) -> None:
    subprocess.run([sys.executable, "-m", "fedward", *command], check=True, capture_output=True)  # noqa: S603 - as its operator types it


def _until(is_true: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError("the federation did not get there")
        time.sleep(0.05)


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--undisturbed", action="store_true", help="kill nobody: rounds and idleness alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), sites=asked.sites, rounds=asked.rounds, victims=() if asked.undisturbed else VICTIMS)
    text = json.dumps(found, indent=1) + "\n"
    sys.stdout.write(text)
    if asked.out:
        asked.out.write_text(text)


if __name__ == "__main__":
    main()

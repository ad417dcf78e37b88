# SPDX-License-Identifier: Apache-2.0
"""The ways to train a round at many sites, one process each: `python -m simulations.benchmarks.contenders NAME SITES WORKERS FOLDER`.

    loop      one plain PyTorch loop (plain.py)
    limit     one plain PyTorch process per worker, tuned, and nothing else (plain.py)
    fedward   client/app.py and server/rounds.py on the LocalEngine, as `fedward simulate` runs them
    ideal     the same, summing quantised integers; beside plain averaging, which is what the others do
    fsa1      the same, with secure aggregation as deployed
    ray       client/app.py and server/rounds.py on Flower's own simulation runtime

All train the same network on the same stored images, and all import only what they need, since start-up is measured too.
"""

import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from simulations.apps import CLIENT_APP
from simulations.benchmarks.turnstile import Turnstile

if TYPE_CHECKING:
    from flwr.serverapp import Grid

    from client.home import AggregationName
    from common.update import Weights
    from server.counts import CountedRound
    from server.journal import CommittedRound

ENGINES = ("fedward", "ray")
SECURE = ("ideal", "fsa1")
_AGGREGATION: "Mapping[str, AggregationName]" = {"fedward": "plain", "ideal": "ideal", "fsa1": "fsa1"}
PLAIN = ("loop", "limit")


class Metronome:
    """An `Observer` that makes a coordinator wait at the turnstile after each round, and refuses to time a round that failed."""

    def __init__(self, turnstile: Turnstile) -> None:
        self._turnstile = turnstile

    def round_opened(self, number: int, cohort: list[str]) -> None:
        if number == 1:
            self._turnstile.ready()

    def phase_opened(self, number: int, phase: str, *, asked: Sequence[str]) -> None:
        del number, phase, asked

    def site_heard(self, number: int, phase: str, site: str, *, code: str | None, bytes_up: int) -> None:
        del number, phase, site, code, bytes_up

    def site_answered(self, number: int, site: str, *, refused: bool) -> None:
        if refused:
            raise RuntimeError(f"{site} refused round {number}; its error.log says why")

    def phase_closed(self, number: int, phase: str, *, answered: int, asked: int) -> None:
        del number, phase, answered, asked

    def waiting(self, number: int, why: str) -> None:
        raise RuntimeError(f"round {number} waits: {why}")

    def counted(self, done: "CountedRound") -> None:
        del done

    def round_committed(self, done: "CommittedRound", weights: "Weights") -> None:
        if done.missing:
            raise RuntimeError(f"{len(done.missing)} sites are missing from round {done.round}")
        self._turnstile.lap()

    def chosen(self, number: int, *, trained: int) -> None:
        del number, trained


def run(name: str, num_sites: int, workers: int, folder: Path) -> None:
    """Be a contender until the plan's rounds are done."""
    turnstile = Turnstile()
    if name in (*ENGINES, *SECURE):
        if name == "ray":
            _ray(num_sites, workers, folder, turnstile)
        else:
            _fedward(num_sites, workers, folder, turnstile, aggregation=_AGGREGATION[name])
        return
    from simulations.benchmarks import plain
    from simulations.benchmarks.workload import Workload

    train = {"loop": plain.loop, "limit": plain.limit}[name]
    train(Workload(folder=folder, num_sites=num_sites), workers, turnstile)


def _fedward(num_sites: int, workers: int, folder: Path, turnstile: Turnstile, *, aggregation: "AggregationName") -> None:
    """As `fedward simulate` does it: the nursery first, so that it imports while this process does."""
    from simulations.engine import LocalEngine, Nursery

    with Nursery(CLIENT_APP) as nursery:
        coordinate = _coordinator(num_sites, folder, turnstile, aggregation)
        with LocalEngine(CLIENT_APP, num_sites, workers=workers, env=_environment(folder, aggregation), nursery=nursery) as grid:
            coordinate(grid)


def _ray(num_sites: int, workers: int, folder: Path, turnstile: Turnstile) -> None:
    """The same on Flower's simulation runtime, one processor for each of its actors."""
    from flwr.server.superlink.fleet.vce.backend.backend import BackendConfig
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    from client.app import app

    os.environ.update(_environment(folder, "plain"))
    coordinate = _coordinator(num_sites, folder, turnstile, "plain")
    server_app = ServerApp()
    server_app.main()(lambda grid, context: coordinate(grid))
    resources: BackendConfig = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": workers}}
    run_simulation(server_app, app, num_sites, backend_config=resources)


def _coordinator(num_sites: int, folder: Path, turnstile: Turnstile, aggregation: "AggregationName") -> "Callable[[Grid], None]":
    """The real coordinator, opened when it gets its grid: Flower calls it in a thread of its own."""
    from common.plan import digest_of
    from server.journal import Journal
    from simulations.benchmarks.workload import COORDINATOR, PLAN_FILE, Workload
    from simulations.federation import Federation

    plan = Workload(folder=folder, num_sites=num_sites).plan

    def coordinate(grid: "Grid") -> None:
        run = Path(tempfile.mkdtemp(dir=folder))
        journal = Journal(run / "journal.sqlite", plan=digest_of(plan), session=secrets.token_bytes(16), power_cut_safe=False)
        federation = Federation(
            plan=plan,
            plan_file=folder / PLAN_FILE,
            sites=folder,
            num_sites=num_sites,
            folder=run,
            coordinator=folder / f"{COORDINATOR}-{aggregation}",
            aggregation=aggregation,
        )
        federation.coordinate(grid, journal, Metronome(turnstile)).run()
        journal.close()

    return coordinate


def _environment(folder: Path, aggregation: "AggregationName") -> dict[str, str]:
    from simulations.benchmarks.workload import PLAN_FILE, SITES

    sites = SITES if aggregation == "plain" else f"{SITES}-{aggregation}"
    return {"FEDWARD_PLAN": str(folder / PLAN_FILE), "FEDWARD_SITES": str(folder / sites)}


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))

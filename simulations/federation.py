# SPDX-License-Identifier: Apache-2.0
"""The federation itself: the deployed coordinator, the deployed sites, on an engine instead of a network.

Nothing of the protocol lives here. A `Coordinator` is opened on the run folder exactly as `server/app.py` does it, and given a grid:
the local engine's, or the one that Flower's Ray runtime hands to a ServerApp.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flwr.app import ConfigRecordValues, Context
from flwr.serverapp import Grid, ServerApp

from client.app import PLAN_VARIABLE, SITES_VARIABLE
from common import canonical
from common.errors import EngineError
from common.models import initial_weights
from common.plan import Plan, digest_of
from common.update import Weights
from server.checkpoint import CheckpointFolder
from server.journal import CommittedRound, Journal
from server.rounds import Coordinator, Observer
from simulations.engine import LocalEngine

CLIENT_APP = "client.app:app"
EngineName = Literal["local", "ray"]
CHECKPOINTS = "checkpoints"
JOURNAL = "journal.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """A plan, the folder of its sites' homes, and the folder where its journal and checkpoints go."""

    plan: Plan
    plan_file: Path
    sites: Path
    num_sites: int
    folder: Path
    unsafe_noise_seed: int | None = None

    def train(self, observer: Observer, *, engine: EngineName, workers: int | None) -> tuple[Weights, list[CommittedRound]]:
        """Run, or go on with, all rounds. Returns the final model and every committed round. Raises: RoundError, StorageError,
        EngineError."""
        with self._journal() as journal:

            def run(grid: Grid) -> Weights:
                return self._coordinator(grid, journal, observer).run()

            environment = {PLAN_VARIABLE: str(self.plan_file.resolve()), SITES_VARIABLE: str(self.sites.resolve())}
            if engine == "local":
                with LocalEngine(CLIENT_APP, self.num_sites, workers=workers, env=environment) as grid:
                    weights = run(grid)
            else:
                weights = _on_ray(run, environment, self.num_sites, workers or os.cpu_count() or 1)
            return weights, journal.committed()

    @contextmanager
    def _journal(self) -> Iterator[Journal]:
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = digest_of(self.plan)
        journal = Journal(self.folder / JOURNAL, plan=plan, session=self._session(plan), power_cut_safe=False)
        try:
            yield journal
        finally:
            journal.close()

    def _session(self, plan: str) -> bytes:
        """Fresh, unless two runs are to be compared bit by bit."""
        if self.unsafe_noise_seed is None:
            return secrets.token_bytes(16)
        return canonical.digest(b"session", plan.encode(), canonical.encode(self.unsafe_noise_seed))[:16]

    def _coordinator(self, grid: Grid, journal: Journal, observer: Observer) -> Coordinator:
        return Coordinator(
            grid=grid,
            plan=self.plan,
            initial=initial_weights(self.plan),
            journal=journal,
            checkpoints=CheckpointFolder(self.folder / CHECKPOINTS, power_cut_safe=False),
            observer=observer,
        )


def _on_ray(run: Callable[[Grid], Weights], environment: dict[str, str], num_sites: int, workers: int) -> Weights:
    """The same coordinator and the same ClientApp on Flower's simulation runtime, which can span machines."""
    try:
        import ray  # noqa: F401 - an extra: absent on hospital machines on purpose, since Ray pickles
        from flwr.simulation import run_simulation
    except ImportError as error:
        raise EngineError("--engine ray needs Flower's simulation extra.", fix="Install it: pip install 'fedward[ray]'.") from error
    from client.app import app as client_app

    results: list[Weights] = []
    failures: list[BaseException] = []
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        try:
            results.append(run(grid))
        except BaseException as error:  # carried over Flower's thread and raised below
            failures.append(error)
            raise

    os.environ.update(environment)
    resources = {"num_cpus": 1, "num_gpus": 0.0}
    try:
        run_simulation(
            server_app, client_app, num_sites, backend_config={"client_resources": resources, "init_args": {"num_cpus": workers}}
        )
    except Exception:
        if not failures:
            raise
    if failures:
        raise failures[0]
    return results[0]

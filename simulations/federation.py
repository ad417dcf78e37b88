# SPDX-License-Identifier: Apache-2.0
"""The federation itself: the deployed coordinator, the deployed sites, on an engine instead of a network.

Nothing of the protocol lives here. A `Coordinator` is opened on the run folder exactly as `server/app.py` does it, and given a grid:
the local engine's, or the one that Flower's Ray runtime hands to a ServerApp. Only here can it be given another aggregation than the
deployed one, and it works only with sites whose own files say the same.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from flwr.app import ConfigRecordValues, Context
from flwr.serverapp import Grid, ServerApp

from client.app import PLAN_VARIABLE, SITES_VARIABLE
from client.home import AggregationName
from common import canonical, credentials
from common.agreement import groups_of
from common.audit.evidence import Keep
from common.errors import EngineError
from common.models import initial_weights
from common.plan import Plan, digest_of
from common.update import AggregateDelta, Weights
from server import unmasked
from server.aggregation import Aggregation, Observer, Several
from server.audit import Recorder, Run
from server.checkpoint import CheckpointFolder
from server.counts import CountedRound
from server.fsa1 import SecureAggregation
from server.gate import Gate, Open
from server.journal import CommittedRound, Journal
from server.membership.consortium import Consortium
from server.membership.roll import Roll
from server.persistence import Persistence
from server.rounds import Coordinator
from server.transport.exchange import Line, Pace
from server.unmasked import UnmaskedAggregation
from server.vectors import VectorFolder
from simulations.apps import CLIENT_APP, FAULTY_APP
from simulations.engine import LocalEngine
from simulations.engine.nursery import Nursery
from simulations.faults import FAULTS_VARIABLE, Fault
from simulations.stage import SITES, Stage, aggregation_of

EngineName = Literal["local", "ray"]
CHECKPOINTS = "checkpoints"
JOURNAL = "journal.sqlite"
VECTORS = "vectors"

Outcome = tuple[Weights, list[CommittedRound]]
"""The final model, and every committed round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """A plan, the folder of its sites' homes, and the folder where its journal and checkpoints go.

    `coordinator` is the folder of the coordinator's key and roster; `aggregation` must be what the sites' own files say. `tap` sees all
    that the coordinator sees of updates, for an audit. From `gate` on they are what a deployed coordinator has, for tests of it.
    """

    plan: Plan
    plan_file: Path
    sites: Path
    num_sites: int
    folder: Path
    coordinator: Path
    aggregation: AggregationName = "fsa1"
    unsafe_noise_seed: int | None = None
    faults: tuple[Fault, ...] = ()
    evidence: Keep = "hashes"
    tap: Callable[[Aggregation], Aggregation] | None = None
    gate: Gate = field(default_factory=Open)
    persistence: Persistence | None = None
    power_cut_safe: bool = False
    pace: Pace = field(default_factory=Pace)

    def train(self, observer: Observer, *, engine: EngineName, workers: int | None, nursery: Nursery | None = None) -> Outcome:
        """Run, or go on with, all rounds. A `nursery` (of FAULTY_APP, if there are faults) saves the local engine its start-up.

        Raises: RoundError, StorageError, EngineError.
        """

        def run(grid: Grid) -> Outcome:
            # Opened here, because Flower calls a ServerApp in a thread of its own and SQLite stays in the thread that opened it.
            with self._journal() as journal:
                return self.coordinate(grid, journal, observer).run(), journal.committed()

        environment = {PLAN_VARIABLE: str(self.plan_file.resolve()), SITES_VARIABLE: str(self.sites.resolve())}
        if engine == "ray":
            return _on_ray(run, environment, self.num_sites, workers or os.cpu_count() or 1)
        environment[FAULTS_VARIABLE] = ",".join(map(str, self.faults))
        client_app = nursery.client_app if nursery else FAULTY_APP if self.faults else CLIENT_APP
        with LocalEngine(client_app, self.num_sites, workers=workers, env=environment, nursery=nursery) as grid:
            return run(grid)

    def session(self) -> bytes:
        """The 16 bytes by which all messages of this run are known, from its journal."""
        with self._journal() as journal:
            return journal.session

    def counted(self) -> list[CountedRound]:
        """What the sites counted together, from the journal."""
        with self._journal() as journal:
            return journal.counts.closed()

    @contextmanager
    def _journal(self) -> Iterator[Journal]:
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = digest_of(self.plan)
        journal = Journal(self.folder / JOURNAL, plan=plan, session=self._session(plan), power_cut_safe=self.power_cut_safe)
        try:
            yield journal
        finally:
            journal.close()

    def _session(self, plan: str) -> bytes:
        """Fresh, unless two runs are to be compared bit by bit."""
        if self.unsafe_noise_seed is None:
            return secrets.token_bytes(16)
        return canonical.digest(b"session", plan.encode(), canonical.encode(self.unsafe_noise_seed))[:16]

    def coordinate(self, grid: Grid, journal: Journal, observer: Observer) -> Coordinator:
        """The coordinator of this federation, on a grid and journal that are open already."""
        initial, members = initial_weights(self.plan), Consortium(key=self.coordinator, roster=self.coordinator)
        recorder = self._recorder(initial, journal, members)
        roll = Roll(line=Line(grid, self.pace), plan=digest_of(self.plan), minimum=self.plan.aggregation.minimum_cohort)
        aggregation = self._aggregation(roll, initial, journal, members, observer, recorder)
        return Coordinator(
            roll=roll,
            plan=self.plan,
            initial=initial,
            groups=lambda: groups_of(self.plan, members.read_roster()),
            journal=journal,
            checkpoints=CheckpointFolder(self.folder / CHECKPOINTS, power_cut_safe=self.power_cut_safe),
            observer=Several(recorder, observer) if recorder else observer,
            aggregation=self.tap(aggregation) if self.tap else aggregation,
            gate=self.gate,
            persistence=self.persistence,
        )

    def _recorder(self, initial: Weights, journal: Journal, members: Consortium) -> Recorder | None:
        """The coordinator's audit log, where there is something to account for."""
        if self.aggregation != "fsa1":
            return None
        mine, signed = members.read(), members.signed_roster()
        run = Run(folder=self.folder, plan=self.plan, session=journal.session, initial=initial, credentials=mine, signed_roster=signed)
        recorder = Recorder(run, keep=self.evidence, power_cut_safe=self.power_cut_safe)
        members.adopted = recorder.adopted
        return recorder

    def _aggregation(
        self, roll: Roll, initial: Weights, journal: Journal, members: Consortium, observer: Observer, recorder: Recorder | None
    ) -> Aggregation:
        if self.aggregation == "fsa1":
            return SecureAggregation(
                roll=roll,
                plan=self.plan,
                initial=initial,
                members=members,
                journal=journal,
                vectors=VectorFolder(self.folder / VECTORS, power_cut_safe=self.power_cut_safe),
                observer=observer,
                recorder=recorder,
                gate=self.gate,
                persistence=self.persistence,
            )

        def way(weights: Weights) -> unmasked.Way[AggregateDelta]:
            if self.aggregation == "plain":
                return unmasked.plain(weights)
            return unmasked.ideal(self.plan, credentials.load_roster(self.coordinator), weights)

        return UnmaskedAggregation(roll=roll, plan=self.plan, journal=journal, observer=observer, way=way)


def _on_ray(run: Callable[[Grid], Outcome], environment: dict[str, str], num_sites: int, workers: int) -> Outcome:
    """The same coordinator and the same ClientApp on Flower's simulation runtime, which can span machines."""
    try:
        import ray  # noqa: F401 - an extra: absent on hospital machines on purpose, since Ray pickles
        from flwr.simulation import run_simulation
    except ImportError as error:
        raise EngineError("--engine ray needs Flower's simulation extra.", fix="Install it: pip install 'fedward[ray]'.") from error
    from client.app import app as client_app

    results: list[Outcome] = []
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
    client: dict[str, ConfigRecordValues] = {"num_cpus": 1, "num_gpus": 0.0}
    pool: dict[str, ConfigRecordValues] = {"num_cpus": workers}
    try:
        run_simulation(server_app, client_app, num_sites, backend_config={"client_resources": client, "init_args": pool})
    except Exception:
        if not failures:
            raise
    if failures:
        raise failures[0]
    return results[0]


def federation_on(stage: Stage) -> Federation:
    """The plan that a stage was set for, over its sites, summed as their own files say."""
    return Federation(
        plan=stage.scenario.plan,
        plan_file=stage.plan_file,
        sites=stage.folder / SITES,
        num_sites=len(stage.sites),
        folder=stage.folder,
        coordinator=stage.coordinator,
        aggregation=aggregation_of(stage),
    )

# SPDX-License-Identifier: Apache-2.0
"""The coordinator as a Flower ServerApp: wiring, nothing else.

Nothing is read from Flower's run config. Everything comes from the environment of the machine that runs the coordinator: the plan
(`FEDWARD_PLAN`), the folder of its key (`FEDWARD_COORDINATOR`), that of roster and roots if it is another (`FEDWARD_ROSTER`), the run
folder (`FEDWARD_RUN`), what is kept there for auditors (`FEDWARD_EVIDENCE`), and whether mailboxes are known by their keys
(`FEDWARD_MAILBOXES`: `fedward server start` sets it to "keys", unless the SuperLink is an insecure one). A run that finds its folder half
done goes on where it stopped.

One process at a time has a run: it holds a lock on the folder for as long as it lives, by which its supervisor (`fedward server start`)
sees it live and die. Before it ends of its own accord it leaves word how (`server.process.outcome`); who was killed leaves none.
"""

import os
import secrets
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.agreement import groups_of
from common.backtrace import keep_whole, outline
from common.credentials import Credentials
from common.errors import FedwardError, PlanError, RunFolderTaken, RunStopped, Unforeseen
from common.models import WEIGHTS_FOLDER, initial_weights, look_in
from common.plan import Plan, digest_of, load
from server import audit
from server.aggregation import Given, Observer, Several
from server.checkpoint import CheckpointFolder
from server.counts import as_facts
from server.export import export
from server.fsa1 import SecureAggregation
from server.gate import FolderGate
from server.home import (
    APP_LOCK_FILE,
    CHECKPOINTS_FOLDER,
    COORDINATOR_VARIABLE,
    EVIDENCE_VARIABLE,
    JOURNAL_FILE,
    LOG_FILE,
    MAILBOXES_VARIABLE,
    OUTCOME_FILE,
    PLAN_VARIABLE,
    ROSTER_VARIABLE,
    RUN_VARIABLE,
    VECTORS_FOLDER,
    CoordinatorHome,
)
from server.journal import Journal
from server.live.status import STATUS_FILE
from server.live.watch import Watch
from server.membership.consortium import Consortium, Crier
from server.membership.roll import Roll
from server.persistence import Persistence
from server.process import logbook
from server.process.control import Control
from server.process.logbook import Logbook, RoundLines
from server.process.nodes import Owners
from server.process.outcome import Outcome
from server.process.processes import Lock, die_with_parent
from server.rounds import Coordinator
from server.transport.exchange import Line
from server.vectors import VectorFolder

_CARRIERS = ("httpx", "httpcore", "flwr")
_WORD_BYTES = 4
_BESIDE_A_VECTOR = 64 << 20
"""Room in a reply for shares, signatures and news, in bytes; a masked vector may have twice its size."""

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the plan of this machine's environment to its last round, then export the model into the run folder."""
    del context  # Flower's run config and state are not trusted and not needed
    die_with_parent()
    folder = _from_environment(RUN_VARIABLE)
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder / APP_LOCK_FILE)
    if not lock.take():
        raise RunFolderTaken(f"run folder '{folder}' is in use by another coordinator.", fix="Stop that one first.")
    try:
        word = _last_word(grid, folder)
        if word is not None:
            word.write(folder / OUTCOME_FILE)
    finally:
        lock.release()


def _last_word(grid: Grid, folder: Path) -> Outcome | None:
    """How the run ended. None, if Flower gave up on it: then it is as good as killed, and goes on elsewhere."""
    run = grid.run.run_id
    try:
        _run(grid, folder)
        return Outcome(run=run, end="done")
    except RunStopped as error:
        return Outcome(run=run, end="stopped", **error.as_dict())
    except FedwardError as error:
        return Outcome(run=run, end="refused", **error.as_dict())
    except Exception as error:
        if type(error).__module__.partition(".")[0] in _CARRIERS:
            Logbook(folder / LOG_FILE).write(logbook.Line(event="carrier_lost", code=type(error).__name__))
            keep_whole(error)
            return None
        keep_whole(error)
        return Outcome(
            run=run, end="refused", **Unforeseen(f"{outline(error)}.", fix="This is a fault in fedward: please report it.").as_dict()
        )


def _run(grid: Grid, folder: Path) -> None:
    plan = load(_from_environment(PLAN_VARIABLE))
    mine = _consortium().read()
    journal = Journal(folder / JOURNAL_FILE, plan=digest_of(plan), session=secrets.token_bytes(16), power_cut_safe=True)
    sites = [member.site_id for member in mine.roster.members if not member.revoked]
    watch = Watch(
        folder / STATUS_FILE,
        plan,
        session=journal.session,
        sites=sites,
        committed=journal.committed(),
        journal=folder / JOURNAL_FILE,
    )
    try:
        with watch:
            _train(grid, folder, plan, mine, journal, Several(RoundLines(Logbook(folder / LOG_FILE), plan.training.rounds), watch))
            watch.ended("finished")
    finally:
        journal.close()


def _train(grid: Grid, folder: Path, plan: Plan, mine: Credentials, journal: Journal, observer: Observer) -> None:
    look_in(_from_environment(COORDINATOR_VARIABLE) / WEIGHTS_FOLDER)
    initial, members = initial_weights(plan), _consortium()
    signed = members.signed_roster()
    run = audit.Run(folder=folder, plan=plan, session=journal.session, initial=initial, credentials=mine, signed_roster=signed)
    recorder = audit.Recorder(run, keep="vectors" if os.environ.get(EVIDENCE_VARIABLE) == "vectors" else "hashes", power_cut_safe=True)
    members.adopted = recorder.adopted
    line = Line(grid, most_bytes=2 * _WORD_BYTES * initial.layout.size + _BESIDE_A_VECTOR)
    gate, persistence, given = FolderGate(folder), Persistence(), Given()
    told, endorsement = _plan_as_signed()
    herald = Crier(line, members, plan=told, endorsement=endorsement)
    minimum = plan.aggregation.minimum_cohort
    roll = Roll(line=line, plan=digest_of(plan), minimum=minimum, herald=herald, owners=_owners(folder, members))
    aggregation = SecureAggregation(
        roll=roll,
        plan=plan,
        initial=initial,
        members=members,
        journal=journal,
        vectors=VectorFolder(folder / VECTORS_FOLDER, power_cut_safe=True),
        observer=observer,
        workers=os.cpu_count() or 1,
        recorder=recorder,
        gate=gate,
        persistence=persistence,
    )
    coordinator = Coordinator(
        roll=roll,
        plan=plan,
        initial=initial,
        groups=lambda: groups_of(plan, members.read_roster()),
        journal=journal,
        checkpoints=CheckpointFolder(folder / CHECKPOINTS_FOLDER, power_cut_safe=True),
        observer=Several(recorder, observer, given),
        aggregation=aggregation,
        gate=gate,
        persistence=persistence,
    )
    try:
        weights = coordinator.run()
    except RunStopped:
        recorder.stopped()
        raise
    sites = sorted({site for done in journal.committed() for site in done.sites})
    counted = [as_facts(plan, done) for done in journal.counts.closed()]
    export(folder, weights=weights, plan=plan, facts={"sites": sites, **given.as_facts(), "counted": counted})
    recorder.published(weights)


def _owners(folder: Path, members: Consortium) -> Owners | None:
    """Who is behind which node; None where nodes have no keys: an insecure SuperLink, or one that fedward did not start."""
    if os.environ.get(MAILBOXES_VARIABLE) != "keys":
        return None
    home, book = CoordinatorHome.open(_from_environment(COORDINATOR_VARIABLE)), Logbook(folder / LOG_FILE)
    control = Control(home.address, home.ca.read_bytes())
    return Owners(control, home.nodes, members.read_roster, lambda error: book.write(logbook.Line(event="refused", code=error.code)))


def _consortium() -> Consortium:
    folder = _from_environment(COORDINATOR_VARIABLE)
    return Consortium(key=folder, roster=Path(os.environ.get(ROSTER_VARIABLE) or folder))


def _plan_as_signed() -> tuple[bytes, bytes]:
    """The plan's file and what root keys say of it, for sites that have not approved it; nothing, if it is not signed."""
    plan = _from_environment(PLAN_VARIABLE)
    signed = plan.with_suffix(".sig")
    return (plan.read_bytes(), signed.read_bytes()) if signed.exists() else (b"", b"")


def _from_environment(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise PlanError(f"the environment variable {variable} is not set.", fix="Set it to a path on this machine before `flwr run`.")
    return Path(value)

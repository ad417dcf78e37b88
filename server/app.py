# SPDX-License-Identifier: Apache-2.0
"""The coordinator as a Flower ServerApp: wiring, nothing else.

Nothing is read from Flower's run config. The plan comes from the environment of the machine that runs the coordinator (`FEDWARD_PLAN`),
its key and roster from the folder `FEDWARD_COORDINATOR`, the run folder from `FEDWARD_RUN`; a run that finds its folder half done goes on
where it stopped.
"""

import logging
import os
import secrets
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common import credentials
from common.agreement import groups_of
from common.errors import PlanError
from common.models import initial_weights
from common.plan import Plan, digest_of, load
from common.update import Weights
from server.aggregation import Silent
from server.checkpoint import CheckpointFolder
from server.counts import CountedRound, as_facts
from server.exchange import Line
from server.export import export
from server.fsa1 import SecureAggregation
from server.journal import CommittedRound, Journal
from server.rounds import Coordinator
from server.vectors import VectorFolder

PLAN_VARIABLE = "FEDWARD_PLAN"
RUN_VARIABLE = "FEDWARD_RUN"
COORDINATOR_VARIABLE = "FEDWARD_COORDINATOR"

log = logging.getLogger("fedward.server")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the plan of this machine's environment to its last round, then export the model into the run folder."""
    del context  # Flower's run config and state are not trusted and not needed
    plan = load(_from_environment(PLAN_VARIABLE))
    folder = _from_environment(RUN_VARIABLE)
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "journal.sqlite", plan=digest_of(plan), session=secrets.token_bytes(16), power_cut_safe=True)
    initial, observer = initial_weights(plan), Log(plan)
    mine = credentials.load(_from_environment(COORDINATOR_VARIABLE), "coordinator")
    aggregation = SecureAggregation(
        line=Line(grid),
        plan=plan,
        initial=initial,
        credentials=mine,
        journal=journal,
        vectors=VectorFolder(folder / "vectors", power_cut_safe=True),
        observer=observer,
        workers=os.cpu_count() or 1,
    )
    coordinator = Coordinator(
        grid=grid,
        plan=plan,
        initial=initial,
        groups=groups_of(plan, mine.roster),
        journal=journal,
        checkpoints=CheckpointFolder(folder / "checkpoints", power_cut_safe=True),
        observer=observer,
        aggregation=aggregation,
    )
    weights = coordinator.run()
    sites = sorted({site for done in journal.committed() for site in done.sites})
    counted = [as_facts(plan, done) for done in journal.counts.closed()]
    export(folder, weights=weights, plan=plan, facts={"sites": sites, "rounds": plan.training.rounds, "counted": counted})
    journal.close()
    log.info("model written to %s", folder)


class Log(Silent):
    """Progress as log lines: names of sites, numbers of rounds, codes."""

    def __init__(self, plan: Plan) -> None:
        self._rounds = plan.training.rounds

    def round_opened(self, number: int, cohort: list[str]) -> None:
        log.info("round %d of %d: %d sites asked", number, self._rounds, len(cohort))

    def site_heard(self, number: int, phase: str, site: str, *, code: str | None, bytes_up: int) -> None:
        del bytes_up
        log.info("round %d: %s: %s %s", number, phase, site, "answered" if code is None else f"did not answer: {code}")

    def phase_closed(self, number: int, phase: str, *, answered: int, asked: int) -> None:
        log.info("round %d: %s, %d of %d", number, phase, answered, asked)

    def waiting(self, number: int, why: str) -> None:
        log.info("round %d waits: %s", number, why)

    def counted(self, done: CountedRound) -> None:
        log.info("round %d: %s: %s", done.round, done.kind.name, done.failure or f"{len(done.sites)} sites in the noised sum")

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        del weights
        log.info(
            "round %d committed: %d sites in the sum, %d missing, %.1f s", done.round, len(done.sites), len(done.missing), done.seconds
        )
        for absence in (*done.missing, *done.fallen):
            log.info("round %d: %s did not answer to the end: %s", done.round, absence.site, absence.why)


def _from_environment(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise PlanError(f"the environment variable {variable} is not set.", fix="Set it to a path on this machine before `flwr run`.")
    return Path(value)

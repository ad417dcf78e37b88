# SPDX-License-Identifier: Apache-2.0
"""The round loop: train, agree, mask, confirm, unmask, apply, commit, until the plan's rounds are done.

    cohort = sites of this round          journal: open
    train                                 every site makes an update of the model, clips, noises, quantises and keeps it
    agree, mask, confirm, unmask          the cohort's sum, and nothing of any one site       (server.fsa1, step by step)
    state = strategy.apply(state, mean)
    commit                                checkpoint on disk, then the journal's row

A site that refuses, fails or misses the deadline is written down and the round goes on with the others. Below a threshold nothing is
aggregated: the round is tried again once, and then the run stops by name with everything committed so far intact.

After a crash the same loop starts at the first round that is not committed, with the same session, round, attempt and step: sites answer
the same bytes again, so that nothing is trained, or paid for, twice.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from common import wire
from common.errors import CheckpointCorrupt, CohortTooSmall, ProtocolError
from common.plan import Plan, digest_of
from common.update import Weights
from server.aggregation import FAILED, Aggregation, Collected, Observer, reasons
from server.checkpoint import KEPT, Checkpoint, CheckpointFolder
from server.cohort import draw
from server.exchange import Line
from server.journal import Absence, CommittedRound, Journal
from server.strategies import StrategyState, strategy_of

_HELLO_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """Everything that a run needs; `run` is the run. `groups` are those of the roster, of which a round asks all sites or draws some."""

    grid: Grid
    plan: Plan
    initial: Weights
    groups: tuple[frozenset[str], ...]
    journal: Journal
    checkpoints: CheckpointFolder
    observer: Observer
    aggregation: Aggregation

    def run(self) -> Weights:
        """Train the plan's rounds, from the last committed one on. Returns the final model.

        Raises: RoundError, ProtocolError or UpdateError by name, when a round fails twice; CheckpointCorrupt, when no checkpoint is whole.
        """
        checkpoint = self._restore()
        state = checkpoint.state
        if checkpoint.round < self.plan.training.rounds:
            sites = self._greet()
            for number in range(checkpoint.round + 1, self.plan.training.rounds + 1):
                state = self._round(number, state, sites)
        return self._weights(state)

    def _restore(self) -> Checkpoint:
        committed = self.journal.committed()
        for done in reversed(committed):
            try:
                checkpoint = self.checkpoints.load(done)
                self.observer.round_committed(done, self._weights(checkpoint.state))
                return checkpoint
            except CheckpointCorrupt:
                if done is committed[0]:
                    raise
                self.journal.roll_back(done.round)
        return Checkpoint(round=0, state=strategy_of(self.plan.training).init(self.initial.values))

    def _greet(self) -> dict[str, int]:
        """Ask every connected node for its site's name; wait until the minimum cohort is there."""
        end = time.monotonic() + max(_HELLO_S, self.plan.aggregation.deadline_s)
        hello = wire.encode_hello(wire.Hello(plan=digest_of(self.plan)))
        while True:
            nodes = list(self.grid.get_node_ids())
            sites, refusals = self._names(nodes, hello)
            if len(sites) >= self.plan.aggregation.minimum_cohort:
                return sites
            if time.monotonic() > end or (refusals and len(sites) + len(refusals) == len(nodes)):
                raise self._too_few("at the start", len(sites), refusals)
            time.sleep(1.0)

    def _names(self, nodes: list[int], hello: RecordDict) -> tuple[dict[str, int], list[Absence]]:
        sites: dict[str, int] = {}
        refusals = []
        for answer in Line(self.grid).ask(wire.HELLO, dict.fromkeys(nodes, hello), group="hello", deadline_s=_HELLO_S):
            if answer.content is None:
                refusals.append(Absence(site=f"node {answer.node}", why=FAILED))
                continue
            try:
                reply = wire.decode_hello_reply(answer.content)
            except ProtocolError as error:
                refusals.append(Absence(site=f"node {answer.node}", why=error.code))
                continue
            if isinstance(reply, wire.Refusal):
                refusals.append(Absence(site=reply.site or f"node {answer.node}", why=reply.code))
            else:
                sites[reply.site] = answer.node
        return dict(sorted(sites.items())), refusals

    def _round(self, number: int, state: StrategyState, sites: Mapping[str, int]) -> StrategyState:
        started = time.monotonic()
        weights = self._weights(state)
        cohort = draw(sites, self.groups, self.plan, number)
        self.journal.open_round(number, model=weights.digest.hex(), cohort=cohort)
        self.observer.round_opened(number, cohort)
        collected = self.aggregation.collect(number, weights, {site: sites[site] for site in cohort})
        state = strategy_of(self.plan.training).apply(state, collected.aggregate)
        self._commit(number, state, collected, time.monotonic() - started)
        return state

    def _commit(self, number: int, state: StrategyState, collected: Collected, seconds: float) -> None:
        checkpoint, sha256 = self.checkpoints.save(number, state)
        done = CommittedRound(
            round=number,
            attempt=collected.attempt,
            sites=collected.sites,
            missing=collected.missing,
            fallen=collected.fallen,
            checkpoint=checkpoint,
            sha256=sha256,
            seconds=seconds,
            update_norm=float(np.linalg.norm(collected.aggregate.values)),
        )
        self.journal.commit(done)
        self.aggregation.settle(number)
        self.checkpoints.prune(self.journal.committed(last=KEPT))
        self.observer.round_committed(done, self._weights(state))

    def _weights(self, state: StrategyState) -> Weights:
        return Weights(layout=self.initial.layout, values=state.weights)

    def _too_few(self, when: str, present: int, missing: list[Absence]) -> CohortTooSmall:
        return CohortTooSmall(
            f"{when} {present} sites answered, minimum_cohort is {self.plan.aggregation.minimum_cohort} ({reasons(tuple(missing))}).",
            fix="Mend those sites and continue with --resume; every committed round is kept.",
        )

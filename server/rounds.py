# SPDX-License-Identifier: Apache-2.0
"""The round loop: count, train, agree, mask, confirm, unmask, apply, commit, until the plan's rounds are done.

    cohort = sites of this round          journal: open
    count                                 where the plan asks: noised counts of patients, of all sites   (common.counting)
    train                                 every site makes an update of the model, clips, noises, quantises and keeps it
    agree, mask, confirm, unmask          the cohort's sum, and nothing of any one site       (server.fsa1, step by step)
    state = strategy.apply(state, mean)
    commit                                checkpoint on disk, then the journal's row

A site that refuses, fails or misses the deadline is written down and the round goes on with the others. Below a threshold nothing is
aggregated: the round is tried again once, and then the run stops by name with everything committed so far intact.

A plan may ask for a statistic before the first round, and have models judged: the one that a round starts from, and after the last round
the final one. That is worth less than the training: where it fails, for want of sites or of budget, the reason is written down and the
round goes on.

After a crash the same loop starts at the first round that is not committed, with the same session, round, attempt and step: sites answer
the same bytes again, so that nothing is trained, or paid for, twice.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from common import failpoints, wire
from common.counting import Form, forms_of
from common.errors import CheckpointCorrupt, CohortTooSmall, ProtocolError
from common.plan import Plan, digest_of
from common.update import Weights
from server.absences import Absence
from server.aggregation import FAILED, Aggregation, Collected, Observer, reasons
from server.checkpoint import KEPT, Checkpoint, CheckpointFolder
from server.cohort import draw
from server.counts import CountedRound
from server.exchange import Line
from server.journal import CommittedRound, Journal
from server.strategies import StrategyState, strategy_of
from server.talks import FAILURES

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
        state, last = checkpoint.state, self.plan.training.rounds
        if checkpoint.round < last or self._due(last + 1):
            sites = self._greet()
            for number in range(checkpoint.round + 1, last + 1):
                state = self._round(number, state, sites)
            self._count(last + 1, self._weights(state), sites)
            self.aggregation.settle(last + 1)
        return self._weights(state)

    def _restore(self) -> Checkpoint:
        for counted in self.journal.counts.closed():
            self.observer.counted(counted)
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
        self._count(number, weights, sites)
        collected = self.aggregation.collect(number, weights, {site: sites[site] for site in cohort})
        state = strategy_of(self.plan.training).apply(state, collected.aggregate)
        self._commit(number, state, collected, time.monotonic() - started)
        return state

    def _due(self, number: int) -> list[Form]:
        """What a round has still to count before it trains; statistics come before evaluations."""
        closed = {(done.round, done.kind) for done in self.journal.counts.closed()}
        return [form for form in forms_of(self.plan) if number in form.rounds and (number, form.kind) not in closed]

    def _count(self, number: int, weights: Weights, sites: Mapping[str, int]) -> None:
        """Ask all sites what is due, and write down what came of it."""
        for form in self._due(number):
            started = time.monotonic()
            self.journal.counts.open(number, form.kind)
            try:
                done = self.aggregation.count(number, form, weights, sites)
            except FAILURES as error:
                attempt = self.journal.counts.attempt(number, form.kind)
                done = CountedRound(round=number, kind=form.kind, attempt=attempt, failure=error.code)
            done = replace(done, seconds=time.monotonic() - started)
            self.journal.counts.close(done)
            self.observer.counted(done)

    def _commit(self, number: int, state: StrategyState, collected: Collected, seconds: float) -> None:
        failpoints.reach("coordinator_before_commit")
        checkpoint, sha256 = self.checkpoints.save(number, state)
        failpoints.reach("coordinator_between_checkpoint_and_journal")
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
        failpoints.reach("coordinator_after_commit")
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

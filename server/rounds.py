# SPDX-License-Identifier: Apache-2.0
"""The round loop: count, train, agree, mask, confirm, unmask, apply, commit, until the plan's rounds are done.

    cohort = sites of this round          journal: open
    count                                 where the plan asks: noised counts of patients, of all sites   (common.counting)
    train                                 every site makes an update of the model, clips, noises, quantises and keeps it
    agree, mask, confirm, unmask          the cohort's sum, and nothing of any one site       (server.fsa1, step by step)
    state = strategy.apply(state, mean)
    commit                                checkpoint on disk, then the journal's row

A site that refuses, fails or misses the deadline is written down and the round goes on with the others. Below a threshold nothing is
aggregated: the round is tried again once, and then the run stops by name with everything committed so far intact; a deployed coordinator
waits instead, and tries again (`server.persistence`).

Between rounds the roll is called (`server.membership.roll`) and the roster read again, so that sites come and go while the run goes on; and
there the operator's pause holds (`server.gate`).

A plan may ask for a statistic before the first round, and have models judged: the one that a round starts from, and after the last round
the final one. That is worth less than the training: where it fails, for want of sites or of budget, the reason is written down and the
round goes on. What was judged may say that further rounds are in vain, or that an earlier model is the one to give out
(`common.counting.choice`).

After a crash the same loop starts at the first round that is not committed, with the same session, round, attempt and step: sites answer
the same bytes again, so that nothing is trained, or paid for, twice.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import numpy as np

from common import failpoints
from common.counting import Form, choice, forms_of
from common.errors import CheckpointCorrupt, CohortTooSmall, FedwardError, JournalLost
from common.plan import Plan, at_round
from common.update import Weights
from server.aggregation import FAILED, SILENT, Aggregation, Collected, Observer, reasons
from server.checkpoint import KEPT, Checkpoint, CheckpointFolder
from server.cohort import draw
from server.counts import CountedRound, worths
from server.gate import Gate, Open
from server.journal import CommittedRound, Journal
from server.membership.roll import FIRST_S, LATER_S, Roll
from server.persistence import Persistence
from server.strategies import StrategyState, strategy_of
from server.transport.talks import FAILURES

T = TypeVar("T")
GREETING: Final = "GREETING"
"""The phase under which observers hear of a site whose mailbox claims a name that is not its own."""
_GATHER_S: Final = 30.0
"""How long a deployed coordinator that has just started waits for the rest of its sites, once the smallest cohort is there."""
_TELL_S: Final = 30.0
_CALL_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """Everything that a run needs; `run` is the run. `groups` gives those of the newest roster; a round asks all sites or draws some.

    Without `persistence` it gives up by name when too few sites are there, or a round fails twice.
    """

    roll: Roll
    plan: Plan
    initial: Weights
    groups: Callable[[], tuple[frozenset[str], ...]]
    journal: Journal
    checkpoints: CheckpointFolder
    observer: Observer
    aggregation: Aggregation
    gate: Gate = field(default_factory=Open)
    persistence: Persistence | None = None

    def run(self) -> Weights:
        """Train the plan's rounds, from the last committed one on. Returns the model that the plan says to give out.

        Raises: RoundError, ProtocolError or UpdateError by name, when a round fails twice and waiting would not mend it; RunStopped;
        CheckpointCorrupt, when no checkpoint is whole; JournalLost.
        """
        checkpoint = self._restore()
        while checkpoint.round < self.plan.training.rounds and not self._is_enough(checkpoint.round):
            checkpoint = self._insist(checkpoint.round + 1, lambda now=checkpoint: self._round(now))  # type: ignore[misc] # bound here
        after = checkpoint.round + 1
        if checkpoint.round == self.plan.training.rounds and self._due(after):
            self._insist(after, lambda: self._count(after, self._weights(checkpoint.state)))
        self.aggregation.settle(after)
        return self._chosen(checkpoint)

    def _restore(self) -> Checkpoint:
        if self.journal.is_new and self.checkpoints.holds_any():
            raise JournalLost(
                "there are checkpoints and no journal: which rounds they are of, and what sites have been asked since, is not known.",
                fix="Restore the journal from a backup. To begin anew, at the sites' expense, move the run folder away.",
            )
        for counted in self.journal.counts.closed():
            self.observer.counted(counted)
        committed = self.journal.committed()
        for done in reversed(committed[-KEPT:]):
            try:
                checkpoint = self.checkpoints.load(done)
                self.observer.round_committed(done, self._weights(checkpoint.state))
                return checkpoint
            except CheckpointCorrupt as error:
                if done is committed[-KEPT:][0]:
                    raise  # of the rounds before it at most the best has a file, and nothing leads from there to here
                self.observer.waiting(done.round, f"{error.code}: {error}")
                self.journal.roll_back(done.round)
        return Checkpoint(round=0, state=strategy_of(self.plan.training).init(self.initial.values))

    def _insist(self, number: int, go: Callable[[], T]) -> T:
        """Do it once the gate is open and enough sites are there; where persistence says so, until it succeeds."""
        failures = 0
        while True:
            try:
                if not self.journal.open_cohort(number):  # a round that has begun is finished, pause or not
                    self.gate.wait_until_open(lambda why: self.observer.waiting(number, why))
                self._gather(number)
                return go()
            except FedwardError as error:
                if self.persistence is None or not self.persistence.may_mend(error, failures):
                    raise
                failures += 1
                pause_s = self.persistence.pause_s(failures)
                self.observer.waiting(number, f"{error.message} It is tried again in {pause_s:.0f} s.")
            self.gate.sleep(pause_s)

    # Who is there.

    def _gather(self, number: int) -> None:
        """Call the roll; at the start, or with persistence, until the minimum cohort is there."""
        began, told = time.monotonic(), time.monotonic()
        first = not self.roll.sites
        while True:
            self.roll.call(patience_s=FIRST_S if first else LATER_S)
            for impostor in self.roll.impostors:
                self.observer.site_heard(number, GREETING, impostor.site, code=impostor.why, bytes_up=0)
            enrolled = {site for group in self.groups() for site in group}
            present = len(enrolled.intersection(self.roll.sites))
            waited = time.monotonic() - began
            if self.persistence is None:
                if not first or present >= self.plan.aggregation.minimum_cohort:
                    return
                if waited > max(FIRST_S, self.plan.aggregation.deadline_s) or self.roll.has_refused_only:
                    raise self._too_few(present)
            elif present >= self.plan.aggregation.minimum_cohort and (present == len(enrolled) or not first or waited >= _GATHER_S):
                return
            elif time.monotonic() - told >= _TELL_S:
                told = time.monotonic()
                self.observer.waiting(number, self._too_few(present).message)
            self.gate.sleep(min(_CALL_S, max(1.0, waited / 10)))

    def _cohort(self, number: int) -> list[str]:
        """Who is asked: of a round that is open already, the same, if they are all there."""
        before = self.journal.open_cohort(number)
        if self.plan.aggregation.sites_per_round is not None and before and all(site in self.roll.sites for site in before):
            return before
        return draw(self.roll.sites, self.groups(), self.plan, number)

    def _round(self, before: Checkpoint) -> Checkpoint:
        """From one model to the next; to the same one, if judging it has shown that there is no need for another."""
        started, number, weights = time.monotonic(), before.round + 1, self._weights(before.state)
        self._count(number, weights)
        if self._is_enough(before.round):
            return before
        cohort = self._cohort(number)
        self.journal.open_round(number, model=weights.digest.hex(), cohort=cohort)
        self.observer.round_opened(number, cohort)
        try:
            collected = self.aggregation.collect(number, weights, cohort)
        except FedwardError:
            self.roll.doubt(cohort)
            raise
        gone = [absence.site for absence in (*collected.missing, *collected.fallen) if absence.why in (SILENT, FAILED)]
        self.roll.doubt(gone)
        state = strategy_of(at_round(self.plan.training, number)).apply(before.state, collected.aggregate)
        self._commit(number, state, collected, time.monotonic() - started)
        return Checkpoint(round=number, state=state)

    def _due(self, number: int) -> list[Form]:
        """What a round has still to count before it trains; statistics come before evaluations."""
        closed = {(done.round, done.kind) for done in self.journal.counts.closed()}
        return [form for form in forms_of(self.plan) if number in form.rounds and (number, form.kind) not in closed]

    def _count(self, number: int, weights: Weights) -> None:
        """Ask all sites what is due, and write down what came of it."""
        for form in self._due(number):
            started = time.monotonic()
            self.journal.counts.open(number, form.kind)
            try:
                done = self.aggregation.count(number, form, weights, tuple(self.roll.sites))
            except FAILURES as error:
                attempt = self.journal.counts.attempt(number, form.kind)
                done = CountedRound(round=number, kind=form.kind, attempt=attempt, failure=error.code)
            done = replace(done, seconds=time.monotonic() - started)
            self.journal.counts.close(done)
            self.observer.counted(done)

    # What was judged.

    def _worths(self, last: int) -> dict[int, float]:
        """Of models up to that of round `last`. A judgement of one that was lost since counts again when it is there again."""
        found = worths(self.plan, self.journal.counts.closed()) if self.plan.evaluation else {}
        return {number: worth for number, worth in found.items() if number <= last}

    def _is_enough(self, last: int) -> bool:
        return choice.is_enough(self.plan, self._worths(last))

    def _best(self, last: int) -> list[CommittedRound]:
        """The round whose model is the best so far, where that is the one to keep."""
        number = choice.kept(self.plan, self._worths(last), last=0)
        return [done for done in self.journal.committed() if done.round == number]

    def _chosen(self, last: Checkpoint) -> Weights:
        """The model to give out; one whose file the operator has removed is passed over. Raises: CheckpointCorrupt."""
        given, committed = last, {done.round: done for done in self.journal.committed()}
        wanted = choice.ranked(self._worths(last.round)) if self._best(last.round) else []
        for number in wanted:
            if number == last.round:
                break
            if self.checkpoints.has(committed[number]):
                given = self._best_of_all(committed[number])
                break
        self.observer.chosen(given.round, trained=last.round)
        return self._weights(given.state)

    def _best_of_all(self, done: CommittedRound) -> Checkpoint:
        try:
            return self.checkpoints.load(done)
        except CheckpointCorrupt as error:
            raise CheckpointCorrupt(
                f"{error.message} It holds the model that was judged best.",
                fix="Restore the file from a backup and start again; or remove it, and the best of the models that are there is given out.",
            ) from error

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
        self.checkpoints.prune([*self.journal.committed(last=KEPT), *self._best(number)])
        self.observer.round_committed(done, self._weights(state))

    def _weights(self, state: StrategyState) -> Weights:
        return Weights(layout=self.initial.layout, values=state.weights)

    def _too_few(self, present: int) -> CohortTooSmall:
        return CohortTooSmall(
            f"{present} enrolled sites are connected, minimum_cohort is {self.plan.aggregation.minimum_cohort}"
            f" ({reasons(self.roll.refusals)}).",
            fix="Mend those sites and continue with --resume; every committed round is kept.",
        )

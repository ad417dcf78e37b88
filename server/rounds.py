# SPDX-License-Identifier: Apache-2.0
"""The round loop: train, apply, commit, until the plan's rounds are done.

    cohort = sites of this round          journal: open
    for each site: ask to train           it answers a ReleasedDelta, or refuses, or stays silent
    aggregate = mean of the deltas        at least minimum_cohort of them, summed in the order of site names
    state = strategy.apply(state, aggregate)
    commit                                checkpoint on disk, then the journal's row

A site that refuses, fails or misses the deadline is written down and the round goes on with the others. Below the minimum cohort nothing is
aggregated: the round is asked again once, as a new attempt, and then the run stops by name with everything committed so far intact.

After a crash the same loop starts at the first round that is not committed, with the same session, round and attempt: sites that had
already trained answer the same bytes again, so that nothing is trained, or paid for, twice.
"""

import hashlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp import Grid

from common import wire
from common.errors import CheckpointCorrupt, CohortTooSmall, FedwardError
from common.plan import Plan, digest_of
from common.update import AggregateDelta, Layout, ReleasedDelta, Weights
from server.checkpoint import KEPT, Checkpoint, CheckpointFolder
from server.exchange import ask
from server.journal import CommittedRound, Journal, Missing
from server.mean import RunningMean
from server.strategies import StrategyState, strategy_of

_HELLO_S = 60.0
_ATTEMPTS = 2
SILENT = "E_SILENT"
FAILED = "E_SITE_FAILED"


class Observer(Protocol):
    """Whoever wants to see the run: progress on a terminal, a hold-out evaluation in a simulation. Never asked for an opinion."""

    def round_opened(self, number: int, cohort: list[str]) -> None: ...

    def site_answered(self, number: int, site: str, *, refused: bool) -> None: ...

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        """Called again for the last committed round when a run is resumed: the crash may have come before the first call."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator:
    """Everything that a run needs; `run` is the run."""

    grid: Grid
    plan: Plan
    initial: Weights
    journal: Journal
    checkpoints: CheckpointFolder
    observer: Observer

    def run(self) -> Weights:
        """Train the plan's rounds, from the last committed one on. Returns the final model.

        Raises: CohortTooSmall, when a round fails twice; CheckpointCorrupt, when no kept checkpoint is whole.
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

    def _names(self, nodes: list[int], hello: RecordDict) -> tuple[dict[str, int], list[Missing]]:
        sites: dict[str, int] = {}
        refusals = []
        for answer in ask(self.grid, wire.HELLO, dict.fromkeys(nodes, hello), group="hello", deadline_s=_HELLO_S):
            if answer.content is None:
                refusals.append(Missing(site=f"node {answer.node}", why=FAILED))
                continue
            reply = wire.decode_hello_reply(answer.content)
            if isinstance(reply, wire.Refusal):
                refusals.append(Missing(site=reply.site, why=reply.code))
            else:
                sites[reply.site] = answer.node
        return dict(sorted(sites.items())), refusals

    def _round(self, number: int, state: StrategyState, sites: Mapping[str, int]) -> StrategyState:
        started = time.monotonic()
        weights = self._weights(state)
        cohort = self._cohort(number, sites)
        attempt = self.journal.open_round(number, model=weights.digest.hex(), cohort=cohort)
        self.observer.round_opened(number, cohort)
        for _ in range(_ATTEMPTS):
            step = wire.Step(session=self.journal.session, round=number, attempt=attempt, plan=digest_of(self.plan))
            mean, missing = self._train(step, weights, {site: sites[site] for site in cohort})
            present = len(cohort) - len(missing)
            if present >= self.plan.aggregation.minimum_cohort:
                break
            self.journal.reopen(number)
            attempt += 1
        else:
            raise self._too_few(f"in round {number}", present, missing)
        aggregate = mean.finish()
        state = strategy_of(self.plan.training).apply(state, aggregate)
        absent = {site.site for site in missing}
        self._commit(step, state, aggregate, [site for site in cohort if site not in absent], missing, time.monotonic() - started)
        return state

    def _train(self, step: wire.Step, weights: Weights, nodes: Mapping[str, int]) -> tuple[RunningMean, list[Missing]]:
        """One question to the cohort; the mean of the deltas that came, and who did not answer and why."""
        request = wire.encode_train_request(wire.TrainRequest(step=step, weights=weights))
        names = {node: site for site, node in nodes.items()}
        mean = RunningMean(nodes)
        missing: dict[str, str] = dict.fromkeys(nodes, SILENT)
        questions = dict.fromkeys(nodes.values(), request)
        for answer in ask(self.grid, wire.TRAIN, questions, group=str(step.round), deadline_s=self.plan.aggregation.deadline_s):
            site = names[answer.node]
            verdict = _judge(answer.content, step, site, weights.layout)
            if isinstance(verdict, ReleasedDelta):
                mean.add(site, verdict)
                del missing[site]
            else:
                mean.add(site, None)
                missing[site] = verdict
            self.observer.site_answered(step.round, site, refused=site in missing)
        return mean, [Missing(site=site, why=why) for site, why in sorted(missing.items())]

    def _cohort(self, number: int, sites: Mapping[str, int]) -> list[str]:
        """Who is asked: all, or the plan's number of them, drawn by the plan's seed and the round, so that a resumed run asks the same."""
        wanted = self.plan.aggregation.sites_per_round
        if wanted is None or wanted >= len(sites):
            return list(sites)
        seed = hashlib.sha256(f"cohort {self.plan.training.seed} {number}".encode()).digest()
        return sorted(random.Random(seed).sample(list(sites), wanted))  # noqa: S311 - public choice, not a secret

    def _commit(
        self,
        step: wire.Step,
        state: StrategyState,
        aggregate: AggregateDelta,
        sites: list[str],
        missing: list[Missing],
        seconds: float,
    ) -> None:
        checkpoint, sha256 = self.checkpoints.save(step.round, state)
        done = CommittedRound(
            round=step.round,
            attempt=step.attempt,
            sites=tuple(sites),
            missing=tuple(missing),
            checkpoint=checkpoint,
            sha256=sha256,
            seconds=seconds,
            update_norm=float(np.linalg.norm(aggregate.values)),
        )
        self.journal.commit(done)
        self.checkpoints.prune(self.journal.committed(last=KEPT))
        self.observer.round_committed(done, self._weights(state))

    def _weights(self, state: StrategyState) -> Weights:
        return Weights(layout=self.initial.layout, values=state.weights)

    def _too_few(self, when: str, present: int, missing: list[Missing]) -> CohortTooSmall:
        reasons = ", ".join(f"{absent.site}: {absent.why}" for absent in missing[:10]) or "no other site is connected"
        return CohortTooSmall(
            f"{when} {present} sites answered, minimum_cohort is {self.plan.aggregation.minimum_cohort} ({reasons}).",
            fix="Mend those sites and continue with --resume; every committed round is kept.",
        )


def _judge(content: RecordDict | None, step: wire.Step, site: str, layout: Layout) -> ReleasedDelta | str:
    """A usable delta, or the code of why there is none."""
    if content is None:
        return FAILED
    try:
        reply = wire.decode_train_reply(content, layout)
    except FedwardError as error:
        return error.code
    if isinstance(reply, wire.Refusal):
        return reply.code
    if reply.step != step or reply.site != site:
        return "E_MSG_FORMAT"
    return reply.update

# SPDX-License-Identifier: Apache-2.0
"""Rounds without masks, for simulations: the coordinator sees each site's update.

    plain     float32 deltas, summed in float64 in the order of site names
    ideal     the quantised integers that secure aggregation would mask, summed in the same ring: the same bits, without key agreement

A deployed site answers neither. A site that refuses, fails or misses the deadline is written down and the round goes on with the others.
Below the minimum cohort nothing is aggregated: the round is asked again once, as a new attempt, and then the run stops by name with
everything committed so far intact. Noised counts (common.counting) are whole numbers either way, and a count that fails stops nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from flwr.app import RecordDict

from common import wire
from common.agreement import grid_of, groups_of
from common.counting import Form
from common.errors import CohortTooSmall, FedwardError
from common.plan import Plan, digest_of
from common.roster import Roster
from common.secagg.terms import Kind, smallest_cohort
from common.update import AggregateDelta, QuantisedDelta, ReleasedDelta, Weights, Words
from server.aggregation import ATTEMPTS, FAILED, SILENT, Collected, Observer, absent, reasons
from server.combine import GroupSum, combine, total
from server.counts import CountedRound
from server.journal import Journal
from server.mean import RunningMean
from server.membership.roll import Roll

Update = ReleasedDelta | QuantisedDelta
Reply = wire.TrainReply | wire.IdealReply | wire.Refusal


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Tally(Protocol[T_co]):
    """An aggregate that grows."""

    def add(self, site: str, update: Update | None) -> None: ...

    def finish(self) -> T_co: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Way(Generic[T]):
    """What the ways differ in: the question, how an answer is read, how answers are added up."""

    question: str
    read: Callable[[RecordDict], Reply]
    tally: Callable[[Mapping[str, int]], Tally[T]]


def plain(weights: Weights) -> Way[AggregateDelta]:
    """Floats."""
    return Way(question=wire.TRAIN, read=lambda content: wire.decode_train_reply(content, weights.layout), tally=_Floats)


def ideal(plan: Plan, roster: Roster, weights: Weights) -> Way[AggregateDelta]:
    """Ring words, group by group as secure aggregation has them."""
    grid, size = grid_of(plan, roster), weights.layout.size
    return Way(
        question=wire.TRAIN_IDEAL,
        read=lambda content: wire.decode_ideal_reply(content, size, grid.word),
        tally=lambda _: _Integers(plan, roster),
    )


def counts(form: Form) -> Way[tuple[int, ...]]:
    """Noised whole numbers."""
    return Way(
        question=wire.TRAIN_IDEAL,
        read=lambda content: wire.decode_ideal_reply(content, len(form.cells), form.grid.word),
        tally=lambda _: _Counts(form),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmaskedAggregation:
    """`server.aggregation.Aggregation`, without any protection. `way` is made for each round's model."""

    roll: Roll
    plan: Plan
    journal: Journal
    observer: Observer
    way: Callable[[Weights], Way[AggregateDelta]]

    def collect(self, number: int, weights: Weights, asked: Sequence[str]) -> Collected:
        """Raises: CohortTooSmall, when the round fails twice."""
        nodes = self._nodes(asked)
        way, needed = self.way(weights), self.plan.aggregation.minimum_cohort
        missing: dict[str, str] = {}
        for _ in range(ATTEMPTS):
            step = self._step(number, Kind.UPDATE, self.journal.attempt(number))
            tally, missing = self._ask(way, step, weights, nodes)
            if len(nodes) - len(missing) >= needed:
                sites = tuple(site for site in nodes if site not in missing)
                return Collected(aggregate=tally.finish(), attempt=step.attempt, sites=sites, missing=absent(missing))
            self.journal.reopen(number)
        raise CohortTooSmall(
            f"in round {number} {len(nodes) - len(missing)} sites answered, minimum_cohort is {needed} ({reasons(absent(missing))}).",
            fix="Mend those sites and continue with --resume; every committed round is kept.",
        )

    def count(self, number: int, form: Form, weights: Weights, asked: Sequence[str]) -> CountedRound:
        """The whole numbers that secure aggregation would add; if too few answer twice, the reason why there are none."""
        nodes = self._nodes(asked)
        needed = smallest_cohort(self.plan.aggregation.minimum_cohort, self.plan.noise_quorum)
        missing: dict[str, str] = {}
        for _ in range(ATTEMPTS):
            step = self._step(number, form.kind, self.journal.counts.attempt(number, form.kind))
            tally, missing = self._ask(counts(form), step, weights, nodes)
            if len(nodes) - len(missing) >= needed:
                sites, steps = tuple(site for site in nodes if site not in missing), tally.finish()
                return CountedRound(round=number, kind=form.kind, attempt=step.attempt, sites=sites, missing=absent(missing), steps=steps)
            self.journal.counts.reopen(number, form.kind)
        return CountedRound(round=number, kind=form.kind, attempt=step.attempt, missing=absent(missing), failure=CohortTooSmall.code)

    def _nodes(self, asked: Sequence[str]) -> dict[str, int]:
        return {site: self.roll.sites[site] for site in asked}

    def _step(self, number: int, kind: Kind, attempt: int) -> wire.Step:
        return wire.Step(session=self.journal.session, round=number, attempt=attempt, plan=digest_of(self.plan), kind=kind.name)

    def settle(self, number: int) -> None:
        """Nothing was kept."""

    def _ask(self, way: Way[T], step: wire.Step, weights: Weights, nodes: Mapping[str, int]) -> tuple[Tally[T], dict[str, str]]:
        """One question to the cohort; what came, added up, and who did not answer and why."""
        request = wire.encode_train_request(wire.TrainRequest(step=step, weights=weights))
        names = {node: site for site, node in nodes.items()}
        tally = way.tally(nodes)
        missing: dict[str, str] = dict.fromkeys(nodes, SILENT)
        questions = dict.fromkeys(nodes.values(), request)
        deadline_s = self.plan.aggregation.deadline_s
        for answer in self.roll.line.ask(way.question, questions, group=str(step.round), deadline_s=deadline_s):
            site = names[answer.node]
            verdict = FAILED if answer.content is None else _judge(way, answer.content, step, site)
            if isinstance(verdict, str):
                tally.add(site, None)
                missing[site] = verdict
            else:
                tally.add(site, verdict)
                del missing[site]
            self.observer.site_answered(step.round, site, refused=site in missing)
        return tally, missing


class _Floats(RunningMean):
    """A running mean that takes floats alone."""

    def add(self, site: str, update: Update | None) -> None:
        assert not isinstance(update, QuantisedDelta)
        super().add(site, update)


class _Integers:
    """A sum in the ring for each group: the order of answers does not matter."""

    def __init__(self, plan: Plan, roster: Roster) -> None:
        self._plan, self._grid = plan, grid_of(plan, roster)
        self._groups = groups_of(plan, roster)
        self._sums: dict[int, Words] = {}
        self._weights: dict[int, int] = {}
        self._sites: dict[int, list[str]] = {}

    def add(self, site: str, update: Update | None) -> None:
        if update is None:
            return
        assert isinstance(update, QuantisedDelta)
        group = next(number for number, members in enumerate(self._groups) if site in members)
        if group not in self._sums:
            self._sums[group] = np.zeros(update.words.size, dtype=self._grid.word)
        np.add(self._sums[group], update.words, out=self._sums[group])
        self._weights[group] = self._weights.get(group, 0) + update.weight
        self._sites.setdefault(group, []).append(site)

    def finish(self) -> AggregateDelta:
        sums = [
            GroupSum(words=self._sums[group], total_weight=self._weights[group], sites=tuple(sorted(self._sites[group])))
            for group in sorted(self._sums)
        ]
        return combine(sums, self._grid, self._plan.aggregation)


class _Counts:
    """One sum over all groups."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._words: list[Words] = []

    def add(self, site: str, update: Update | None) -> None:
        del site
        if update is not None:
            assert isinstance(update, QuantisedDelta)
            self._words.append(update.words)

    def finish(self) -> tuple[int, ...]:
        return total(self._words, self._form.grid)


def _judge(way: Way[T], content: RecordDict, step: wire.Step, site: str) -> Update | str:
    """A usable update, or the code of why there is none."""
    try:
        reply = way.read(content)
    except FedwardError as error:
        return error.code
    if isinstance(reply, wire.Refusal):
        return reply.code
    if reply.step != step or reply.site != site:
        return "E_MSG_FORMAT"
    return reply.update

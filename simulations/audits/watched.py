# SPDX-License-Identifier: Apache-2.0
"""A whole federation under an auditor's eyes: the plan's own network, trained by deployed sites and summed by the deployed coordinator.

Sites reserve on their ledgers, open their data, train, and answer secure aggregation; the auditor has what the coordinator has: the weights
of each round and what it opens. With shared noise that is the sum over a noise quorum, the shares of the plan's colluders included. With
local noise each site's release is promised to be private by itself, so they are looked at one by one, as a coordinator without masks would.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from common.counting import Form
from common.errors import PlanConflict
from common.plan import Plan, at_round
from common.privacy import round_charge
from common.update import AggregateDelta, ReleasedDelta, Weights
from server.aggregation import Aggregation, Collected, Silent
from server.counts import CountedRound
from server.unmasked import Tally, UnmaskedAggregation, Update, Way
from simulations.audits.known import People, Values
from simulations.audits.planted import Cast
from simulations.engine.nursery import Nursery
from simulations.federation import federation_on
from simulations.stage import Stage

KNOWN: Final = 700
"""Of so many patients gradients are worked out for each sum: of all canaries, and of others who stand for all others."""
FEWEST_OTHERS: Final = 16
Sites = tuple[str, ...]
Progress = Callable[[int, int], None]


def check(plan: Plan) -> None:
    """Raises: PlanConflict, for a plan whose updates are no sums of gradients."""
    if plan.training.strategy != "fedsgd" and plan.training.optimiser != "sgd":
        raise PlanConflict(
            f"plan '{plan.name}': its sites step by Adam, so what they send is no sum of gradients in which a canary's could be found.",
            fix="Audit it with --kind gradient, which watches the sums themselves.",
        )


def watch(stage: Stage, cast: Mapping[str, Cast], *, slices: int, workers: int, nursery: Nursery, progress: Progress) -> Values:
    """Train the stage's plan once, all rounds, and score every canary, (m,). Raises: RoundError, StorageError, EngineError."""
    eye = Eye(stage.scenario.plan, cast, records=slices if stage.scenario.plan.privacy.unit == "record" else 1, progress=progress)
    replace(federation_on(stage), tap=eye.tap).train(Silent(), engine="local", workers=workers, nursery=nursery)
    return eye.scores


class Eye:
    """Looks at each round as it is summed; `scores` (m,) grow. `records`: as how many units of the plan a canary is drawn."""

    def __init__(self, plan: Plan, cast: Mapping[str, Cast], *, records: int, progress: Progress) -> None:
        self._plan, self._cast, self._records, self._progress = plan, cast, records, progress
        self.scores: Values = np.zeros(sum(len(each.numbers) for each in cast.values()))

    def tap(self, aggregation: Aggregation) -> Aggregation:
        """The same aggregation, seen."""
        heard: dict[Sites, Values] = {}
        if isinstance(aggregation, UnmaskedAggregation) and not self._plan.shares_noise:
            return _Watching(replace(aggregation, way=lambda weights: _overheard(aggregation.way(weights), heard)), self.look, heard)
        return _Watching(aggregation, self.look, None)

    def look(self, number: int, weights: Weights, seen: Mapping[Sites, Values]) -> None:
        """A round's weights, and what was opened of it: deltas, each a sum over sites."""
        for sites, total in seen.items():
            casts = [self._cast[site] for site in sites]
            others = max(FEWEST_OTHERS, (KNOWN - sum(len(cast.numbers) for cast in casts)) // len(sites))
            each = [People.at(cast, self._plan, weights, others=others, records=self._records) for cast in casts]
            People.of(each).score_into(self.scores, self._in_clip_norms(number, total), noise=self._noise(sites))
        self._progress(number, self._plan.training.rounds)

    def _in_clip_norms(self, number: int, total: Values) -> Values:
        """From a sum of deltas to one of clipped gradients and noise."""
        training, clip_norm = self._plan.training, self._plan.privacy.clip_norm
        assert clip_norm is not None
        step = 1.0 if training.strategy == "fedsgd" else at_round(training, number).learning_rate
        return total * (-training.batch / (step * clip_norm))

    def _noise(self, sites: Sites) -> float:
        """The variance of a sum's noise on each value, in clip norms."""
        counts = [self._cast[site].units(self._plan, records=self._records) for site in sites]
        events = [round_charge(self._plan, count).own_share for count in counts]
        return sum(event.steps * event.noise_multiplier**2 for event in events)


@dataclass(frozen=True, slots=True, eq=False)
class _Watching:
    """An aggregation that shows what it gives; or what was `heard`, where sites are heard one by one."""

    inner: Aggregation
    look: Callable[[int, Weights, Mapping[Sites, Values]], None]
    heard: Mapping[Sites, Values] | None

    def collect(self, number: int, weights: Weights, asked: Sequence[str]) -> Collected:
        collected = self.inner.collect(number, weights, asked)
        total = collected.aggregate.values.astype(np.float64) * collected.aggregate.num_sites
        self.look(number, weights, {collected.sites: total} if self.heard is None else self.heard)
        return collected

    def count(self, number: int, form: Form, weights: Weights, asked: Sequence[str]) -> CountedRound:
        return self.inner.count(number, form, weights, asked)

    def settle(self, number: int) -> None:
        self.inner.settle(number)


def _overheard(way: Way[AggregateDelta], heard: dict[Sites, Values]) -> Way[AggregateDelta]:
    """The same way to a mean, of which the last round's parts can be read afterwards."""
    heard.clear()
    return replace(way, tally=lambda sites: _Overheard(way.tally(sites), heard))


@dataclass(frozen=True, slots=True)
class _Overheard:
    """A sum that remembers its parts."""

    inner: Tally[AggregateDelta]
    heard: dict[Sites, Values]

    def add(self, site: str, update: Update | None) -> None:
        if isinstance(update, ReleasedDelta):
            self.heard[(site,)] = update.values.astype(np.float64)
        self.inner.add(site, update)

    def finish(self) -> AggregateDelta:
        return self.inner.finish()

# SPDX-License-Identifier: Apache-2.0
"""What has been spent, for people: by plan, over all plans, and how it grew.

Two figures for each sum. The Rényi one decided; the other, by privacy loss distributions, is smaller and holds for events that were fixed
beforehand, as one plan's are when all its rounds are over (`PlanRow.is_whole`). Both are of everything that was charged, whether its
release came about or not.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from client.ledger.chain import Chain
from common.privacy.entries import Caps, Entry, Excluded, Opened, Overridden, PlanSeen, Restored, Snapshotted, Spent, Voided
from common.privacy.tally import Tally, View

_RELEASED: Final = {"RESERVE": "training", "EVAL": "an evaluation", "STAT": "a statistic"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """Epsilon as it decided (Rényi), and by privacy loss distributions."""

    gate: float
    pld: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One plan: its own words, how often it was charged for what, and what that comes to at its delta."""

    plan: str
    name: str
    purpose: str
    unit: str
    noise: str
    promised: float
    delta: float
    rounds: int
    releases: dict[str, int]
    first: str
    last: str
    outside: Sum
    own_share: Sum

    @property
    def is_whole(self) -> bool:
        """Whether all its rounds were charged. If not, how many were may depend on what they released, and only the Rényi figure counts."""
        return self.releases.get("RESERVE", 0) >= self.rounds


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalRow:
    """All plans that promise to the same unit, at the caps' delta."""

    unit: str
    outside: Sum
    own_share: Sum


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A line worth drawing or telling: when, what, and the sums over all plans of its unit, if it was charged for something."""

    seq: int
    t_utc: str
    kind: str
    told: str
    unit: str = ""
    outside: float | None = None
    own_share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A whole ledger on a page. `unprotected`: plans that promise nothing; `caps_history`: since when which caps."""

    site: str
    namespace: str
    key: str
    opened: str
    last: str
    lines: int
    caps: Caps
    plans: tuple[PlanRow, ...]
    totals: tuple[TotalRow, ...]
    excluded: int
    unprotected: tuple[str, ...]
    caps_history: tuple[tuple[str, Caps], ...]
    moments: tuple[Moment, ...]


def summary_of(chain: Chain, entries: Sequence[Entry]) -> Summary:
    """Takes a second or so for each plan and unit."""
    assert chain.opened is not None
    return Summary(
        site=chain.opened.site,
        namespace=chain.namespace,
        key=chain.key,
        opened=entries[0].t_utc,
        last=entries[-1].t_utc,
        lines=len(chain),
        caps=chain.caps,
        plans=tuple(_plan_row(chain, entries, plan) for plan in chain.tally.plans()),
        totals=tuple(_total_row(chain, unit) for unit in chain.tally.units()),
        excluded=len(chain.excluded),
        unprotected=tuple(seen.name for seen in chain.plans.values() if seen.unit == "none"),
        caps_history=tuple((entry.t_utc, entry.fact.caps) for entry in entries if isinstance(entry.fact, Opened | Overridden)),
        moments=tuple(_moments(entries)),
    )


def sum_of(tally: Tally, view: View, delta: float) -> Sum:
    """Both figures of one sum."""
    gate = tally.epsilon(view, delta)
    return Sum(gate=gate, pld=gate if math.isinf(gate) else min(gate, tally.epsilon_pld(view, delta)))


def _plan_row(chain: Chain, entries: Sequence[Entry], plan: str) -> PlanRow:
    charged = [(entry, entry.fact) for entry in entries if isinstance(entry.fact, Spent) and entry.fact.plan == plan]
    seen = chain.plans.get(plan)
    unit = seen.unit if seen else charged[-1][1].unit if charged else next(item.unit for item in chain.tally.items() if item.plan == plan)
    delta = seen.delta if seen else charged[-1][1].after.delta if charged else chain.caps.delta
    return PlanRow(
        plan=plan,
        name=seen.name if seen else f"plan {plan[:12]}",
        purpose=seen.purpose if seen else "",
        unit=unit,
        noise=seen.noise if seen else "",
        promised=seen.epsilon if seen else math.inf,
        delta=delta,
        rounds=seen.rounds if seen else 0,
        releases=dict(Counter(fact.kind for _, fact in charged)),
        first=charged[0][0].t_utc if charged else "",
        last=charged[-1][0].t_utc if charged else "",
        outside=sum_of(chain.tally, View(unit=unit, plan=plan), delta),
        own_share=sum_of(chain.tally, View(unit=unit, plan=plan, own_share=True), delta),
    )


def _total_row(chain: Chain, unit: str) -> TotalRow:
    outside, own = (sum_of(chain.tally, View(unit=unit, own_share=own), chain.caps.delta) for own in (False, True))
    return TotalRow(unit=unit, outside=outside, own_share=own)


def _moments(entries: Sequence[Entry]) -> list[Moment]:
    found = []
    for entry in entries:
        moment = Moment(seq=entry.seq, t_utc=entry.t_utc, kind=entry.fact.kind, told=told(entry.fact))
        if isinstance(entry.fact, Spent):
            after = entry.fact.after
            moment = replace(moment, unit=entry.fact.unit, outside=after.outside_total, own_share=after.own_share_total)
        if moment.told:
            found.append(moment)
    return found


def told(fact: object) -> str:
    """One line of the ledger in words; empty for what the tables say already."""
    match fact:
        case Spent():
            return f"{_RELEASED[fact.kind]}, round {fact.round}"
        case PlanSeen() if fact.unit == "none":
            return f"plan '{fact.name}' was followed, which promises no privacy: {fact.purpose}"
        case PlanSeen():
            return f"plan '{fact.name}' was followed for the first time: {fact.purpose}"
        case Snapshotted():
            size = f"about {fact.public_patients} patients, {fact.public_records} images for training"
            return f"data set '{fact.dataset}' was approved: {size}"
        case Excluded():
            return "a patient withdrew; out from the next snapshot on"
        case Overridden():
            return f"caps were changed: {caps_in_words(fact.caps)}. Reason given: {fact.reason}"
        case Voided():
            return f"remark on line {fact.entry + 1}: {fact.reason}"
        case Restored():
            return f"an older copy was put back, what was lost was charged again. Reason given: {fact.reason}"
    return ""


def caps_in_words(caps: Caps) -> str:
    return (
        f"{caps.eps_plan:g} in a plan, {caps.eps_total:g} in all; own share {caps.own_share_plan:g} and {caps.own_share_total:g}; "
        f"delta {caps.delta:g}"
    )

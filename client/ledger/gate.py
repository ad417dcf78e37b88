# SPDX-License-Identifier: Apache-2.0
"""Whether one more charge fits: asked of the whole ledger, before a single image is opened.

Rényi sums decide, because a hospital chooses its next plan in the light of the last one's outcome and they stay valid then (Feldman and
Zrnic 2020, https://arxiv.org/abs/2008.11193); tighter ones are for showing. Each cap is a bound on one sum: of the plan or of all plans,
as seen from outside or by more colluding sites than the plan assumes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from common.errors import BudgetExceeded
from common.plan import Plan
from common.privacy.accountant import epsilon
from common.privacy.counts import allowances
from common.privacy.entries import After, Caps, Tallied
from common.privacy.events import Charge, Event
from common.privacy.tally import Tally, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """One bound. `whose` reads as a sentence with the number: "the plan allows", "this site's policy allows"."""

    whose: str
    whole: bool
    own_share: bool
    epsilon: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All bounds on a plan's next charge; sums of the plan at `delta`, of all plans at `delta_total`.

    `allowances`: how often a plan may make the charges of its evaluations and its statistic, which have their own part of its epsilon.
    """

    plan: str
    unit: Literal["record", "patient"]
    delta: float
    delta_total: float
    caps: tuple[Cap, ...]
    allowances: Mapping[Charge, int] = field(default_factory=dict)


def limits_of(plan: Plan, digest: str, caps: Caps) -> Limits:
    """The plan's own promise, and the site's."""
    privacy = plan.privacy
    assert privacy.unit != "none"
    assert privacy.epsilon is not None
    assert privacy.delta is not None
    site = "this site's policy allows"
    return Limits(
        plan=digest,
        unit=privacy.unit,
        delta=privacy.delta,
        delta_total=caps.delta,
        caps=(
            Cap(whose="the plan allows", whole=False, own_share=False, epsilon=privacy.epsilon),
            Cap(whose=site, whole=False, own_share=False, epsilon=caps.eps_plan),
            Cap(whose=site, whole=True, own_share=False, epsilon=caps.eps_total),
            Cap(whose=site, whole=False, own_share=True, epsilon=caps.own_share_plan),
            Cap(whose=site, whole=True, own_share=True, epsilon=caps.own_share_total),
        ),
        allowances=allowances(plan),
    )


def sums(tally: Tally, limits: Limits, *, plus: Charge | None = None) -> After:
    """What the plan, and all plans, have come to; with one more charge, if there is one."""

    known: dict[tuple[tuple[Event, ...], float], float] = {}

    def of(plan: str | None, delta: float, *, own_share: bool) -> float:
        events = tuple(tally.events(View(unit=limits.unit, plan=plan, own_share=own_share), plus=plus))
        if (events, delta) not in known:  # with local noise both views are one, with one plan the plan is all
            known[events, delta] = epsilon(events, delta)
        return known[events, delta]

    return After(
        delta=limits.delta,
        outside=of(limits.plan, limits.delta, own_share=False),
        own_share=of(limits.plan, limits.delta, own_share=True),
        delta_total=limits.delta_total,
        outside_total=of(None, limits.delta_total, own_share=False),
        own_share_total=of(None, limits.delta_total, own_share=True),
    )


def decide(tally: Tally, charge: Charge, limits: Limits, *, what: str) -> After:
    """The sums after a charge. Raises: BudgetExceeded, with what is spent and what the first broken cap allows."""
    allowed = limits.allowances.get(charge)
    if allowed is not None and tally.times(Tallied(unit=limits.unit, plan=limits.plan, charge=charge, times=1)) >= allowed:
        raise BudgetExceeded(
            f"{what} would count patients once more; the plan does it {allowed} times, its spare ones included, and they are spent.",
            fix="Nothing was opened or counted. Training goes on: it has its own part of the plan's epsilon.",
        )
    after = sums(tally, limits, plus=charge)
    broken = [cap for cap in limits.caps if _of(after, cap) > cap.epsilon]
    if broken:
        raise _refusal(broken, sums(tally, limits), after, limits, what)
    return after


def _refusal(broken: Sequence[Cap], before: After, after: After, limits: Limits, what: str) -> BudgetExceeded:
    cap = broken[0]
    seen = " against more colluding sites than it assumes" if cap.own_share else ""
    scope = f"over all plans (delta {limits.delta_total:g})" if cap.whole else f"in this plan (delta {limits.delta:g})"
    fix = "Nothing was opened or trained. "
    if cap.whose == "the plan allows":
        fix += "The plan's rounds, or its spare_rounds for restarts, are used up."
    else:
        fix += "Raising a cap takes policy.toml and a signed entry: fedward site ledger override --help."
    return BudgetExceeded(
        f"{what} would bring this site to epsilon {_shown(_of(after, cap))} for each {limits.unit} {scope}{seen}; {cap.whose} "
        f"{cap.epsilon:g}, {_shown(_of(before, cap))} is spent.",
        fix=fix,
    )


def _of(after: After, cap: Cap) -> float:
    if cap.whole:
        return after.own_share_total if cap.own_share else after.outside_total
    return after.own_share if cap.own_share else after.outside


def _shown(epsilon: float) -> str:
    return "infinity" if math.isinf(epsilon) else f"{epsilon:.3f}"

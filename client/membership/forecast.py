# SPDX-License-Identifier: Apache-2.0
"""What a plan would cost the patients of this very hospital: computed before anybody says yes, from what is prepared and what was spent.

    prepared data -> training units -> charge of a round -> the whole plan, beside what the ledger holds -> what would be left

The numbers are those that the ledger will be charged with (`common.privacy`), not an estimate. Opens no image and charges nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.account import Account
from client.home import ledger_place, read_site_file
from client.policy import Policy
from common.errors import DataError, EpsilonImpossible, TooFewPatients
from common.plan import Plan, digest_of
from common.privacy import round_charge
from common.privacy.counts import allowances
from common.privacy.entries import Tallied
from common.privacy.tally import Tally, View, tally_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Epsilon for each unit, by the sums that the ledger decides by.

    `plan` and `plan_own_share` at the plan's delta, over all that it may release; `own_share` is what is left if more sites collude than
    it assumes. `spent` and `after` are of all plans ever, at the policy's delta; where the plan was followed before, what it spent then is
    part of both. `rounds`: after how many of its rounds a cap of this site's policy would stop it; None, if none does.
    """

    units: int
    plan: float
    plan_own_share: float
    spent: float
    after: float
    after_own_share: float
    rounds: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Why the cost cannot be said yet."""

    reason: str


def cost_of(home: Path, plan: Plan, allowed: Policy) -> Cost | Unknown:
    """What a private plan would cost here. Raises: LedgerRollback, LedgerTampered, SecretFile."""
    file = read_site_file(home)
    account = Account(home, file)
    try:
        units = account.prepared_units(plan)
        planned = _planned(plan, units)
    except (DataError, EpsilonImpossible, TooFewPatients) as error:
        return Unknown(reason=str(error))
    chain = account.ledger().refresh() if ledger_place(home, file).file.exists() else None
    before = chain.tally if chain else Tally()
    others = tally_of(item for item in before.items() if item.plan != digest_of(plan))
    return _cost(plan, allowed, units, planned, before, others)


def _cost(plan: Plan, allowed: Policy, units: int, planned: Sequence[Tallied], before: Tally, others: Tally) -> Cost:
    delta, total = plan.privacy.delta or 0.0, allowed.budget.delta
    alone, after = tally_of(planned), tally_of((*others.items(), *planned))
    outside, own = View(unit=plan.privacy.unit), View(unit=plan.privacy.unit, own_share=True)
    return Cost(
        units=units,
        plan=alone.epsilon(outside, delta),
        plan_own_share=alone.epsilon(own, delta),
        spent=before.epsilon(outside, total),
        after=after.epsilon(outside, total),
        after_own_share=after.epsilon(own, total),
        rounds=_rounds(plan, allowed, planned, others),
    )


def _planned(plan: Plan, units: int) -> list[Tallied]:
    """Everything that a plan may be charged for, spare rounds included; training first."""
    assert plan.privacy.unit != "none"
    charges = {round_charge(plan, units): plan.training.rounds + plan.privacy.spare_rounds, **allowances(plan)}
    return [Tallied(unit=plan.privacy.unit, plan=digest_of(plan), charge=charge, times=times) for charge, times in charges.items()]


def _rounds(plan: Plan, allowed: Policy, planned: Sequence[Tallied], others: Tally) -> int | None:
    """The most rounds within every cap of the site's, by bisection: sums only grow with rounds."""
    training, *beside = planned

    def fits(rounds: int) -> bool:
        within = (Tallied(unit=training.unit, plan=training.plan, charge=training.charge, times=rounds),) if rounds else ()
        return _within(plan, allowed, tally_of((*within, *beside)), tally_of((*others.items(), *within, *beside)))

    if fits(plan.training.rounds):
        return None
    low, high = 0, plan.training.rounds
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _within(plan: Plan, allowed: Policy, alone: Tally, all_plans: Tally) -> bool:
    caps, unit = allowed.budget, plan.privacy.unit
    bounds = (
        (alone, plan.privacy.delta or 0.0, False, caps.eps_plan),
        (alone, plan.privacy.delta or 0.0, True, caps.own_share_plan),
        (all_plans, caps.delta, False, caps.eps_total),
        (all_plans, caps.delta, True, caps.own_share_total),
    )
    return all(tally.epsilon(View(unit=unit, own_share=own), delta) <= most for tally, delta, own, most in bounds)

# SPDX-License-Identifier: Apache-2.0
"""One log held against the protocol: an attempt that was not paid for masks what was paid for before, under the same plan."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from common.audit import conduct
from common.audit.entries import Answered, Asked, At, Exchange, Fact, PlanFollowed, Reserved
from common.audit.findings import Findings
from common.audit.parties import Witness
from common.plan import Plan
from tests.common.audit.logs import HASH, SESSION, entries, opened
from tests.journeys.made import made_scenario

ONE, OTHER = "1" * 64, "2" * 64


def at(attempt: int) -> At:
    return At(session=SESSION, round=1, attempt=attempt, kind="UPDATE")


def asked(attempt: int) -> tuple[Asked, Reserved]:
    """Asked for an update, and paid for it."""
    line = Reserved(at=at(attempt), line=7 + attempt, head=HASH)
    return Asked(at=at(attempt), tag=HASH[:-1] + str(attempt), model=HASH, request=HASH), line


def keys(attempt: int) -> Answered:
    tag = HASH[:-1] + str(attempt)
    return Answered(exchange=Exchange(at=at(attempt), tag=tag, request=HASH, reply=HASH), step="KEYS", transcript=tag)


def found(folder: Path, *facts: Fact) -> set[str]:
    log = opened(folder)
    log.say(PlanFollowed(plan=ONE), *asked(0), keys(0))
    chain = log.say(*facts)
    bundle: Any = None  # what is looked at here are lines
    witness = Witness(name="north", role="site", bundle=bundle, entries=tuple(entries(folder)), chain=chain)
    plan: Plan = made_scenario(private=True).plan
    findings = Findings()
    conduct.check(witness, {ONE: plan, OTHER: plan}, findings)
    return {item.code for item in findings.items}


def test_an_attempt_that_follows_may_mask_what_was_paid_for(tmp_path: Path) -> None:
    assert not found(tmp_path, keys(1))


def test_an_attempt_under_another_plan_is_asked_and_paid_for_anew(tmp_path: Path) -> None:
    assert not found(tmp_path, PlanFollowed(plan=OTHER), *asked(1), keys(1))


def test_what_was_paid_for_under_one_plan_pays_for_nothing_under_another(tmp_path: Path) -> None:
    assert found(tmp_path, PlanFollowed(plan=OTHER), keys(1)) == {"F_ORDER"}


def test_what_was_asked_under_another_plan_is_not_paid_for_by_the_first(tmp_path: Path) -> None:
    """The session, the round and even the attempt are the ones that were paid for: the plan is not."""
    first, _ = asked(0)
    again = replace(first, tag=OTHER)
    answered = replace(keys(0), exchange=replace(keys(0).exchange, tag=OTHER), transcript=OTHER)
    assert found(tmp_path, PlanFollowed(plan=OTHER), again, answered) == {"F_LEDGER"}


def test_one_line_of_the_ledger_does_not_pay_under_two_plans(tmp_path: Path) -> None:
    assert "F_LEDGER" in found(tmp_path, PlanFollowed(plan=OTHER), asked(1)[0], Reserved(at=at(1), line=7, head=HASH), keys(1))

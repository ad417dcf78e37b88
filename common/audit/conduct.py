# SPDX-License-Identifier: Apache-2.0
"""One site's log against the protocol: did it do things in the only order there is, once each, and paid for beforehand?

    ASK -> RESERVE -> KEYS -> MEET, SHARE -> MASK -> CONFIRM -> RELEASE
                        `--------`-----------`-------`-> ABANDON

An attempt that follows a failed one may answer KEYS without being paid for: it masks the update that was paid for before. Nothing else may,
and what was paid for under one plan pays for nothing under another: a smaller quorum there would make the noise too little.
Here a log is asked about itself alone; whether others saw the same is asked in `common.audit.rounds`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.audit.entries import Abandoned, Answered, Asked, At, Exchange, Masked, Met, PlanFollowed, Released, Reserved, Said, step_of
from common.audit.findings import Findings
from common.audit.parties import Witness
from common.plan import Plan

_BEFORE: Mapping[str, tuple[str, ...]] = {
    "KEYS": (),
    "SHARE": ("KEYS", "MEET"),
    "MASK": ("SHARE",),
    "CONFIRM": ("MASK",),
    "UNMASK": ("CONFIRM",),
    "ABANDON": ("KEYS",),
}
"""What must have been done in an attempt before a step of it is answered."""
_SAID = (Answered, Masked, Released, Abandoned)
_Due = tuple[str, At]
"""A plan, and what is asked under it."""


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What has been read of one log."""

    site: Witness
    plans: Mapping[str, Plan]
    found: Findings
    plan: str = ""
    done: dict[str, dict[str, Said | Met]] = field(default_factory=dict)
    asked: dict[_Due, int] = field(default_factory=dict)
    paid: dict[_Due, int] = field(default_factory=dict)
    answered: set[tuple[str, str, int, str]] = field(default_factory=set)
    lines_used: dict[tuple[int, str], _Due] = field(default_factory=dict)


def check(site: Witness, plans: Mapping[str, Plan], found: Findings) -> None:
    """Note every contradiction of a site's log with the protocol."""
    walk = _Walk(site=site, plans=plans, found=found)
    for entry in site.entries:
        match entry.fact:
            case PlanFollowed() as fact:
                walk.plan = fact.plan
            case Asked() as fact:
                walk.asked[walk.plan, fact.at] = entry.seq
            case Reserved() as fact:
                _pay(walk, entry.seq, fact)
            case Met() as fact:
                walk.done.setdefault(fact.tag, {}).setdefault("MEET", fact)
            case Answered() | Masked() | Released() | Abandoned() as fact:
                _answer(walk, entry.seq, fact)


def exchanges(site: Witness) -> dict[tuple[str, str], tuple[int, Said]]:
    """By tag and step: the line, and what was said. The first counts."""
    said: dict[tuple[str, str], tuple[int, Said]] = {}
    for entry in site.entries:
        if isinstance(entry.fact, _SAID):
            said.setdefault((entry.fact.exchange.tag, step_of(entry.fact)), (entry.seq, entry.fact))
    return said


def _pay(walk: _Walk, line: int, fact: Reserved) -> None:
    due = walk.plan, fact.at
    walk.paid[due] = line
    used = walk.lines_used.setdefault((fact.line, fact.head), due)
    if used != due:
        text = f"line {fact.line + 1} of the ledger of '{walk.site.name}' pays for round {used[1].round} and for round {fact.at.round}."
        walk.found.add("F_LEDGER", walk.site.name, text, line=line, number=fact.at.round)


def _answer(walk: _Walk, line: int, fact: Said) -> None:
    step, exchange = step_of(fact), fact.exchange
    done = walk.done.setdefault(exchange.tag, {})
    if step in done:
        _note(walk, "F_TWICE", line, exchange, f"{step} was answered twice, in two ways")
        return
    if missing := [each for each in _BEFORE[step] if each not in done]:
        _note(walk, "F_ORDER", line, exchange, f"{step} was answered before {missing[0]}")
    if "UNMASK" in done or "ABANDON" in done:
        over = "its shares had left" if "UNMASK" in done else "it was given up"
        _note(walk, "F_ORDER", line, exchange, f"{step} was answered after {over}")
    if isinstance(fact, Released) and isinstance(confirmed := done.get("CONFIRM"), Answered) and confirmed.transcript != fact.transcript:
        _note(walk, "F_ORDER", line, exchange, "shares left for other survivors than were confirmed")
    if step == "KEYS":
        _check_paid(walk, line, exchange)
    done[step] = fact


def _check_paid(walk: _Walk, line: int, exchange: Exchange) -> None:
    at = exchange.at
    place = walk.plan, at.session, at.round, at.kind
    asked, paid = walk.asked.get((walk.plan, at)), walk.paid.get((walk.plan, at))
    if asked is None and place not in walk.answered:
        _note(walk, "F_ORDER", line, exchange, "KEYS was answered without having been asked")
    plan = walk.plans.get(walk.plan)
    if plan is None:
        walk.found.skip(f"whether '{walk.site.name}' paid before it trained: its plan {walk.plan[:12]} is in no bundle")
    elif plan.is_private and asked is not None and (paid is None or paid < asked):
        _note(walk, "F_LEDGER", line, exchange, "KEYS was answered, and no line of the privacy ledger paid for it before")
    walk.answered.add(place)


def _note(walk: _Walk, code: str, line: int, exchange: Exchange, what: str) -> None:
    text = f"'{walk.site.name}', round {exchange.at.round}, attempt {exchange.at.attempt}: {what}."
    walk.found.add(code, walk.site.name, text, line=line, number=exchange.at.round)

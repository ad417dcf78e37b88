# SPDX-License-Identifier: Apache-2.0
"""How a run's status changes with what the coordinator sees: (status, event, now) -> status, and no memory besides.

The events are those of `server.aggregation.Observer`. An event may come twice (a coordinator that was killed tells its last round again),
and some may be missing (an aggregation without steps tells none), so nothing is counted that the status shows to have been counted.

A site is asked when a step is opened, and has answered, refused or failed when it is heard; whoever is still asked when the step closes
was silent. Lists stay short however long the run: of failures the newest, of commits all recent ones and ever fewer older ones.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Final

from common.counting.evaluation import EvaluationFigures
from common.counting.statistics import StatisticFigures
from common.errors import RunStopped
from common.plan import Plan, digest_of
from server.aggregation import FAILED, LEFT_OUT, SILENT
from server.counts import CountedRound
from server.journal import CommittedRound
from server.live.status import (
    Commit,
    Described,
    Failure,
    Judged,
    PhaseDone,
    PlanFacts,
    RunState,
    SiteState,
    SiteStatus,
    SiteStep,
    Status,
    Took,
)

FAILURES_KEPT: Final = 30
HISTORY_KEPT: Final = 400
_STATES: Final[Mapping[str, SiteState]] = {
    SILENT: "silent",
    FAILED: "failed",
    "E_SITE_PAUSED": "paused",
    "E_SITE_LEFT": "left",
}
_FOLDERS: Final = re.compile(r"(?<![\w/])/(?:[^/'\"\s]+/)+")
_STAYS: Final = frozenset({"paused", "left", "revoked"})
"""What a site still is when it is not asked."""


def begin(plan: Plan, *, session: bytes, sites: Collection[str], now: float) -> Status:
    """A run of which nothing has been seen yet. `sites` are those of the roster."""
    facts = PlanFacts(
        name=plan.name,
        purpose=plan.plan.purpose,
        digest=digest_of(plan),
        rounds=plan.training.rounds,
        minimum_cohort=plan.aggregation.minimum_cohort,
        deadline_s=plan.aggregation.deadline_s,
        unit=plan.privacy.unit,
        epsilon=plan.privacy.epsilon if plan.is_private else None,
        delta=plan.privacy.delta if plan.is_private else None,
        classes=plan.task.classes,
    )
    return Status(
        fedward=version("fedward"),
        plan=facts,
        session=session.hex(),
        starts=1,
        begun=now,
        written=now,
        state="starting",
        since=now,
        round_since=now,
        phase_since=now,
        sites=tuple(SiteStatus(name=name, state="unheard", since=now) for name in sorted(sites)),
    )


def resume(before: Status, fresh: Status, committed: Sequence[CommittedRound]) -> Status:
    """The status of a coordinator that was started again: what the last one saw, and from the journal what it did not live to tell."""
    now = fresh.written
    kept = replace(before, fedward=fresh.fedward, starts=before.starts + 1, state="starting", since=now, why="", written=now, phase="")
    return told_by_journal(enrolled(kept, {site.name for site in fresh.sites}, now), committed)


def told_by_journal(status: Status, committed: Sequence[CommittedRound]) -> Status:
    """Rounds that were committed and are not in the status, with the time of this telling."""
    for done in committed:
        status = round_committed(status, done, status.written)
    return status


def enrolled(status: Status, names: Collection[str], now: float) -> Status:
    """The roster has changed: who is new in it, and who is no longer."""

    def place(site: SiteStatus) -> SiteStatus:
        if site.name not in names:
            return _moved(site, "revoked", now)
        return _moved(site, "unheard", now) if site.state == "revoked" else site

    status = _known(status, names, now)
    return replace(status, sites=tuple(map(place, status.sites)))


def round_opened(status: Status, number: int, cohort: Collection[str], now: float) -> Status:
    """A round begins: who is in it is asked, who is not is not. A round that goes on after a restart keeps what was heard in it."""
    names, again = frozenset(cohort), number == status.round and status.committed < number
    status = _going(replace(status, round=number), now)
    if again:
        return status

    def place(site: SiteStatus) -> SiteStatus:
        cleared = replace(site, steps=())
        if site.name in names:
            return _moved(cleared, "asked", now)
        return cleared if site.state in _STAYS else _moved(cleared, "not in cohort", now)

    status = _known(status, names, now)
    return replace(status, round_since=now, phase="", phase_since=now, phases=(), sites=tuple(map(place, status.sites)))


def phase_opened(status: Status, phase: str, asked: Collection[str], now: float) -> Status:
    """These sites are asked. Several groups may open one step."""
    names = frozenset(asked)

    def ask(site: SiteStatus) -> SiteStatus:
        return _stepped(_moved(site, "asked", now), phase, now) if site.name in names else site

    status = _known(_going(status, now), names, now)
    if status.phase != phase:
        status = replace(status, phase=phase, phase_since=now)
    return replace(status, sites=tuple(map(ask, status.sites)))


def site_heard(status: Status, phase: str, name: str, code: str | None, bytes_up: int, now: float) -> Status:
    """A site answered a step, or refused or failed with a code. A failure is not the site's own word, so it was not seen then."""

    def heard(site: SiteStatus) -> SiteStatus:
        state = "answered" if code is None else _STATES.get(code, "refused")
        seen = site.last_seen if code in (FAILED, SILENT, LEFT_OUT) else now
        moved = replace(_moved(site, state, now), code=code or "", last_seen=seen, bytes_up=site.bytes_up + bytes_up)
        return _stepped(moved, phase, now)

    status = _changed(_known(_going(status, now), {name}, now), name, heard)
    return status if code is None else _failed(status, name, code, now)


def site_answered(status: Status, name: str, *, refused: bool, now: float) -> Status:
    """The same from an aggregation that tells no steps and no codes; after `site_heard` it says nothing new."""

    def heard(site: SiteStatus) -> SiteStatus:
        return replace(_moved(site, "refused" if refused else "answered", now), last_seen=now) if site.state == "asked" else site

    return _changed(_going(status, now), name, heard)


def phase_closed(status: Status, phase: str, *, answered: int, asked: int, now: float) -> Status:
    """A group's step is over. When the first of several groups closes, none is waited for any more: who is still asked was silent."""
    status = _going(status, now)
    if status.phase == phase:
        silent = [site.name for site in status.sites if site.state == "asked" and any(step.phase == phase for step in site.steps)]
        for name in silent:
            status = site_heard(status, phase, name, SILENT, 0, now)
        seconds, before = now - status.phase_since, status.took.get(phase, Took(times=0, seconds=0.0))
        took = {**status.took, phase: Took(times=before.times + 1, seconds=before.seconds + seconds)}
        row = PhaseDone(phase=phase, seconds=seconds, answered=answered, asked=asked)
        others = tuple(done for done in status.phases if done.phase != phase)
        return replace(status, phase="", phase_since=now, took=took, phases=(*others, row))
    return replace(
        status,
        phases=tuple(
            replace(done, answered=done.answered + answered, asked=done.asked + asked) if done.phase == phase else done
            for done in status.phases
        ),
    )


def waiting(status: Status, number: int, why: str, now: float) -> Status:
    """The run does not go on for now. What is said of it may name a file, but not where on this machine it lies."""
    status = replace(status, round=max(status.round, number), why=_FOLDERS.sub("", why))
    return status if status.state == "waiting" else replace(status, state="waiting", since=now)


def evaluated(status: Status, done: CountedRound, figures: EvaluationFigures | None, now: float) -> Status:
    """A released evaluation, or its failure."""
    row = Judged(after_round=done.round - 1, figures=figures, failure=done.failure)
    others = (judged for judged in status.judged if judged.after_round != row.after_round)
    return _going(replace(status, judged=tuple(sorted((*others, row), key=lambda judged: judged.after_round))), now)


def described(status: Status, done: CountedRound, figures: StatisticFigures | None, now: float) -> Status:
    """A released statistic, or its failure."""
    return _going(replace(status, described=Described(figures=figures, failure=done.failure)), now)


def round_committed(status: Status, done: CommittedRound, now: float) -> Status:
    """A round exists. Told again for the last one when a run is resumed."""
    if done.round <= status.committed:
        return status
    row = Commit(
        round=done.round, at=now, seconds=done.seconds, sites=len(done.sites), missing=len(done.missing), update_norm=done.update_norm
    )

    in_sum = frozenset(done.sites)

    def took_part(site: SiteStatus) -> SiteStatus:
        return replace(site, rounds=site.rounds + 1) if site.name in in_sum else site

    status = _known(status, in_sum, now)
    status = replace(status, round=max(status.round, done.round), committed=done.round, sites=tuple(map(took_part, status.sites)))
    for absence in (*done.missing, *done.fallen):
        status = _failed(status, absence.site, absence.why, now, number=done.round)
        status = _changed(status, absence.site, partial(_left_out, why=absence.why, now=now))
    return replace(_going(status, now), history=_thinned((*status.history, row)), phase="", phase_since=now)


def chosen(status: Status, number: int, now: float) -> Status:
    """Training is over, and this round's model is given out."""
    return replace(_going(status, now), kept=number)


def ended(status: Status, state: RunState, why: str, now: float) -> Status:
    """The run is finished, paused, or stopped, and by what code."""
    status = replace(status, state=state, since=now, why=why, phase="", phase_since=now)
    return _failed(status, "", why, now) if state == "stopped" and why not in ("", RunStopped.code) else status


def _going(status: Status, now: float) -> Status:
    """Any event ends a wait."""
    return status if status.state == "running" else replace(status, state="running", since=now, why="")


def _failed(status: Status, name: str, code: str, now: float, *, number: int | None = None) -> Status:
    """Write down a failure, once a round for each site and code."""
    number = status.round if number is None else number
    if any((known.round, known.site, known.code) == (number, name, code) for known in status.failures):
        return status
    new = Failure(at=now, round=number, site=name, code=code)
    failed = {**status.failed, code: status.failed.get(code, 0) + 1}
    return replace(status, failures=(*status.failures, new)[-FAILURES_KEPT:], failed=failed)


def _left_out(site: SiteStatus, why: str, now: float) -> SiteStatus:
    """A site that is missing from a commit for a reason that no step told, such as a group too small."""
    return site if site.code else replace(_moved(site, _STATES.get(why, "refused"), now), code=why)


def _known(status: Status, names: Collection[str], now: float) -> Status:
    """Sites that were enrolled since the run began."""
    known = {site.name for site in status.sites}
    new = [SiteStatus(name=name, state="unheard", since=now) for name in names if name not in known]
    return replace(status, sites=tuple(sorted((*status.sites, *new), key=lambda site: site.name))) if new else status


def _changed(status: Status, name: str, change: Callable[[SiteStatus], SiteStatus]) -> Status:
    return replace(status, sites=tuple(change(site) if site.name == name else site for site in status.sites))


def _moved(site: SiteStatus, state: SiteState, now: float) -> SiteStatus:
    """In another state, since now; a code belongs to the state that it explains."""
    return site if site.state == state else replace(site, state=state, since=now, code="")


def _stepped(site: SiteStatus, phase: str, now: float) -> SiteStatus:
    """What the site is now, as what it did in this step."""
    others = tuple(step for step in site.steps if step.phase != phase)
    return replace(site, steps=(*others, SiteStep(phase=phase, state=site.state, at=now)))


def _thinned(history: tuple[Commit, ...]) -> tuple[Commit, ...]:
    """Every second one, when there are too many; first and last stay."""
    if len(history) <= HISTORY_KEPT:
        return history
    return (*history[:-1:2], history[-1])

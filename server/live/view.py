# SPDX-License-Identifier: Apache-2.0
"""What the page shows, ready to be set: every sentence and every figure is made here, so that the script in the page only places them.

Times that tick stay Unix seconds, for the page to show in its reader's time zone. `at` is the time here, since a reader's clock may be off.
"""

from dataclasses import asdict
from typing import Any, Final

from common.counting import Estimate
from server.live.look import Look, pace, time_left
from server.live.processes import Process
from server.live.reasons import of_run, reason
from server.live.status import Judged, SiteStatus, Status
from server.live.wording import STEPS, duration, gist, headline, kind_word, site_word, size, step_word

PROBLEMS_SHOWN: Final = 12
ROUNDS_SHOWN: Final = 10
_ROUND: Final = ("KEYS", "SHARE", "MASK", "CONFIRM", "UNMASK")
_ORDER: Final = ("failed", "refused", "silent", "revoked", "left", "paused", "asked", "unheard", "answered", "not in cohort")
_UNITS: Final = {"patient": "per patient", "record": "per image, not per patient"}

Facts = dict[str, Any]


def view(seen: Look) -> Facts:
    """One look, as JSON for the page."""
    said, status = headline(seen), seen.status
    facts: Facts = {
        "at": seen.at,
        "headline": said.text,
        "tone": said.tone,
        "gist": gist(seen),
        "over": seen.over,
        "processes": [_process(each, seen.at) for each in seen.processes],
    }
    return {**facts, "run": _run(status, seen) if status else None}


def _run(status: Status, seen: Look) -> Facts:
    return {
        "name": status.plan.name,
        "purpose": status.plan.purpose,
        "plan": status.plan.digest[:12],
        "session": status.session[:8],
        "fedward": status.fedward,
        "written": status.written,
        "begun": status.begun,
        "starts": status.starts,
        "facts": _facts(status, seen.at),
        "round": status.round,
        "rounds": status.plan.rounds,
        "committed": status.committed,
        "sums": _sums(status),
        "open_since": status.phase_since if status.phase else None,
        "deadline": status.deadline,
        "sites": [_site(site) for site in sorted(status.sites, key=lambda site: (_ORDER.index(site.state), site.name))],
        "problems": _problems(status),
        "history": [[done.round, done.update_norm, done.seconds, done.sites, done.missing, done.at] for done in status.history],
        "rounds_shown": ROUNDS_SHOWN,
        "judged": [_judged(each) for each in status.judged],
        "described": _described(status),
    }


def _facts(status: Status, now: float) -> list[Facts]:
    """The row of large figures."""
    found, remaining = pace(status), time_left(status, now)
    last = status.history[-1] if status.history else None
    promise = f"ε {status.plan.epsilon:.2f}" if status.plan.epsilon is not None else "none"
    unit = _UNITS.get(status.plan.unit, "no guarantee for patients")
    over = status.committed >= status.plan.rounds
    spread = f"{duration(remaining.low)} to {duration(remaining.high)}" if remaining else "known after a few rounds"
    return [
        _fact("Committed", str(status.committed), f"of {status.plan.rounds} rounds"),
        _fact("In the last sum", f"{last.sites} of {last.sites + last.missing}" if last else "–", "sites"),
        _fact(
            "A round takes", duration(found.median) if found else "–", f"{found.updates_per_minute:.1f} updates a minute" if found else ""
        ),
        _fact("Time left", "none" if over else f"about {duration(remaining.likely)}" if remaining else "–", "" if over else spread),
        _fact("Promise of the plan", promise, unit, alarm=status.plan.unit != "patient"),
    ]


def _fact(term: str, value: str, small: str, *, alarm: bool = False) -> Facts:
    return {"term": term, "value": value, "small": small, "alarm": alarm}


def _sums(status: Status) -> list[Facts]:
    """What this round sums, and how far each step of it is: a statistic, an evaluation, the updates."""
    kinds = ["STAT", "EVAL", ""]
    begun = {phase.rpartition(" ")[0] for phase in (*(done.phase for done in status.phases), status.phase) if phase}
    return [{"what": kind_word(f"{kind} KEYS"), "steps": _steps(status, kind)} for kind in kinds if kind in begun or not kind]


def _steps(status: Status, kind: str) -> list[Facts]:
    closed = {done.phase: done for done in status.phases}
    found = []
    for step in _ROUND:
        phase = f"{kind} {step}".strip()
        row: Facts = {"word": step_word(phase), "state": "ahead", "what": STEPS[step][1]}
        if phase == status.phase:
            asked = [site for site in status.sites if any(each.phase == phase for each in site.steps)]
            row |= {"state": "open", "answered": sum(site.state == "answered" for site in asked), "asked": len(asked)}
        elif phase in closed:
            done = closed[phase]
            row |= {"state": "done", "answered": done.answered, "asked": done.asked, "took": duration(done.seconds)}
        found.append(row)
    return found


def _site(site: SiteStatus) -> Facts:
    did = {step.phase: step.state for step in site.steps}
    return {
        "name": site.name,
        "state": site.state,
        "words": site_word(site),
        "code": site.code,
        "todo": reason(site.code).todo if site.code else "",
        "since": site.since,
        "seen": site.last_seen,
        "rounds": site.rounds,
        "sent": size(site.bytes_up),
        "steps": [{"word": step_word(phase), "state": did.get(phase, "ahead")} for phase in _ROUND],
    }


def _problems(status: Status) -> list[Facts]:
    """The newest of each site and code, and how many of the kept ones there are. Past is what a later round did well without."""
    newest = {(failure.site, failure.code): failure for failure in status.failures}
    often = [(failure.site, failure.code) for failure in status.failures]
    ordered = sorted(newest.values(), key=lambda failure: -failure.at)[:PROBLEMS_SHOWN]
    return [
        {
            "who": failure.site or "The run stopped:",
            **asdict(reason(failure.code) if failure.site else of_run(failure.code)),
            "code": failure.code,
            "round": failure.round,
            "at": failure.at,
            "times": often.count((failure.site, failure.code)),
            "past": failure.round < status.committed and failure.site != "",
        }
        for failure in ordered
    ]


def _judged(judged: Judged) -> Facts:
    found = judged.figures
    return {
        "after_round": judged.after_round,
        "auc": _estimate(found.auc) if found else None,
        "balanced_accuracy": _estimate(found.balanced_accuracy) if found else None,
        "sites": found.num_sites if found else 0,
        "failure": f"not judged: a site {reason(judged.failure).what} ({judged.failure})" if judged.failure else "",
    }


def _described(status: Status) -> Facts | None:
    if status.described is None:
        return None
    found = status.described.figures
    if found is None:
        return {"failure": f"not counted ({status.described.failure})"}
    return {"units": _estimate(found.units), "classes": [*zip(status.plan.classes, map(_estimate, found.classes), strict=False)]}


def _estimate(found: Estimate | None) -> Facts | None:
    return asdict(found) if found else None


def _process(process: Process, now: float) -> Facts:
    words = [f"{process.state} for {duration(now - process.since)}"]
    if process.restarts:
        words.append("restarted once" if process.restarts == 1 else f"restarted {process.restarts} times")
    if process.ended:
        words.append(f"last ended by {process.ended}")
    return {"name": process.name, "state": process.state, "words": ", ".join(words)}

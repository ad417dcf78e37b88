# SPDX-License-Identifier: Apache-2.0
"""The sentences of the terminal and of the page, in one place, so that both say the same and tests can read them.

Times are told as durations, which are the same in every time zone; clock times are left to whoever shows them. Sentences about trouble say
what to do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from common.errors import RunStopped
from server.live.look import Look, TimeLeft, awaited
from server.live.reasons import of_run, reason
from server.live.status import SiteStatus, Status

Tone = Literal["calm", "attention", "alarm"]

STEPS: Final[Mapping[str, tuple[str, str]]] = {
    "KEYS": ("train", "sites are training"),
    "SHARE": ("agree", "sites are agreeing on who is in"),
    "MASK": ("mask", "masked updates are arriving"),
    "CONFIRM": ("confirm", "sites are confirming whose updates arrived"),
    "UNMASK": ("unmask", "shares that open the sum are arriving"),
    "ABANDON": ("give up", "an attempt is being given up, to try again"),
}
"""Each step of the protocol: its word, and what goes on in it."""
_COUNTED: Final = {"EVAL": ("evaluation", "sites are judging the model"), "STAT": ("statistic", "sites are counting")}
_NAMED: Final = 3
_PAUSING: Final = "It is paused: no further round begins until fedward server resume."


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentence:
    """What is said, and how loud."""

    text: str
    tone: Tone = "calm"


def headline(look: Look) -> Sentence:
    """The run in a sentence or two: what goes on, who is awaited, or what is wrong and what to do."""
    status = look.status
    if look.problem:
        return Sentence(text=look.problem, tone="alarm")
    if status is None:
        return Sentence(text="The coordinator has not begun a run in this folder yet. Start it: fedward server start.", tone="attention")
    if look.gone:
        return Sentence(text=_gone(look, status), tone="alarm")
    if status.state == "finished":
        return Sentence(text=f"Finished: {status.committed} of {status.plan.rounds} rounds are committed. {_kept(status)}")
    if status.state == "stopped":
        return Sentence(text=_stopped(status), tone="attention" if status.why == RunStopped.code else "alarm")
    if status.state == "paused":
        return Sentence(text=f"Paused by the operator {_before(status)}. Go on: fedward server resume.", tone="attention")
    if status.state == "waiting":
        return Sentence(text=f"Waiting {_before(status)} for {duration(look.at - status.since)}: {status.why}", tone="attention")
    if status.state == "starting":
        return Sentence(text="Starting: asking which sites are there.")
    said = _running(status, look.at)
    return Sentence(text=f"{said.text} {_PAUSING}", tone="attention") if look.pausing else said


def _kept(status: Status) -> str:
    early = status.committed < status.plan.rounds
    why = "Models were judged no better than before, so training has ended early. " if early else ""
    if status.kept in (0, status.committed):
        return f"{why}The model is in the run folder."
    return f"{why}The model of round {status.kept} was judged best, and is in the run folder."


def gist(look: Look) -> str:
    """The same without anything that ticks, for whoever listens to a page: it is read out when it changes."""
    status = look.status
    if look.problem or status is None or look.over:
        return headline(look).text
    if look.gone:
        return "The coordinator's program is not heard of any more."
    if status.state == "waiting":
        return f"Waiting {_before(status)}: {status.why}"
    if status.state == "running" and status.phase:
        return f"Round {status.round} of {status.plan.rounds}: {_what_goes_on(status.phase)}."
    return headline(look).text


def step_word(phase: str) -> str:
    """'MASK' -> 'mask'; 'EVAL KEYS' -> 'judge'."""
    kind, _, step = phase.rpartition(" ")
    word = STEPS.get(step, (step.lower(), ""))[0]
    return {"EVAL": "judge", "STAT": "count"}.get(kind, word) if step == "KEYS" else word


def kind_word(phase: str) -> str:
    """What is summed in a step: 'update', 'evaluation', 'statistic'."""
    kind = phase.rpartition(" ")[0]
    return _COUNTED[kind][0] if kind in _COUNTED else "update"


def site_word(site: SiteStatus) -> str:
    """A site's state in words that stand after its name."""
    if site.code:
        return reason(site.code).what
    return {
        "unheard": "has not been heard yet",
        "asked": "is awaited",
        "answered": "has answered",
        "refused": "refused",
        "failed": "failed",
        "silent": "did not answer in time",
        "paused": "is paused by its operator",
        "left": "has left the federation",
        "revoked": "is no longer in the roster",
        "not in cohort": "is not asked in this round",
    }[site.state]


def left(found: TimeLeft | None) -> str:
    """'about 2 h 05 min (1 h 50 min to 2 h 31 min)'."""
    if found is None:
        return "not known yet"
    return f"about {duration(found.likely)} ({duration(found.low)} to {duration(found.high)})"


def duration(seconds: float) -> str:
    """Two units at most.

    >>> [duration(seconds) for seconds in (0.42, 12.3, 192, 7500, 187_000)]
    ['0.4 s', '12 s', '3 min 12 s', '2 h 05 min', '2 d 3 h']
    """
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def size(count: float) -> str:
    """Bytes in decimal units: 40_000_000 -> '40 MB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def names(sites: Sequence[SiteStatus]) -> str:
    """'east', 'east and north', 'east, north, south and 4 others'."""
    found = [site.name for site in sites[:_NAMED]]
    if len(sites) > _NAMED:
        found.append(f"{len(sites) - _NAMED} other{'s' if len(sites) > _NAMED + 1 else ''}")
    *head, tail = found
    return f"{', '.join(head)} and {tail}" if head else tail


def _running(status: Status, now: float) -> Sentence:
    if not status.phase:
        if status.committed >= status.plan.rounds:
            return Sentence(text="The last round is committed; the model is being judged and written.")
        what = "is being worked out" if status.round > status.committed else "is committed; the next one begins"
        return Sentence(text=f"Round {status.round} of {status.plan.rounds} {what}.")
    asked = [site for site in status.sites if any(step.phase == status.phase for step in site.steps)]
    missing, said = awaited(status), f"Round {status.round} of {status.plan.rounds}: {_what_goes_on(status.phase)}"
    answered = sum(site.state == "answered" for site in asked)
    progress = f"{answered} of {len(asked)} have answered"
    if not missing:
        return Sentence(text=f"{said}; {progress}.")
    since = duration(now - status.phase_since)
    be = "is" if len(missing) == 1 else "are"
    return Sentence(text=f"{said}; {progress}, {names(missing)} {be} awaited for {since}.")


def _what_goes_on(phase: str) -> str:
    kind, _, step = phase.rpartition(" ")
    if kind in _COUNTED and step == "KEYS":
        return _COUNTED[kind][1]
    words = STEPS.get(step, ("", step.lower()))[1]
    return f"{_COUNTED[kind][0]}: {words}" if kind in _COUNTED else words


def _gone(look: Look, status: Status) -> str:
    said = f"The coordinator's program has not been heard of for {duration(look.at - status.written)}"
    where = f"{said}; it was {'in' if status.round > status.committed else 'after'} round {status.round}. Committed rounds are safe."
    failing = [process for process in look.processes if process.state != "running"]
    if failing:
        programs = ", ".join(f"{process.name} ({process.ended or process.state})" for process in failing)
        return f"{where} The supervisor is starting again what it can: {programs}."
    return f"{where} If it does not come back within a minute: fedward server status, then fedward server start."


def _stopped(status: Status) -> str:
    found = of_run(status.why)
    return f"Stopped {_before(status)}: {found.what} ({status.why or 'no code'}). Every committed round is kept. {found.todo}"


def _before(status: Status) -> str:
    """Where a run stands that does not go on."""
    return f"in round {status.round}" if status.round > status.committed else f"after round {status.committed}"

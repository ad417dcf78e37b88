# SPDX-License-Identifier: Apache-2.0
"""The run's log: one JSON object a line, in run/log.jsonl, with fields of a closed set.

    {"time": "2026-03-01T09:12:04.123Z", "event": "phase_closed", "round": 3, "phase": "MASK", "answered": 7, "asked": 7}

The supervisor and the ServerApp's process both append to it, a line in one write; whoever started the supervisor sees the lines as they
come, as JSON or in words. A line can hold names of sites, numbers of rounds, codes, counts, sizes and times. It has no field for a text
that somebody else chose, so nothing of a patient, and no path of a machine, has a way into it.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from common.update import Weights
from server.aggregation import Silent
from server.counts import CountedRound
from server.journal import CommittedRound

Event = Literal[
    "started",
    "process_started",
    "process_died",
    "run_submitted",
    "run_died",
    "carrier_lost",
    "database_put_aside",
    "node_registered",
    "node_unregistered",
    "node_refused",
    "refused",
    "stopping",
    "done",
    "round_opened",
    "phase_opened",
    "site_heard",
    "phase_closed",
    "waiting",
    "counted",
    "round_committed",
    "site_missing",
    "site_fallen",
    "chosen",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What may stand in a line. `process` is one of ours, `run` is Flower's number for an attempt."""

    event: Event
    round: int | None = None
    rounds: int | None = None
    phase: str | None = None
    site: str | None = None
    code: str | None = None
    asked: int | None = None
    answered: int | None = None
    sites: int | None = None
    missing: int | None = None
    bytes_up: int | None = None
    seconds: float | None = None
    process: str | None = None
    pid: int | None = None
    run: str | None = None
    restarts: int | None = None


class Logbook:
    """A log that this process appends to. A line that cannot be written is lost, and stops nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, line: Line) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        facts = {"time": stamp, **{name: value for name, value in asdict(line).items() if value is not None}}
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        except OSError:
            return
        try:
            os.write(descriptor, json.dumps(facts).encode() + b"\n")
        except OSError:
            return
        finally:
            os.close(descriptor)


class Reader:
    """The lines that come after a place, whole ones only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = path.stat().st_size if path.exists() else 0

    def news(self) -> Iterator[str]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._place)
                content = file.read()
        except OSError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._place += len(whole)
        yield from whole.decode().splitlines()


def in_words(line: str) -> str:
    """A line for people."""
    facts = json.loads(line)
    clock, event = facts.pop("time")[11:19], facts.pop("event")
    begin = f"round {facts.pop('round')}: " if "round" in facts else ""
    return f"{clock}  {begin}{event.replace('_', ' ')}" + "".join(f"  {name} {value}" for name, value in facts.items())


class RoundLines(Silent):
    """An observer that writes down what it sees."""

    def __init__(self, book: Logbook, rounds: int) -> None:
        self._book, self._rounds = book, rounds

    def round_opened(self, number: int, cohort: list[str]) -> None:
        self._book.write(Line(event="round_opened", round=number, rounds=self._rounds, sites=len(cohort)))

    def phase_opened(self, number: int, phase: str, *, asked: Sequence[str]) -> None:
        self._book.write(Line(event="phase_opened", round=number, phase=phase, asked=len(asked)))

    def site_heard(self, number: int, phase: str, site: str, *, code: str | None, bytes_up: int) -> None:
        self._book.write(Line(event="site_heard", round=number, phase=phase, site=site, code=code, bytes_up=bytes_up))

    def phase_closed(self, number: int, phase: str, *, answered: int, asked: int) -> None:
        self._book.write(Line(event="phase_closed", round=number, phase=phase, answered=answered, asked=asked))

    def waiting(self, number: int, why: str) -> None:
        del why  # words for people, not of a closed set
        self._book.write(Line(event="waiting", round=number))

    def counted(self, done: CountedRound) -> None:
        code = done.failure or None
        self._book.write(Line(event="counted", round=done.round, phase=done.kind.name, sites=len(done.sites), code=code))

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        del weights
        seconds, counts = round(done.seconds, 1), (len(done.sites), len(done.missing))
        self._book.write(Line(event="round_committed", round=done.round, sites=counts[0], missing=counts[1], seconds=seconds))
        for absence in done.missing:
            self._book.write(Line(event="site_missing", round=done.round, site=absence.site, code=absence.why))
        for absence in done.fallen:
            self._book.write(Line(event="site_fallen", round=done.round, site=absence.site, code=absence.why))

    def chosen(self, number: int, *, trained: int) -> None:
        self._book.write(Line(event="chosen", round=number, rounds=trained))

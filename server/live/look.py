# SPDX-License-Identifier: Apache-2.0
"""One look at a run folder: the coordinator's status, the supervisor's processes, and how the two fit.

Every reader (terminal, page, Prometheus) looks anew, so that none of them depends on a program that may have died. What can be worked out
is worked out here once: whether the coordinator is gone, who is awaited, how fast rounds are, and when the last one may be done.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import StatusUnreadable
from server.home import PAUSE_FILE
from server.live.processes import PROCESSES_FILE, Process, read_processes
from server.live.status import OUT_OF_SIGHT_S, STATUS_FILE, SiteStatus, Status, read_status

_ROUNDS_FOR_PACE: Final = 20
_ROUNDS_FOR_SPREAD: Final = 4
_OVER: Final = frozenset({"finished", "stopped"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the last rounds were, in seconds a round: the median and the quartiles around it; and updates in sums, a minute."""

    low: float
    median: float
    high: float
    updates_per_minute: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLeft:
    """Seconds to the last commit if rounds go on like the last ones: by the median, and by the quartiles on either side."""

    low: float
    likely: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A run folder at one moment. `problem` is why the status could not be read; `status` is then None, as before the first start.

    `pausing`: the operator wants no further round to begin.
    """

    at: float
    status: Status | None
    processes: tuple[Process, ...] = ()
    problem: str = ""
    pausing: bool = False

    @property
    def gone(self) -> bool:
        """Whether the coordinator should be writing and does not."""
        return self.status is not None and self.status.state not in _OVER and self.at - self.status.written > OUT_OF_SIGHT_S

    @property
    def over(self) -> bool:
        return self.status is not None and self.status.state in _OVER


def look(run: Path, *, now: float | None = None) -> Look:
    """Read the two files of a run folder. Never raises for what they hold."""
    at = time.time() if now is None else now
    status: Status | None = None
    processes: tuple[Process, ...] = ()
    problem = ""
    try:
        status = read_status(run / STATUS_FILE)
        processes = read_processes(run / PROCESSES_FILE)
    except StatusUnreadable as error:
        problem = str(error)
    return Look(at=at, status=status, processes=processes, problem=problem, pausing=(run / PAUSE_FILE).exists())


def awaited(status: Status) -> tuple[SiteStatus, ...]:
    """Who has been asked and has not answered, in the order of names."""
    return tuple(site for site in status.sites if site.state == "asked")


def pace(status: Status) -> Pace | None:
    """Of the last rounds; None, before there are enough to have a spread."""
    recent = status.history[-_ROUNDS_FOR_PACE:]
    seconds = [done.seconds for done in recent]
    if len(seconds) < _ROUNDS_FOR_SPREAD:
        return None
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    per_minute = 60 * sum(done.sites for done in recent) / max(sum(seconds), 1e-9)
    return Pace(low=low, median=median, high=high, updates_per_minute=per_minute)


def time_left(status: Status, now: float) -> TimeLeft | None:
    """What is left of the round that is open, never less than nothing, and the rounds after it."""
    found = pace(status)
    remaining = status.plan.rounds - status.committed
    if found is None or remaining <= 0:
        return None
    open_for = now - status.round_since if status.round > status.committed else 0.0

    def left(a_round: float) -> float:
        return max(a_round - open_for, 0.0) + (remaining - 1) * a_round

    return TimeLeft(low=left(found.low), likely=left(found.median), high=left(found.high))

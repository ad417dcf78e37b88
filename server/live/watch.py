# SPDX-License-Identifier: Apache-2.0
"""The observer that keeps run/status.json: it tells the story (`server.live.story`) and writes the file.

A thread of its own writes, so that looking on never slows a round down: at once when a step begins or ends, at most twice a second
otherwise, and every five seconds when nothing happens, by which readers tell a quiet coordinator from a dead one. A status that cannot be
written (a full disk) is no reason to stop a run: it is tried again with the next change.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from common.counting import Counted, evaluation, form_of, statistics
from common.counting.form import read
from common.errors import DiskFull, FedwardError, StatusUnreadable
from common.plan import Plan
from common.secagg.terms import Kind
from common.update import Weights
from server.counts import CountedRound
from server.journal import CommittedRound
from server.live import story
from server.live.status import RunState, Status, read_status, write_status

PACE_S: Final = 0.5
HEARTBEAT_S: Final = 5.0

log = logging.getLogger("fedward.server")


class Watch:
    """A `server.aggregation.Observer`, and a context manager around the time in which it writes."""

    def __init__(
        self,
        path: Path,
        plan: Plan,
        *,
        session: bytes,
        sites: Collection[str],
        committed: Sequence[CommittedRound] = (),
        journal: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`sites` are those of the roster, `committed` the journal's rounds, `journal` its file, whose size is shown."""
        self._path, self._plan, self._journal, self._clock = path, plan, journal, clock
        fresh = story.begin(plan, session=session, sites=sites, now=clock())
        before = _of_this_session(path, fresh)
        self._status = story.resume(before, fresh, committed) if before else story.told_by_journal(fresh, committed)
        self._lock = threading.Lock()
        self._changed, self._hurry, self._over = threading.Event(), threading.Event(), False
        self._writer = threading.Thread(target=self._write_on, name="status", daemon=True)

    def __enter__(self) -> Self:
        self._write()
        self._writer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """A run that ends by name is stopped. Any other error is the death of this process, and no end: it will be started again."""
        if isinstance(error, FedwardError):
            self.ended("stopped", error.code)
        self._over = True
        self._hurry.set()
        self._changed.set()
        self._writer.join()
        self._write()

    @property
    def status(self) -> Status:
        """As it stands."""
        with self._lock:
            return self._status

    def round_opened(self, number: int, cohort: list[str]) -> None:
        self._tell(lambda status, now: story.round_opened(status, number, cohort, now), at_once=True)

    def phase_opened(self, number: int, phase: str, *, asked: Sequence[str]) -> None:
        del number
        self._tell(lambda status, now: story.phase_opened(status, phase, asked, now), at_once=True)

    def site_heard(self, number: int, phase: str, site: str, *, code: str | None, bytes_up: int) -> None:
        del number
        self._tell(lambda status, now: story.site_heard(status, phase, site, code, bytes_up, now))

    def site_answered(self, number: int, site: str, *, refused: bool) -> None:
        del number
        self._tell(lambda status, now: story.site_answered(status, site, refused=refused, now=now))

    def phase_closed(self, number: int, phase: str, *, answered: int, asked: int) -> None:
        del number
        self._tell(lambda status, now: story.phase_closed(status, phase, answered=answered, asked=asked, now=now), at_once=True)

    def waiting(self, number: int, why: str) -> None:
        self._tell(lambda status, now: story.waiting(status, number, why, now))

    def counted(self, done: CountedRound) -> None:
        if done.kind is Kind.EVAL:
            judged = None if done.failure else evaluation.figures(self._plan, self._sum_of(done))
            self._tell(lambda status, now: story.evaluated(status, done, judged, now))
            return
        said = None if done.failure else statistics.figures(self._plan, self._sum_of(done))
        self._tell(lambda status, now: story.described(status, done, said, now))

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        del weights
        self._tell(lambda status, now: story.round_committed(status, done, now), at_once=True)

    def chosen(self, number: int, *, trained: int) -> None:
        del trained  # which every commit has told
        self._tell(lambda status, now: story.chosen(status, number, now), at_once=True)

    def enrolled(self, sites: Collection[str]) -> None:
        """Another roster is in force."""
        self._tell(lambda status, now: story.enrolled(status, sites, now), at_once=True)

    def ended(self, state: RunState, why: str = "") -> None:
        """The coordinator's own word: "finished", "paused", or "stopped" and by which code."""
        self._tell(lambda status, now: story.ended(status, state, why, now), at_once=True)

    def _sum_of(self, done: CountedRound) -> Counted:
        return read(form_of(self._plan, done.kind), np.array(done.steps, dtype=np.int64), num_sites=len(done.sites))

    def _tell(self, change: Callable[[Status, float], Status], *, at_once: bool = False) -> None:
        with self._lock:
            self._status = change(self._status, self._clock())
        if at_once:
            self._hurry.set()
        self._changed.set()

    def _write_on(self) -> None:
        while not self._over:
            self._changed.wait(HEARTBEAT_S)
            self._changed.clear()
            self._hurry.clear()
            self._write()
            self._hurry.wait(PACE_S)

    def _write(self) -> None:
        with self._lock:
            self._status = replace(self._status, written=self._clock(), journal_bytes=_size(self._journal))
            status = self._status
        try:
            write_status(self._path, status)
        except DiskFull as error:
            log.warning("%s: the status was not written", error.code)


def _of_this_session(path: Path, fresh: Status) -> Status | None:
    """What a coordinator of the same session left behind, if it can be read."""
    try:
        before = read_status(path)
    except StatusUnreadable:
        return None
    return before if before is not None and (before.session, before.plan) == (fresh.session, fresh.plan) else None


def _size(journal: Path | None) -> int:
    """The journal with what is not yet folded into it."""
    if journal is None:
        return 0
    parts = (journal, journal.with_name(journal.name + "-wal"))
    return sum(map(_size_of, parts))


def _size_of(part: Path) -> int:
    try:
        return part.stat().st_size
    except OSError:
        return 0

# SPDX-License-Identifier: Apache-2.0
"""The run as Flower sees it: submitted, taken up by a ServerApp's process, gone. Flower's run is disposable, so each crash makes a new one.

    no run          submit one, after a pause that grows with failures
    submitted       wait until a process holds the run's lock; if none does, it never came up
    taken up        until the lock is free. Then the process has ended, and its last word counts (server.process.outcome); without one it
    died

A run that is over is stopped at the SuperLink too, so that no mailbox is handed a message that nobody waits for.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

from common.errors import CohortTooSmall, DiskFull, RosterExpired, TransportError, Unforeseen
from server.home import APP_LOCK_FILE, OUTCOME_FILE, CoordinatorHome
from server.process import outcome
from server.process.children import Backoff
from server.process.logbook import Line, Logbook
from server.process.outcome import Outcome
from server.process.processes import Identity, Lock, end

_TAKEN_UP_WITHIN_S: Final = 120.0
_ASKED_EVERY_S: Final = 3.0
_GRACE_S: Final = 8.0
_WAITED_OUT: Final = frozenset({CohortTooSmall.code, RosterExpired.code, DiskFull.code})
"""What somebody else will mend: sites come back, a roster is renewed, space is made."""
_TRIED_AGAIN: Final = frozenset({Unforeseen.code})
_TIMES: Final = 3
_STILLBORN: Final = 6
"""So many in a row that never came to hold the lock are no accident: the installation is broken."""


@dataclass(frozen=True, slots=True)
class Flight:
    """One submission: Flower's number for it, when, and which process held the run's lock before."""

    run: int
    submitted: float
    before: Identity | None


class Runs(Protocol):
    """What a SuperLink does with runs (`server.process.control.Control`)."""

    def start_run(self) -> int: ...

    def stop_run(self, run: int) -> None: ...

    def is_running(self, run: int) -> bool: ...


class Flights:
    """One after the other. `look` is called again and again while messages can be carried."""

    def __init__(self, home: CoordinatorHome, book: Logbook) -> None:
        self._lock, self._word, self._book = home.run / APP_LOCK_FILE, home.run / OUTCOME_FILE, book
        self._flight: Flight | None = None
        self._pause, self._asked = Backoff(clock=lambda: time.monotonic()), 0.0
        self.count, self.deaths, self.since, self._stillborn = 0, 0, 0.0, 0

    @property
    def app(self) -> Identity | None:
        """The ServerApp's process, while there is one."""
        return Lock.holder(self._lock)

    def look(self, control: Runs) -> Outcome | None:
        """Do what is due. The run's last word, if that is the end of it. Raises: TransportError, if no ServerApp ever comes up."""
        if self._flight is None:
            if self._pause.due:
                self._submit(control)
            return None
        if self.app is not None or (not self._was_taken_up(self._flight) and self._may_still_come(control, self._flight)):
            return None
        return self._ended(control, self._flight)

    def end_app(self) -> None:
        """End the ServerApp's process: politely, then surely. The journal is made for either."""
        if app := self.app:
            end([app], patience_s=_GRACE_S)

    def _submit(self, control: Runs) -> None:
        self.end_app()  # of a run that nobody follows any more
        self._pause.begun()
        before = Lock.last(self._lock)
        try:
            run = control.start_run()
        except TransportError as error:
            self._pause.died()
            self._book.write(Line(event="run_died", code=error.code))
            return
        self._flight = Flight(run, time.monotonic(), before)
        self.count, self.since = self.count + 1, time.time()
        self._book.write(Line(event="run_submitted", run=str(run), restarts=self.count - 1))

    def _was_taken_up(self, flight: Flight) -> bool:
        """Whether a process has held the lock since; seen by what it wrote there, for it may have lived shorter than our look lasts."""
        return Lock.last(self._lock) != flight.before

    def _may_still_come(self, control: Runs, flight: Flight) -> bool:
        """Whether a process may still take it up: Flower has not ended it, and it was not submitted long ago."""
        now = time.monotonic()
        if outcome.read(self._word, run=flight.run) or now - flight.submitted > _TAKEN_UP_WITHIN_S:
            return False
        if now - self._asked < _ASKED_EVERY_S:
            return True
        self._asked = now
        try:
            return control.is_running(flight.run)
        except TransportError:
            return True  # who does not answer has said nothing

    def _may_mend(self, word: Outcome) -> bool:
        """Whether it can go on without anybody having typed anything here."""
        again = word.code in _TRIED_AGAIN and self._pause.quick_deaths < _TIMES
        return word.end == "refused" and (word.code in _WAITED_OUT or again)

    def _ended(self, control: Runs, flight: Flight) -> Outcome | None:
        self._flight = None
        with suppress(TransportError):  # it may be over there already, or forgotten
            control.stop_run(flight.run)
        word = outcome.read(self._word, run=flight.run)
        self._stillborn = 0 if word or self._was_taken_up(flight) else self._stillborn + 1
        if self._stillborn >= _STILLBORN:
            raise TransportError(
                f"a ServerApp was started {_STILLBORN} times and never got as far as the run.",
                fix='See why with this installation\'s own Python: python -c "import server.app". Then start again; nothing is lost.',
            )
        if word is not None and not self._may_mend(word):
            return word
        self._pause.died()
        self.deaths += word is None
        self._book.write(Line(event="run_died", run=str(flight.run), code=word.code if word else None, restarts=self.count - 1))
        return None

# SPDX-License-Identifier: Apache-2.0
"""How long to wait: before the next try of something that failed, and before the next look for something new."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Final

FIRST_S: Final = 0.2
LONGEST_S: Final = 10.0
BUSY_S: Final = 0.1
IDLE_S: Final = 1.0
_BUSY_FOR_S: Final = 3.0
_WORKING_S: Final = 0.5
_SOONER: Final = 0.7
_LOOKS_A_STEP: Final = 5
_SLOWER: Final = 1.25
_SPREAD: Final = (0.7, 1.3)


def delays(*, first: float = FIRST_S, longest: float = LONGEST_S) -> Iterator[float]:
    """Doubling, and spread, so that ten hospitals whose coordinator returns do not all call in the same instant."""
    delay = first
    while True:
        yield delay * random.uniform(*_SPREAD)  # noqa: S311 - nothing secret
        delay = min(2 * delay, longest)


@dataclass(slots=True)
class Pace:
    """When to look for messages: often while a round runs, then ever less often, to a second.

    A look costs the coordinator as much as a message, and most find nothing. While this hospital works at a step none is expected; and the
    next cannot come before the slowest hospital has answered. Steps come in the same order every round, so after an answer the first look
    waits for `_SOONER` of the time that the step after such an answer took to come last time, and looks follow at a fifth of it. What that
    adds to a step is less than what is cut off, so that looking seldom does not make steps slow.
    """

    clock: Callable[[], float] = time.monotonic
    _due: float = 0.0
    _every: float = BUSY_S
    _busy_until: float = 0.0
    _steps_s: dict[str, float] = field(default_factory=dict)
    _answered: tuple[str, float] | None = None
    _woken: Event = field(default_factory=Event)

    def came(self) -> None:
        """A message is here, and is worked at."""
        if self._answered is not None:
            kind, at = self._answered
            self._steps_s[kind], self._answered = min(self.clock() - at, _BUSY_FOR_S), None
        self._look(after=BUSY_S, every=_WORKING_S)

    def answered(self, kind: str) -> None:
        """An answer to a message of this kind has left; the next step will come."""
        self._answered = kind, self.clock()
        step_s = self._steps_s.get(kind, 0.0)
        self._look(after=max(BUSY_S, _SOONER * step_s), every=max(BUSY_S, step_s / _LOOKS_A_STEP))

    def wake(self) -> None:
        """Look now, whatever the pace."""
        self._due = self.clock()
        self._woken.set()

    @property
    def left_s(self) -> float:
        """Until the next look."""
        return self._due - self.clock()

    def wait(self) -> None:
        """Until it is time to look."""
        while (left_s := self.left_s) > 0:
            if self._woken.wait(left_s):
                self._woken.clear()
        self.looked()

    def looked(self) -> None:
        """The next look is after a pause, which grows when nothing has happened for a while."""
        now = self.clock()
        if now > self._busy_until:
            self._every = min(self._every * _SLOWER, IDLE_S)
        self._due = now + self._every

    def _look(self, *, after: float, every: float) -> None:
        now = self.clock()
        self._due, self._every, self._busy_until = now + after, every, now + after + _BUSY_FOR_S
        self._woken.set()

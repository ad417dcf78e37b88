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
    """When to look for messages: often after one came or an answer left, since protocols are quick; then ever less often, to a second."""

    clock: Callable[[], float] = time.monotonic
    _busy_until: float = 0.0
    _next: float = BUSY_S
    _woken: Event = field(default_factory=Event)

    def busy(self) -> None:
        """Something happened: look again soon."""
        self._busy_until = self.clock() + _BUSY_FOR_S
        self._next = BUSY_S
        self._woken.set()

    def wake(self) -> None:
        """Look now, whatever the pace."""
        self._woken.set()

    def wait(self) -> None:
        if self._woken.wait(self._next):
            self._woken.clear()
        if self.clock() > self._busy_until:
            self._next = min(self._next * _SLOWER, IDLE_S)

# SPDX-License-Identifier: Apache-2.0
"""How fast the archive is asked, and how slowly it may answer.

Clinicians wait for the same archive. `Pace` asks for no more instances in a second than the operator allows. `Patience` is a deadline that
moves: as long as enough arrives nobody is hurried, whatever the size; a trickle that would hold the line for days is given up.
"""

import time
from collections.abc import Callable
from typing import Final

from client.pacs.failure import Failed, Reason

LEAST_BYTES: Final = 64 << 10
"""What has to come in each stretch of patience: 1 KiB/s at a minute's, which no link in a hospital falls below for long."""


class Pace:
    """`per_second` instances, or as many as come."""

    def __init__(
        self, per_second: float | None, *, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], object] = time.sleep
    ) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._clock, self._wait = clock, wait
        self._next = clock()

    def before(self, count: int) -> None:
        """Wait until `count` more may be asked for."""
        now = self._clock()
        if now < self._next:
            self._wait(self._next - now)
        self._next = max(now, self._next) + count * self._gap


class Patience:
    """In each `stretch_s` at least `LEAST_BYTES` have to come."""

    def __init__(self, stretch_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stretch, self._clock = stretch_s, clock
        self._since, self._came = clock(), 0

    def came(self, count: int) -> None:
        """Raises: Failed with SLOW."""
        self._came += count
        now = self._clock()
        if now - self._since < self._stretch:
            return
        if self._came < LEAST_BYTES:
            raise Failed(Reason.SLOW)
        self._since, self._came = now, 0

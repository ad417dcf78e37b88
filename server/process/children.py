# SPDX-License-Identifier: Apache-2.0
"""A supervised process's life: started, watched, dead, started again after a pause that grows with its failures."""

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from server.live.processes import Process, ProcessState
from server.process.processes import Identity, spawn

LONG_LIFE_S: Final = 60.0
"""Who lived so long was well: the next pause is the shortest again."""


class Backoff:
    """How long to wait before the next try: half a second, doubling to half a minute."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, first_s: float = 0.5, longest_s: float = 30.0) -> None:
        self._clock, self._first_s, self._longest_s = clock, first_s, longest_s
        self._wait_s, self._due, self._begun = first_s, clock(), clock()
        self.quick_deaths = 0

    @property
    def due(self) -> bool:
        """Whether the pause is over."""
        return self._clock() >= self._due

    def begun(self) -> None:
        self._begun = self._clock()

    def died(self) -> None:
        """Begin the next pause."""
        now = self._clock()
        if now - self._begun >= LONG_LIFE_S:
            self._wait_s, self.quick_deaths = self._first_s, 0
        self.quick_deaths += 1
        self._due = now + self._wait_s
        self._wait_s = min(2 * self._wait_s, self._longest_s)


@dataclass
class Child:
    """One of our processes.

    `since` is when it came into its present state (Unix seconds), `begun` when it was last started (monotonic), `ended` how its last life
    ended.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    backoff: Backoff = field(default_factory=Backoff)
    starts: int = 0
    since: float = 0.0
    begun: float = 0.0
    ended: str = ""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def up(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def identity(self) -> Identity | None:
        return Identity.of(self._process.pid) if self._process is not None and self.up else None

    def start(self) -> None:
        """From the main thread."""
        self._process = spawn(self.command, environment=self.environment, log=self.log)
        self.starts, self.since, self.begun = self.starts + 1, time.time(), time.monotonic()
        self.backoff.begun()

    def lay_to_rest(self, *, patience_s: float) -> None:
        """After its end was asked for: its last threads may still be ending when its first one has (the state "Z" of proc(5))."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience_s)
        self.mourn()

    def mourn(self) -> bool:
        """Whether it died since last asked; then its pause begins."""
        if self._process is None or self.up:
            return False
        code = self._process.returncode
        self.ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._process, self.since = None, time.time()
        self.backoff.died()
        return True

    def told(self, *, ending: bool) -> Process:
        """For the status. A pause between two lives is a start that is due, unless this is the end."""
        state: ProcessState = "running" if self.up else "stopped" if ending or not self.starts else "starting"
        return Process(name=self.name, state=state, since=self.since, restarts=max(0, self.starts - 1), ended=self.ended)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

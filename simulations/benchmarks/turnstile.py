# SPDX-License-Identifier: Apache-2.0
"""How a benchmark and its contenders keep time: every contender is a process of its own and waits for the word before each round.

So several can be up at once and take turns, round by round, on the same cores, and whatever else disturbs the machine disturbs them all.
The contender says `ready` when it could begin its first round, then the seconds of each round; `go` comes back for each.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from common.errors import EngineError

_TAIL = 2000


class Turnstile:
    """The contender's side. Takes over standard output: what libraries print goes to standard error."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._began = 0.0

    def ready(self) -> None:
        """The first round could begin now; wait for the word."""
        self._say("ready")

    def lap(self, peak_bytes: int = 0) -> None:
        """A round is over; say how long it took, what it took of a memory that only it sees, and wait for the next."""
        self._say(f"{time.perf_counter() - self._began!r} {peak_bytes}")

    def _say(self, word: str) -> None:
        self._answers.write(word + "\n")
        self._answers.flush()
        if not sys.stdin.readline():
            sys.exit("the benchmark has ended")
        self._began = time.perf_counter()


class Contender:
    """The benchmark's side of one contender process."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name, self._log = name, log
        self.startup_s, self.peak_bytes = 0.0, 0
        began = time.perf_counter()
        with log.open("w") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, on our own modules
                [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        if self._hear() == "ready":
            self.startup_s = time.perf_counter() - began

    @property
    def pid(self) -> int:
        return self._process.pid

    def round_s(self) -> float:
        """Have it run one round. Afterwards `peak_bytes` is what it said of it."""
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        seconds, peak_bytes = self._hear().split()
        self.peak_bytes = int(peak_bytes)
        return float(seconds)

    def close(self) -> None:
        """Let it end by itself, which a closed input tells it to."""
        self._process.communicate()

    def _hear(self) -> str:
        assert self._process.stdout
        word = self._process.stdout.readline().strip()
        if not word:
            self._process.kill()
            self.close()
            raise EngineError(f"contender '{self.name}' stopped:\n{self._log.read_text()[-_TAIL:]}")
        return word

# SPDX-License-Identifier: Apache-2.0
"""Where a run stands still because its operator wants it to: paused between rounds, stopped between two steps.

    run/pause    while this file is there, no new round is begun; one that has begun is finished
    run/stop     as soon as this file is there, nothing more is asked, and the run ends by name (RunStopped)

Both are files in the run's folder, so that they outlive every process; `fedward server pause | resume | stop` makes and removes them.
A stopped run goes on where it stood: what sites have answered is in the journal, and nothing is trained, or paid for, twice.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from common.errors import RunStopped
from server.home import PAUSE_FILE, STOP_FILE

_GLANCE_S: Final = 0.5
_TELL_S: Final = 60.0
PAUSED: Final = "paused by the coordinator's operator; no round is begun."


class Gate(Protocol):
    """What a run passes on its way."""

    def wait_until_open(self, tell: Callable[[str], None]) -> None:
        """Before a round. Says why it waits, again every minute. Raises: RunStopped."""
        ...

    def pass_by(self) -> None:
        """Before a step; a pause does not count here. Raises: RunStopped."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time go by. Raises: RunStopped."""
        ...


class Open:
    """A gate that nobody can close: in simulations."""

    def wait_until_open(self, tell: Callable[[str], None]) -> None:
        del tell

    def pass_by(self) -> None: ...

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class FolderGate:
    """The two files of a run's folder."""

    folder: Path

    def wait_until_open(self, tell: Callable[[str], None]) -> None:
        told = 0.0
        self.pass_by()
        while (self.folder / PAUSE_FILE).exists():
            if not told or time.monotonic() - told >= _TELL_S:
                told = time.monotonic()
                tell(PAUSED)
            self.sleep(_GLANCE_S)

    def pass_by(self) -> None:
        if (self.folder / STOP_FILE).exists():
            raise RunStopped(
                "the run was told to stop; what sites have answered so far is kept.", fix="Go on where it stood with: fedward server start."
            )

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.pass_by()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(_GLANCE_S, left))
            self.pass_by()

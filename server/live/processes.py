# SPDX-License-Identifier: Apache-2.0
"""What the supervisor says of the programs that a run needs, beside the status that the coordinator itself writes: run/processes.json.

Two writers, two files: the supervisor lives when the ServerApp dies, and is the one who knows that it did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter, ValidationError

from common.durable import write_atomically
from common.errors import StatusUnreadable
from common.plan.values import STRICT

PROCESSES_FILE: Final = "processes.json"

ProcessState = Literal["starting", "running", "stopped", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One program: since when it is in this state (Unix seconds), how often it was started again, and how it last ended ("signal 9")."""

    __pydantic_config__ = STRICT
    name: str
    state: ProcessState
    since: float
    restarts: int = 0
    ended: str = ""


_PROCESSES: Final[TypeAdapter[tuple[Process, ...]]] = TypeAdapter(tuple[Process, ...])


def write_processes(path: Path, processes: Sequence[Process]) -> None:
    """Replace the file. Raises: DiskFull."""
    write_atomically(path, _PROCESSES.dump_json(tuple(processes)), fsync=False)


def read_processes(path: Path) -> tuple[Process, ...]:
    """What the supervisor last wrote; nothing, where there is none. Raises: StatusUnreadable."""
    try:
        return _PROCESSES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError) as error:
        raise StatusUnreadable(
            f"'{path.name}' is not readable as a list of processes.", fix="Restart the supervisor: fedward server start."
        ) from error

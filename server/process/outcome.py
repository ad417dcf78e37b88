# SPDX-License-Identifier: Apache-2.0
"""The run's last word: what the ServerApp's process tells its supervisor, who cannot tell a refusal from a crash by looking at a process.

A process that ends without a word has died, and is started again. One that says why it ended is believed: done, stopped as it was asked to,
or refused by name. `run` is Flower's number for the attempt, so that the word of an earlier one is not taken for this one's.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from common.durable import write_atomically
from common.errors import FedwardError, RoundError

End = Literal["done", "stopped", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended; code, message and fix of the error where it was refused."""

    run: int
    end: End
    code: str = ""
    message: str = ""
    fix: str = ""

    def as_error(self) -> FedwardError:
        """What the run's process raised, in this one."""
        return _class_of(self.code)(self.message, fix=self.fix)

    def write(self, path: Path) -> None:
        """Raises: DiskFull."""
        write_atomically(path, json.dumps(asdict(self)).encode(), fsync=True)


def read(path: Path, *, run: int) -> Outcome | None:
    """The last word about this attempt; None, if there is none."""
    try:
        found = Outcome(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.run == run else None


def _class_of(code: str) -> type[FedwardError]:
    """The error with this code; an unknown one, of another version, is a round's."""
    waiting: list[type[FedwardError]] = [FedwardError]
    while waiting:
        found = waiting.pop()
        if found.code == code:
            return found
        waiting += found.__subclasses__()
    return RoundError

# SPDX-License-Identifier: Apache-2.0
"""Where a site stands, in one small file that its operator may read at any time: `status.json` in its home.

The site process writes it whole at each change; reading it asks nobody and stops nothing. Whether the process lives is not in the file,
since a killed one could not say so: `fedward site status` looks at the process's lock. No patient is in it, and no path.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Final, Literal

from common.durable import OWNER_ONLY, write_atomically
from common.errors import DiskFull, StatusUnreadable

STATUS_FILE: Final = "status.json"
FORMAT: Final = 1
_KEPT: Final = 10

State = Literal["waiting", "training", "answering", "stopping", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One message that was not answered: a code, and what it was asked for."""

    at: int
    code: str
    type: str
    round: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What patients, or records, have paid so far over all plans: as it decides (Rényi), and what is allowed."""

    unit: str
    epsilon: float
    cap: float
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A site at one moment. Times are Unix seconds; `round` is the coordinator's label of the newest message, None before the first."""

    site: str
    state: State = "waiting"
    since: int = 0
    process: int = 0
    version: str = ""
    plan: str = ""
    plan_name: str = ""
    roster_epoch: int | None = None
    type: str = ""
    round: int | None = None
    heard: int | None = None
    answered: int = 0
    refused: tuple[Refused, ...] = ()
    spent: tuple[Spent, ...] = field(default_factory=tuple)


class Board:
    """The newest status of this process, and its file. Safe to change from several threads."""

    def __init__(self, home: Path, status: Status, *, clock: Callable[[], int], power_cut_safe: bool = False) -> None:
        self._file, self._clock, self._fsync = home / STATUS_FILE, clock, power_cut_safe
        self._lock = Lock()
        self._now = status
        self.change()

    @property
    def now(self) -> Status:
        return self._now

    def change(self, **fields: Any) -> None:
        """Raises nothing: a status that cannot be written down must not cost a round."""
        with self._lock:
            if fields.get("state", self._now.state) != self._now.state:
                fields["since"] = self._clock()
            self._now = replace(self._now, **fields)
            try:
                write_atomically(self._file, _written(self._now), fsync=self._fsync, mode=OWNER_ONLY)
            except DiskFull:
                return

    def refuse(self, code: str, *, message_type: str, number: int | None) -> None:
        """Remember a refusal; only the newest few are kept."""
        refused = Refused(at=self._clock(), code=code, type=message_type, round=number)
        self.change(refused=(*self._now.refused, refused)[-_KEPT:])


def read(home: Path) -> Status | None:
    """None, where no site process ever wrote one. Raises: StatusUnreadable."""
    try:
        found = json.loads((home / STATUS_FILE).read_bytes())
        if found.pop("format") != FORMAT:
            raise ValueError
        refused = tuple(Refused(**each) for each in found.pop("refused"))
        return Status(**found | {"refused": refused, "spent": tuple(Spent(**each) for each in found["spent"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise StatusUnreadable(f"'{home / STATUS_FILE}' cannot be read.", fix="It is written anew when the site process starts.") from None


def as_json(status: Status) -> dict[str, Any]:
    return {"format": FORMAT, **asdict(status)}


def _written(status: Status) -> bytes:
    return (json.dumps(as_json(status), indent=1) + "\n").encode()

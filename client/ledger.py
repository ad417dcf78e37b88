# SPDX-License-Identifier: Apache-2.0
"""What a site has spent on each plan, across rounds and restarts.

The accountant of a privacy engine lives as long as the engine does: make a new one each round and every round looks like the first. Here
the file is the truth. Before a round trains, the event that it will cost (sampling rate, noise multiplier, steps) is appended; if all
events of the plan together would pass its epsilon, nothing is written, no image is opened, and training is refused. A reservation is never
given back: a crash after it may have trained.

The file is JSON lines, one reservation each. It is local to the site; nothing of it is sent.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from common.errors import BudgetExceeded, DiskFull, LedgerTampered
from common.plan import PrivacySpec
from common.privacy import Event, epsilon


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """One round's cost, written before it is incurred. `epsilon_after` is the sum so far at the plan's delta."""

    plan: str
    session: str
    round: int
    attempt: int
    unit: str
    event: Event
    epsilon_after: float


class Ledger:
    """The reservations of one site. Appending is the only way to change it.

    The file may be shared: several processes can serve one site. Each reservation takes the file's lock, reads what others have added,
    and only then decides, so two of them can never both spend the last of a budget.
    """

    def __init__(self, path: Path, *, power_cut_safe: bool) -> None:
        """Read an existing file or begin with an empty one. Raises: LedgerTampered, if a line does not parse."""
        self._path = path
        self._fsync = power_cut_safe
        self._entries: list[Reservation] = []
        self._read_to = 0
        if path.exists():
            with self._locked() as file:
                self._catch_up(file)

    def entries(self) -> tuple[Reservation, ...]:
        """As of the last reservation made or refused through this object."""
        return tuple(self._entries)

    def spent(self, plan: str, delta: float) -> float:
        """Epsilon of everything reserved for a plan so far; 0 if nothing."""
        return epsilon(self._events(plan), delta)

    def reserve(self, event: Event, *, spec: PrivacySpec, plan: str, session: str, number: int, attempt: int) -> Reservation:
        """Charge one round, or refuse.

        Raises: BudgetExceeded, with what was spent and what the plan allows; LedgerTampered; DiskFull.
        """
        assert spec.epsilon is not None
        assert spec.delta is not None
        with self._locked() as file:
            self._catch_up(file)
            after = epsilon([*self._events(plan), event], spec.delta)
            if after > spec.epsilon:
                spent = self.spent(plan, spec.delta)
                raise BudgetExceeded(
                    f"round {number} would bring this site to epsilon {after:.3f}; the plan allows {spec.epsilon:g}, {spent:.3f} is spent.",
                    fix="Nothing was trained. The plan's rounds, or its spare_rounds for restarts, are used up.",
                )
            reservation = Reservation(
                plan=plan, session=session, round=number, attempt=attempt, unit=spec.unit, event=event, epsilon_after=after
            )
            self._append(file, reservation)
        return reservation

    def _events(self, plan: str) -> list[Event]:
        return [entry.event for entry in self._entries if entry.plan == plan]

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        with os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file

    def _catch_up(self, file: BinaryIO) -> None:
        """Take in what other processes have added; cut off a last line that a power cut tore while it was written."""
        file.seek(self._read_to)
        whole, newline, fragment = file.read().rpartition(b"\n")
        for line in (whole + newline).splitlines():
            self._entries.append(_parse(line, f"ledger '{self._path}', line {len(self._entries) + 1}"))
        self._read_to += len(whole + newline)
        if fragment:
            # The training that it would have paid for had not begun.
            file.truncate(self._read_to)

    def _append(self, file: BinaryIO, reservation: Reservation) -> None:
        line = json.dumps(asdict(reservation), sort_keys=True).encode() + b"\n"
        try:
            file.seek(self._read_to)
            file.write(line)
            file.flush()
            if self._fsync:
                os.fsync(file.fileno())
        except OSError as error:
            raise DiskFull(
                f"ledger '{self._path}' could not be written: {error.strerror}; nothing was trained.", fix="Free some space and retry."
            ) from error
        self._read_to += len(line)
        self._entries.append(reservation)


def last_epsilon(path: Path) -> float:
    """What the newest reservation brought a site to; 0 if there is none."""
    entries = Ledger(path, power_cut_safe=False).entries()
    return entries[-1].epsilon_after if entries else 0.0


def _parse(line: bytes, where: str) -> Reservation:
    try:
        fields = json.loads(line)
        return Reservation(**{**fields, "event": Event(**fields["event"])})
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerTampered(
            f"{where} is not a reservation.", fix="Restore the file from a backup; do not delete it: what it records is spent."
        ) from error

# SPDX-License-Identifier: Apache-2.0
"""What a site has spent on each plan, across rounds and restarts.

The accountant of a privacy engine lives as long as the engine does: make a new one each round and every round looks like the first. Here
the file is the truth. Before a round trains, the event that it will cost (sampling rate, noise multiplier, steps) is appended; if all
events of the plan together would pass its epsilon, nothing is written, no image is opened, and training is refused. A reservation is never
given back: a crash after it may have trained.

The file is JSON lines, one reservation each. It is local to the site; nothing of it is sent.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

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
    """The reservations of one site. Appending is the only way to change it."""

    def __init__(self, path: Path, *, power_cut_safe: bool) -> None:
        """Read an existing file or begin with an empty one. Raises: LedgerTampered, if a line does not parse."""
        self._path = path
        self._fsync = power_cut_safe
        self._entries = _read(path)

    def entries(self) -> tuple[Reservation, ...]:
        return tuple(self._entries)

    def spent(self, plan: str, delta: float) -> float:
        """Epsilon of everything reserved for a plan so far; 0 if nothing."""
        return epsilon(self._events(plan), delta)

    def reserve(self, event: Event, *, spec: PrivacySpec, plan: str, session: str, number: int, attempt: int) -> Reservation:
        """Charge one round, or refuse. Raises: BudgetExceeded, with what was spent and what is left of the plan's epsilon."""
        assert spec.epsilon is not None
        assert spec.delta is not None
        after = epsilon([*self._events(plan), event], spec.delta)
        if after > spec.epsilon:
            before = self.spent(plan, spec.delta)
            raise BudgetExceeded(
                f"round {number} would bring this site to epsilon {after:.3f}; the plan allows {spec.epsilon:g}, {before:.3f} is spent.",
                fix="Nothing was trained. The plan's rounds, or its spare_rounds for restarts, are used up.",
            )
        reservation = Reservation(
            plan=plan, session=session, round=number, attempt=attempt, unit=spec.unit, event=event, epsilon_after=after
        )
        self._append(reservation)
        return reservation

    def _events(self, plan: str) -> list[Event]:
        return [entry.event for entry in self._entries if entry.plan == plan]

    def _append(self, reservation: Reservation) -> None:
        line = json.dumps(asdict(reservation), sort_keys=True) + "\n"
        try:
            with self._path.open("a", encoding="ascii") as file:
                file.write(line)
                file.flush()
                if self._fsync:
                    os.fsync(file.fileno())
        except OSError as error:
            raise DiskFull(
                f"ledger '{self._path}' could not be written: {error.strerror}; nothing was trained.", fix="Free some space and retry."
            ) from error
        self._entries.append(reservation)


def last_epsilon(path: Path) -> float:
    """What the newest reservation brought a site to; 0 if there is none."""
    entries = _read(path)
    return entries[-1].epsilon_after if entries else 0.0


def _read(path: Path) -> list[Reservation]:
    if not path.exists():
        return []
    entries = []
    whole, _, fragment = path.read_text(encoding="ascii").rpartition("\n")
    if fragment:
        # A power cut tore the last line while it was written: the training that it would have paid for had not begun.
        path.write_text(whole + "\n" if whole else "", encoding="ascii")
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            fields = json.loads(line)
            entries.append(Reservation(**{**fields, "event": Event(**fields["event"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise LedgerTampered(
                f"ledger '{path}', line {number} is not a reservation.",
                fix="Restore the file from a backup; do not delete it: what it records is spent.",
            ) from error
    return entries

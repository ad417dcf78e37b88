# SPDX-License-Identifier: Apache-2.0
"""An audit log as it is read: line after line, each naming the one before, signed by the key in force.

    line -> one spelling? -> next number, names the last line? -> Entry -> Chain (what has to be remembered of it)

A chain remembers a hash for each line, the key, plan and roster in force, and what was already said: enough to decide, under the file's
lock, whether there is something new to say. Since each line names the one before, a good signature on the last line vouches for all that
the same key signed; `check_signatures` looks at each all the same, for auditors.

A key comes into force by a line that it signs itself. The key before cannot vouch for it when it is lost, and need not: whoever verifies a
log asks a signed roster whose key it is (`common.audit.verify`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from common import spelling
from common.audit.entries import (
    SPELLING,
    Departed,
    Entry,
    Fact,
    Opened,
    Paused,
    PlanFollowed,
    Refused,
    Rekeyed,
    Resumed,
    RosterAdopted,
    Started,
    Stopped,
)
from common.errors import AuditTampered
from common.secagg.keys import signature_holds

KEEP_IT: Final = "Move the file away, keep it, and start again: a new log begins, and what others saw of the old one stays with them."
MOST_REFUSALS: Final = 256
"""In a row. Whoever can send a site nonsense could otherwise fill its disk; something that was answered starts the count anew."""


@dataclass(slots=True, kw_only=True)
class Chain:
    """The running state of one log; empty until its first line."""

    name: str
    digests: list[bytes] = field(default_factory=list)
    opened: Opened | None = None
    key: str = ""
    plan: str = ""
    roster: str = ""
    refusals: int = 0
    _said: set[bytes] = field(default_factory=set)
    _numbers: dict[bytes, int] = field(default_factory=dict)
    _last: Entry | None = None

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def head(self) -> bytes:
        """The hash of the last line: what others are shown of this log."""
        return self.digests[-1]

    @property
    def prev(self) -> str:
        """What the next line names."""
        return self.digests[-1].hex() if self.digests else spelling.FIRST

    def number(self, head: bytes) -> int | None:
        """The line with that hash, counted from 0; None, if it is not of this log."""
        return self._numbers.get(head)

    def news(self, facts: Iterable[Fact]) -> list[Fact]:
        """Those of the facts that the log does not say yet, or that may be said each time they happen."""
        return [fact for fact in facts if self._is_new(fact)]

    def _is_new(self, fact: Fact) -> bool:
        match fact:
            case Started() | Stopped() | Paused() | Resumed() | Departed():
                return True
            case Refused():
                return self.refusals < MOST_REFUSALS
            case PlanFollowed():
                return fact.plan != self.plan
            case RosterAdopted():
                return fact.roster != self.roster
            case _:
                return _mark(fact) not in self._said

    def extend(self, line: bytes) -> Entry:
        """Take in the next line, without its newline. Raises: AuditTampered; the chain is then as it was."""
        try:
            entry = SPELLING.parse(line)
        except ValueError:
            raise self._tampered("is no entry") from None
        if (entry.seq, entry.prev) != (len(self), self.prev):
            raise self._tampered(f"is number {entry.seq} after {entry.prev[:12]}, expected number {len(self)} after {self.prev[:12]}")
        if isinstance(entry.fact, Opened) != (not self.digests):
            raise self._tampered("does not continue the log that line 1 opened")
        self.take(line, entry)
        return entry

    def take(self, line: bytes, entry: Entry) -> None:
        """Go on to an entry that continues this log, such as one that was just made for it."""
        self._apply(entry)
        self.digests.append(spelling.digest(line))
        self._numbers[self.digests[-1]] = entry.seq
        self._last = entry

    def check_last_signature(self) -> None:
        """Raises: AuditTampered, unless the key in force signed the last line."""
        assert self._last is not None
        self._check_signature(self._last)

    def check_signatures(self, lines: Iterable[bytes]) -> list[Entry]:
        """Take in lines and look at each signature. Raises: AuditTampered."""
        found = []
        for line in lines:
            found.append(self.extend(line))
            self._check_signature(found[-1])
        return found

    def _check_signature(self, entry: Entry) -> None:
        if not signature_holds(bytes.fromhex(self.key), bytes.fromhex(entry.sig), SPELLING.signed_text(entry)):
            raise AuditTampered(f"{self.name}, line {entry.seq + 1} is not signed by the key in force there.", fix=KEEP_IT)

    def _apply(self, entry: Entry) -> None:
        self.refusals = self.refusals + 1 if isinstance(entry.fact, Refused) else 0
        match entry.fact:
            case Opened() as fact:
                self.opened, self.key = fact, fact.key
            case Rekeyed() as fact:
                self.key = fact.key
            case PlanFollowed() as fact:
                self.plan = fact.plan
            case RosterAdopted() as fact:
                self.roster = fact.roster
            case fact:
                self._said.add(_mark(fact))

    def _tampered(self, complaint: str) -> AuditTampered:
        return AuditTampered(f"{self.name}, line {len(self) + 1} {complaint}.", fix=KEEP_IT)


def lines_of(data: bytes) -> list[bytes]:
    """The whole lines of a file; a fragment after the last newline is left out, as a power cut leaves it."""
    whole, newline, _ = data.rpartition(b"\n")
    return whole.split(b"\n") if newline else []


def _mark(fact: Fact) -> bytes:
    """A fact in sixteen bytes: a log of years is kept in mind in a few megabytes."""
    return spelling.digest(spelling.render(fact))[:16]

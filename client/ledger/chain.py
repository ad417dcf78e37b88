# SPDX-License-Identifier: Apache-2.0
"""A ledger as it is read: line after line, each naming the one before, and what they add up to.

    line -> one spelling? -> next number, names the last line? -> Entry -> Chain (running totals)

A chain is what a process keeps in mind of a ledger: a hash for each line, the tally, the caps in force, the snapshots in force, who is
excluded. It holds no line twice and is extended by new lines alone, so a reservation costs the same on the first day and the last.

Since each line names the one before, a good signature on the last line vouches for every line: nobody can have changed an earlier one
without a collision of SHA-256. `check_signatures` looks at each all the same, for `verify` and for auditors.

A *position* is where a chain has come to: its branch, the number of its last line, and that line's hash. Branch 0 is the first; each time
an older copy is put back the ledger goes on as a new branch, named by the second in which that was done, so that the numbers of lines
lost are never mistaken for those of lines written since.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from common.errors import LedgerFormat, LedgerTampered
from common.privacy import entries
from common.privacy.entries import (
    FORMAT,
    Caps,
    Entry,
    Excluded,
    Opened,
    Overridden,
    PlanSeen,
    Rekeyed,
    Restored,
    Snapshotted,
    Spent,
    Tallied,
    Voided,
)
from common.privacy.tally import Tally
from common.secagg.keys import signature_holds

RESTORE_BACKUP = "Restore the file from a backup; do not delete it: what it records is spent."


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a ledger stands. `head` is the hash of line `seq`."""

    branch: int
    seq: int
    head: bytes


@dataclass(slots=True, kw_only=True)
class Chain:
    """The running state of one ledger; empty until its first line."""

    name: str
    digests: list[bytes] = field(default_factory=list)
    opened: Opened | None = None
    namespace: str = ""
    key: str = ""
    caps: Caps = field(default_factory=Caps)
    tally: Tally = field(default_factory=Tally)
    plans: dict[str, PlanSeen] = field(default_factory=dict)
    snapshots: dict[str, Snapshotted] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    voided: dict[int, str] = field(default_factory=dict)
    _branches: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    _lost: dict[int, int] = field(default_factory=dict)
    _signer: str = ""
    _last: Entry | None = None

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def last(self) -> Entry:
        assert self._last is not None
        return self._last

    @property
    def branch(self) -> int:
        return self._branches[-1][0]

    @property
    def prev(self) -> str:
        """What the next line names."""
        return self.digests[-1].hex() if self.digests else entries.FIRST

    @property
    def position(self) -> Position:
        return Position(branch=self.branch, seq=len(self) - 1, head=self.digests[-1])

    def holds(self, branch: int, seq: int, head: bytes) -> bool:
        """Whether a line of this site's is one of these, or one whose loss was charged. `head` may be the beginning of its hash."""
        starts = [*self._branches, (-1, len(self))]
        for (own, first), (_, following) in pairwise(starts):
            if own == branch and first <= seq < following and self.digests[seq].startswith(head):
                return True
        return seq <= self._lost.get(branch, -1)

    def extend(self, line: bytes) -> Entry:
        """Take in the next line, without its newline. Raises: as `examine`; the chain is then as it was."""
        entry = self.examine(line)
        self.take(line, entry)
        return entry

    def examine(self, line: bytes) -> Entry:
        """Whether a line can come next, but for its signature. Raises: LedgerTampered, LedgerFormat."""
        entry = self._read(line)
        if (entry.seq, entry.prev) != (len(self), self.prev):
            raise self._tampered(f"is number {entry.seq} after {entry.prev[:12]}, expected number {len(self)} after {self.prev[:12]}")
        if isinstance(entry.fact, Opened) != (not self.digests) or entry.namespace != (self.namespace or entry.namespace):
            raise self._tampered("does not continue the ledger that line 1 opened")
        match entry.fact:
            case Voided() as fact if fact.entry >= entry.seq:
                raise self._tampered("remarks on a line that comes after it")
            case Rekeyed() as fact if not _consented(fact, self.key):
                raise self._tampered("names a key that did not consent")
            case Restored() as fact if fact.branch in dict(self._branches) or fact.branch in self._lost:
                raise self._tampered("opens a branch that there was already")
        return entry

    def take(self, line: bytes, entry: Entry) -> None:
        """Go on to an entry that was examined."""
        self._signer = entry.fact.key if isinstance(entry.fact, Opened) else self.key
        self._apply(entry)
        self.digests.append(entries.digest(line))
        self._last = entry

    def check_last_signature(self) -> None:
        """Whether the last line, and by its hash every line before it, was signed here. Raises: LedgerTampered."""
        self._check_signature(self.last)

    def check_signatures(self, lines: Iterable[bytes]) -> list[Entry]:
        """Take in lines and look at each signature. Raises: LedgerTampered, LedgerFormat."""
        found = []
        for line in lines:
            found.append(self.extend(line))
            self._check_signature(found[-1])
        return found

    def _check_signature(self, entry: Entry) -> None:
        if not signature_holds(bytes.fromhex(self._signer), bytes.fromhex(entry.sig), entries.signed_text(entry)):
            raise LedgerTampered(f"{self.name}, line {entry.seq + 1} is not signed by this ledger's key.", fix=RESTORE_BACKUP)

    def _read(self, line: bytes) -> Entry:
        try:
            return entries.parse(line)
        except ValueError as error:
            if other := _other_format(line):
                raise LedgerFormat(
                    f"{self.name}, line {len(self) + 1} is {other}; this version reads format {FORMAT}.",
                    fix="Keep the file, it records what was spent; read it with the version that wrote it.",
                ) from None
            raise self._tampered("is no entry") from error

    def _apply(self, entry: Entry) -> None:
        match entry.fact:
            case Opened() as fact:
                self.opened, self.namespace, self.key, self.caps = fact, entry.namespace, fact.key, fact.caps
            case PlanSeen() as fact:
                self.plans[fact.plan] = fact
            case Spent() as fact:
                self.tally.add(Tallied(unit=fact.unit, plan=fact.plan, charge=fact.charge, times=1))
            case Snapshotted() as fact:
                self.snapshots[fact.dataset] = fact
            case Excluded() as fact:
                self.excluded.setdefault(fact.mark, entry.seq)
            case Overridden() as fact:
                self.caps = fact.caps
            case Voided() as fact:
                self.voided[fact.entry] = fact.reason
            case Rekeyed() as fact:
                self.key = fact.key
            case Restored() as fact:
                self._restore(entry.seq, fact)

    def _restore(self, seq: int, fact: Restored) -> None:
        self._branches.append((fact.branch, seq))
        self._lost[fact.lost_branch] = max(fact.lost_through, self._lost.get(fact.lost_branch, -1))
        for charged in fact.charges:
            self.tally.add(charged)
        for mark in fact.excluded:
            self.excluded.setdefault(mark, seq)

    def _tampered(self, complaint: str) -> LedgerTampered:
        return LedgerTampered(f"{self.name}, line {len(self) + 1} {complaint}.", fix=RESTORE_BACKUP)


def read(data: bytes, *, name: str) -> tuple[Chain, list[Entry]]:
    """A whole ledger's bytes, every signature looked at; a fragment after the last newline is left out, as a power cut leaves it.

    Raises: LedgerTampered, LedgerFormat.
    """
    chain = Chain(name=name)
    whole, _, _ = data.rpartition(b"\n")
    return chain, chain.check_signatures(whole.split(b"\n") if whole else [])


def _consented(fact: Rekeyed, old_key: str) -> bool:
    return signature_holds(bytes.fromhex(fact.key), bytes.fromhex(fact.consent), entries.consent_text(old_key, fact.key))


def _other_format(line: bytes) -> str:
    """What another version of fedward wrote, by name; empty if nothing is recognised."""
    if line.startswith(b'{"attempt"') and b'"epsilon_after"' in line:
        return "of fedward 0.1, without chain and signature"
    _, marked, version = line.rpartition(b'"v":')
    if line.startswith(b'{"code"') and marked and version[:-1].isdigit() and int(version[:-1]) != FORMAT:
        return f"of format {int(version[:-1])}"
    return ""

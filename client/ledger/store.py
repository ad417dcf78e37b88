# SPDX-License-Identifier: Apache-2.0
"""The ledger's file: appended to under a lock, on the disk before anything that it pays for is done.

    lock -> read what others added -> sealed head agrees? -> decide -> append, fsync -> seal the head -> unlock

Several processes may serve one site, and two commands may be typed at once; each takes the file's lock, reads what the others have added
and only then decides, so two of them can never both spend the last of a budget. Nothing is believed from memory but what was read and
verified before. A last line that a power cut tore is cut off, if the sealed head has not seen it whole: what it would have paid for had
not begun. Nothing is ever taken back: a crash after a reservation may have trained.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from client.ledger import head as sealed
from client.ledger import witness
from client.ledger.chain import RESTORE_BACKUP, Chain
from client.ledger.gate import Limits, decide
from common import failpoints
from common.appended import LineFile
from common.durable import OWNER_ONLY, folder_locked, write_atomically
from common.errors import LedgerRollback, LedgerTampered
from common.privacy import entries
from common.privacy.entries import SPELLING, Caps, Entry, Fact, Opened, PlanSeen, Spent, Use
from common.privacy.events import Charge
from common.secagg.keys import SigningKey
from common.version import code_version


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a ledger lies, and where its sealed head does."""

    file: Path
    head: Path

    @property
    def sent(self) -> Path:
        """How far updates have left, masked (client.ledger.sent)."""
        return self.head.with_suffix(".sent")

    @property
    def witness(self) -> Path:
        """What a peer remembers and the ledger does not."""
        return self.file.with_suffix(".witness")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pen:
    """Who writes, and how surely. `clock` gives Unix seconds."""

    signer: SigningKey
    clock: Callable[[], int]
    power_cut_safe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What a charge is for. `snapshot` is the manifest of the data that it may open."""

    kind: Use = "RESERVE"
    plan: str
    session: str
    round: int
    attempt: int
    snapshot: str


def _gladly(_chain: Chain) -> None:
    """Whoever charges has nothing to ask of the ledger."""


class Ledger:
    """One site's ledger of one set of patients. Appending is the only way to change it."""

    def __init__(self, place: Place, pen: Pen, *, compare_head: bool = True) -> None:
        """Open a ledger and read all of it. Only `recovery` opens one without asking its sealed head.

        Raises: LedgerRollback where there is none or it is shorter than it was; LedgerTampered, LedgerFormat.
        """
        self._place, self._pen, self._compare_head = place, pen, compare_head
        self._chain = Chain(name=f"ledger '{place.file}'")
        self._file = LineFile(place.file, power_cut_safe=pen.power_cut_safe)
        self._head: bytes | None = None
        with self._locked():
            pass

    @classmethod
    def found(cls, place: Place, pen: Pen, *, site: str, namespace: str, caps: Caps, after_loss: bool = False) -> "Ledger":
        """Begin a ledger; `after_loss`, beside the sealed head of one that is gone, for `recovery` to make good.

        Raises: LedgerRollback, where there is one already, or was one; DiskFull.
        """
        chain = Chain(name=f"ledger '{place.file}'")
        opened = Opened(site=site, key=pen.signer.public.hex(), caps=caps)
        first = Entry(seq=0, prev=chain.prev, t_utc=_stamp(pen.clock()), namespace=namespace, code=code_version(), fact=opened)
        line = SPELLING.signed(first, pen.signer.sign)
        chain.extend(line)
        with ExitStack() as held:
            try:
                held.enter_context(folder_locked(place.file.parent))
            except OSError as error:
                raise LedgerRollback(
                    f"the folder of ledger '{place.file}' cannot be opened: {error.strerror}.",
                    fix="Mount it, or make it and give it to this user; [ledger] folder in site.toml says where.",
                ) from None
            _check_free(place, pen, after_loss=after_loss)
            if not after_loss:
                # The head first: a crash in between leaves a head of one line, over which a ledger may be begun again.
                sealed.write(place.head, sealed.head_of(chain, pen.signer), power_cut_safe=pen.power_cut_safe)
            write_atomically(place.file, line + b"\n", fsync=pen.power_cut_safe, mode=OWNER_ONLY)
        return cls(place, pen, compare_head=not after_loss)

    @property
    def chain(self) -> Chain:
        """As of the last look at the file."""
        return self._chain

    def refresh(self) -> Chain:
        """Read what other processes have added. Raises: LedgerRollback, LedgerTampered."""
        with self._locked():
            return self._chain

    def reserve(
        self,
        charge: Charge,
        occasion: Occasion,
        limits: Limits,
        *,
        words: PlanSeen | None = None,
        permit: Callable[[Chain], None] = _gladly,
    ) -> Entry:
        """Charge one release, or refuse. `words` are the plan's, written before its first charge.

        `permit` is asked under the lock, since others write too: what they wrote a moment ago holds for this charge. It raises to refuse.

        Guarantees: when it returns, the charge is on the disk; when it raises BudgetExceeded, nothing was written.
        Raises: BudgetExceeded, with the numbers; LedgerRollback, LedgerTampered; DiskFull; what `permit` raises.
        """
        with self._locked():
            witness.check(self._place.witness, self._chain)
            permit(self._chain)
            after = decide(self._chain.tally, charge, limits, what=f"round {occasion.round}")
            if words is not None and words.plan not in self._chain.plans:
                self._write(words)
            return self._write(
                Spent(
                    kind=occasion.kind,
                    plan=occasion.plan,
                    session=occasion.session,
                    round=occasion.round,
                    attempt=occasion.attempt,
                    unit="record" if limits.unit == "record" else "patient",
                    snapshot=occasion.snapshot,
                    charge=charge,
                    after=after,
                ),
            )

    def note(self, decide: Callable[[Chain], Fact | None]) -> Entry | None:
        """Write a fact that costs nothing, decided on under the lock; nothing, if there is nothing to say.

        Raises: LedgerRollback, LedgerTampered, DiskFull, and what `decide` raises.
        """
        with self._locked():
            fact = decide(self._chain)
            return None if fact is None else self._write(fact)

    def take_key(self, signer: SigningKey) -> Entry:
        """Go on under another identity key, which the present one names. Raises: as `note`."""
        consent = signer.sign(entries.consent_text(self._chain.key, signer.public.hex())).hex()
        with self._locked():
            entry = self._write(entries.Rekeyed(key=signer.public.hex(), consent=consent))
            self._pen = replace(self._pen, signer=signer)
            self._seal()
        return entry

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """While everything in the file is read and agrees with its sealed head."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self._file.locked())
            except OSError as error:
                raise LedgerRollback(
                    f"ledger '{self._place.file}' cannot be opened: {error.strerror}.",
                    fix="A new site opens one: fedward site ledger open. If it was lost: fedward site ledger restore --help.",
                ) from None
            self._catch_up()
            yield

    def _catch_up(self) -> None:
        """Take in what other processes have added; compare with the sealed head; cut off a last line that a power cut tore."""
        if self._file.has_shrunk:
            raise LedgerRollback(f"{self._chain.name} has become shorter while it was in use.", fix=sealed.PUT_BACK)
        lines, torn = self._file.added()
        if lines:
            self._take_in(lines)
        if not len(self._chain):
            raise LedgerTampered(f"{self._chain.name} is empty.", fix=RESTORE_BACKUP)
        if self._compare_head:
            self._check_head(grown=bool(lines))
        if torn:
            self._file.cut_torn_line()

    def _take_in(self, lines: list[bytes]) -> None:
        for line in lines:
            self._chain.extend(line)
            self._file.took(line)
        self._chain.check_last_signature()
        if self._chain.key != self._pen.signer.public.hex():
            raise LedgerTampered(
                f"{self._chain.name} is signed by key {self._chain.key[:16]}, this site's is {self._pen.signer.public.hex()[:16]}.",
                fix="After a new identity key: fedward site ledger rekey --help. Otherwise: " + RESTORE_BACKUP,
            )

    def _check_head(self, *, grown: bool) -> None:
        content, name = sealed.read(self._place.head), str(self._place.head)
        if content is not None and content == self._head and not grown:
            return
        found = None if content is None else sealed.parse(content, public=self._pen.signer.public, name=name)
        sealed.check(self._chain, found, name=name)
        self._head = content
        if found is not None and found.position != self._chain.position:
            self._seal()

    def _write(self, fact: Fact) -> Entry:
        chain = self._chain
        unsigned = Entry(
            seq=len(chain),
            prev=chain.prev,
            t_utc=_stamp(self._pen.clock()),
            namespace=chain.namespace,
            code=code_version(),
            fact=fact,
        )
        line = SPELLING.signed(unsigned, self._pen.signer.sign)
        entry = chain.examine(line)
        self._file.append(line, what="the ledger")
        chain.take(line, entry)
        failpoints.reach("after_ledger_line")
        self._seal()
        return entry

    def _seal(self) -> None:
        content = sealed.head_of(self._chain, self._pen.signer)
        sealed.write(self._place.head, content, power_cut_safe=self._pen.power_cut_safe)
        self._head = content


def _check_free(place: Place, pen: Pen, *, after_loss: bool) -> None:
    content = sealed.read(place.head)
    begun = content is not None and sealed.parse(content, public=pen.signer.public, name=str(place.head)).seq == 0
    if place.file.exists() or (content is not None and not begun and not after_loss):
        raise LedgerRollback(
            f"there is a ledger at '{place.file}', or the sealed head of one at '{place.head}'.",
            fix="A ledger is opened once. If it was lost: fedward site ledger restore --help.",
        )


def _stamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

# SPDX-License-Identifier: Apache-2.0
"""An audit log on disk, as both ends keep it: what is new is said once, signed, and on the disk before the call returns.

    lock -> read what others added -> which of these facts are new? -> append all of them at once, fsync -> unlock

Facts of one moment go out in one write and one fsync. Saying a fact again writes nothing, so whoever was killed between an act and its
line says it again when it comes by the next time, and the log has it once.

What this protects: what was written, against anybody who edits the file later. What it does not: whoever holds the identity key and
changes this program can write what they like; that their peers were told otherwise is what `common.audit.verify` finds.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from common import spelling
from common.appended import LineFile
from common.audit.chain import KEEP_IT, Chain
from common.audit.entries import SPELLING, Entry, Fact, Opened, Rekeyed, Role
from common.durable import OWNER_ONLY
from common.errors import AuditTampered
from common.secagg.keys import SigningKey

LOG_FILE: Final = "audit.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pen:
    """Who writes, and how surely. `clock` gives Unix seconds."""

    role: Role
    name: str
    signer: SigningKey
    clock: Callable[[], float]
    power_cut_safe: bool


class Log:
    """One party's log. Appending is the only way to change it; it is begun by the first thing that there is to say."""

    def __init__(self, path: Path, pen: Pen) -> None:
        self._pen, self._key = pen, pen.signer.public.hex()
        self._file = LineFile(path, power_cut_safe=pen.power_cut_safe)
        self._chain = Chain(name=f"audit log '{path}'")

    def read(self) -> Chain:
        """The log as it stands now, begun if there was none. Raises: AuditTampered, DiskFull."""
        with self._locked():
            return self._chain

    def say(self, *facts: Fact) -> Chain:
        """Write those of the facts that are new. Raises: AuditTampered, DiskFull; then nothing that they say may be acted on."""
        return self.decide(lambda _: facts)

    def decide(self, what: Callable[[Chain], tuple[Fact, ...]]) -> Chain:
        """The same, decided on under the lock. Raises: as `say`."""
        with self._locked() as chain:
            self._append(*chain.news(what(chain)))
            return chain

    @contextmanager
    def _locked(self) -> Iterator[Chain]:
        with suppress(FileExistsError):
            os.close(os.open(self._file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, OWNER_ONLY))
        with ExitStack() as stack:
            try:
                stack.enter_context(self._file.locked())
            except OSError as error:
                raise AuditTampered(f"{self._chain.name} cannot be opened: {error.strerror}.", fix=KEEP_IT) from None
            self._catch_up()
            yield self._chain

    def _catch_up(self) -> None:
        if self._file.has_shrunk:
            raise AuditTampered(f"{self._chain.name} has become shorter while it was in use.", fix=KEEP_IT)
        lines, torn = self._file.added()
        try:
            self._take_in(lines)
        except AuditTampered:
            self._chain, self._file.read_to = Chain(name=self._chain.name), 0  # the next look begins at the first line again
            raise
        if torn:
            self._file.cut_torn_line()
        if not len(self._chain):
            self._append(Opened(role=self._pen.role, name=self._pen.name, key=self._key))
        elif self._chain.key != self._key:
            self._append(Rekeyed(key=self._key))

    def _take_in(self, lines: list[bytes]) -> None:
        for line in lines:
            self._chain.extend(line)
            self._file.took(line)
        if lines:
            self._chain.check_last_signature()

    def _append(self, *facts: Fact) -> None:
        if not facts:
            return
        made: list[tuple[bytes, Entry]] = []
        seq, prev = len(self._chain), self._chain.prev
        stamp = datetime.fromtimestamp(int(self._pen.clock()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for fact in facts:
            entry = Entry(seq=seq, prev=prev, t_utc=stamp, fact=fact)
            line = SPELLING.signed(entry, self._pen.signer.sign)
            made.append((line, entry))
            seq, prev = seq + 1, spelling.digest(line).hex()
        self._file.append(*(line for line, _ in made), what="the audit log")
        for line, entry in made:
            self._chain.take(line, entry)

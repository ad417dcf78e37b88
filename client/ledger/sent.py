# SPDX-License-Identifier: Apache-2.0
"""How far this site's updates have left, masked: written beside the sealed head, apart from the attempts that they belong to.

    MASK   record is on the disk -> here: where in its session, under which T2 -> audit log -> the vector leaves

A charge pays for one sum. Where an update stands is in `fsa1/`, and a copy of that folder that is put back, from a backup or with a whole
machine, may not know that the update has left: it would be masked again, for another cohort, and be in two sums for one charge. So how far
each session had come is kept here too, best on another mount (`[ledger] head` in site.toml), and a record of attempts that is older is
refused. No line of the ledger says it, since a leaving costs nothing, and lines that peers have seen are what is charged after a loss.

Not caught: a machine that is rolled back whole, this file with it, between two attempts of one round. Peers know of what it had announced
before (`client.ledger.echo`), and nothing is announced between masking and the next attempt.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.durable import Newest, folder_locked
from common.errors import AlreadyMasked, CheckpointCorrupt, MessageFormat
from common.secagg import codec
from common.secagg.codec import Bytes16, Bytes32
from common.secagg.memory import place
from common.secagg.stages import Confirmed, GivenUp, Keyed, MaskedOut, Shared, Stage
from common.secagg.terms import Kind

_SESSIONS_KEPT: Final = 64
"""As many as a record remembers (common.secagg.memory)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The last place of a session at which a masked update left, and T2, which its masks are keyed by."""

    session: Bytes16
    round: int
    kind: Kind
    attempt: int
    transcript: Bytes32

    @property
    def place(self) -> tuple[int, int, int]:
        return place(self.round, self.kind, self.attempt)


class SentUpdates:
    """One site's. Homes that share a ledger share this file, so it is locked by its folder."""

    def __init__(self, path: Path, *, power_cut_safe: bool) -> None:
        self._path = path
        self._file = Newest(path.parent, path.name, fsync=power_cut_safe)

    def check(self, stage: Stage) -> None:
        """Whether a stage knows of all that has left in its session. Raises: AlreadyMasked, CheckpointCorrupt."""
        if not isinstance(stage, Keyed | Shared | MaskedOut | Confirmed | GivenUp):
            return
        with self._locked():
            last = _of(self._read(), stage.tag.session)
        if last is None or last.place < _place(stage) or (last.place == _place(stage) and _knows(stage, last)):
            return
        raise AlreadyMasked(
            f"{last.kind.name} of round {last.round} left masked in attempt {last.attempt}; the record of this site's attempts is older "
            f"than that.",
            fix="fsa1/ was put back from a copy. The update that it has is not used again: the next attempt trains anew and is paid for.",
        )

    def note(self, stage: MaskedOut | Confirmed) -> None:
        """Before a masked update leaves, each time that it does. Raises: AlreadyMasked, CheckpointCorrupt, DiskFull; then it may not."""
        self.check(stage)
        tag = stage.tag
        sent = Sent(session=tag.session, round=tag.round, kind=stage.kind, attempt=tag.attempt, transcript=_masks_of(stage))
        with self._locked():
            known = self._read()
            if sent not in known:
                others = tuple(each for each in known if each.session != sent.session)
                self._file.write(codec.write((*others, sent)[-_SESSIONS_KEPT:]))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(folder_locked(self._path.parent))
            except OSError as error:
                raise CheckpointCorrupt(
                    f"the folder of '{self._path}-*' cannot be opened: {error.strerror}.",
                    fix="Mount it where site.toml says ([ledger] head).",
                ) from None
            yield

    def _read(self) -> tuple[Sent, ...]:
        content = self._file.read()
        try:
            return () if content is None else codec.read(tuple[Sent, ...], content)
        except MessageFormat as error:
            raise CheckpointCorrupt(
                f"'{self._path}-*', which says how far this site's updates have left, is torn.",
                fix="Put it back. Without it, remove it and everything in fsa1/ but the lock; then the site trains anew.",
            ) from error


def _of(known: tuple[Sent, ...], session: bytes) -> Sent | None:
    return next((each for each in known if each.session == session), None)


def _place(stage: Keyed | Shared | MaskedOut | Confirmed | GivenUp) -> tuple[int, int, int]:
    return place(stage.tag.round, stage.kind, stage.tag.attempt)


def _knows(stage: Keyed | Shared | MaskedOut | Confirmed | GivenUp, last: Sent) -> bool:
    """Whether a stage at the same place is of the attempt in which the update left."""
    if isinstance(stage, GivenUp):
        return bool(stage.masked_with)
    return isinstance(stage, MaskedOut | Confirmed) and _masks_of(stage) == last.transcript


def _masks_of(stage: MaskedOut | Confirmed) -> bytes:
    return stage.transcript if isinstance(stage, MaskedOut) else stage.mask_transcript

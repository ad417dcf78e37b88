# SPDX-License-Identifier: Apache-2.0
"""What a site remembers beyond one attempt: enough to refuse a round that is over and a model that came from nowhere.

Within a round statistics, evaluation and update have their turns, and what had its turn is over. All that is asked in a round is about
one model: a coordinator that had one judged and another trained would learn about two.

All lists are bounded, so that a site's state stays small for years; the oldest entries fall out. A round of a forgotten session is not
thereby accepted: its tag names a roster and a model, which must still be the current one and one that was seen.
"""

from dataclasses import dataclass, replace
from typing import Final

from common.secagg.codec import Bytes16, Bytes32
from common.secagg.messages import RoundTag
from common.secagg.terms import Kind

_SESSIONS_KEPT: Final = 64
_MODELS_KEPT: Final = 256
_TAGS_KEPT: Final = 16


def place(round_number: int, kind: Kind, attempt: int) -> tuple[int, int, int]:
    """Where in a session something is asked."""
    return round_number, kind.turn, attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a session has come, and which model its newest round is about."""

    session: Bytes16
    round: int
    kind: Kind
    attempt: int
    model: Bytes32

    @property
    def place(self) -> tuple[int, int, int]:
        """Later is greater."""
        return place(self.round, self.kind, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """`over` names attempts that ended without release, by their tags."""

    marks: tuple[Mark, ...] = ()
    models: tuple[Bytes32, ...] = ()
    over: tuple[Bytes32, ...] = ()
    roster_epoch: int = 0

    @property
    def models_seen(self) -> frozenset[bytes]:
        return frozenset(self.models)

    def mark(self, session: bytes) -> Mark | None:
        return next((mark for mark in self.marks if mark.session == session), None)

    def accept(self, tag: RoundTag, kind: Kind, *, roster_epoch: int) -> "Memory":
        """After a header was found good. Only a model that came along and was checked is a model seen; its digest alone is a claim."""
        mark = Mark(session=tag.session, round=tag.round, kind=kind, attempt=tag.attempt, model=tag.model)
        others = tuple(each for each in self.marks if each.session != tag.session)
        models = (*(each for each in self.models if each != tag.model), tag.model) if kind.has_model else self.models
        return replace(
            self,
            marks=(*others, mark)[-_SESSIONS_KEPT:],
            models=models[-_MODELS_KEPT:],
            roster_epoch=max(self.roster_epoch, roster_epoch),
        )

    def end(self, tag: RoundTag) -> "Memory":
        """After an attempt was given up or overtaken."""
        return replace(self, over=(*self.over, tag.rt)[-_TAGS_KEPT:])

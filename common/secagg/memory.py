# SPDX-License-Identifier: Apache-2.0
"""What a site remembers beyond one attempt: enough to refuse a round that is over and a model that came from nowhere.

All lists are bounded, so that a site's state stays small for years; the oldest entries fall out. A round of a forgotten session is not
thereby accepted: its tag names a roster and a model, which must still be the current one and one that was seen.
"""

from dataclasses import dataclass, replace
from typing import Final

from common.secagg.codec import Bytes16, Bytes32
from common.secagg.messages import RoundTag

_SESSIONS_KEPT: Final = 64
_MODELS_KEPT: Final = 256
_TAGS_KEPT: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a session has come."""

    session: Bytes16
    round: int
    attempt: int


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

    def accept(self, tag: RoundTag, *, roster_epoch: int, with_model: bool) -> "Memory":
        """After a header was found good. Only a model that came along and was checked is a model seen; its digest alone is a claim."""
        mark = Mark(session=tag.session, round=tag.round, attempt=tag.attempt)
        others = tuple(each for each in self.marks if each.session != tag.session)
        models = (*(each for each in self.models if each != tag.model), tag.model) if with_model else self.models
        return replace(
            self,
            marks=(*others, mark)[-_SESSIONS_KEPT:],
            models=models[-_MODELS_KEPT:],
            roster_epoch=max(self.roster_epoch, roster_epoch),
        )

    def end(self, tag: RoundTag) -> "Memory":
        """After an attempt was given up or overtaken."""
        return replace(self, over=(*self.over, tag.rt)[-_TAGS_KEPT:])

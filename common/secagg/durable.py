# SPDX-License-Identifier: Apache-2.0
"""A site's record as bytes, and back: what its owner writes down after every step, before the reply leaves.

Two byte strings, because they change at different speeds: the record is a few kilobytes and is written at every step; the update is as
large as the model and is written once, when the site joins. Reading back checks a digest over the record, and the update against the
commitment that was announced, so a torn or exchanged file is refused rather than masked. A record of the version before is read; an update
that it has is forgotten, since it does not say on which grid that lies.

The record holds the attempt's secrets: its file must be readable by the site process alone, and is overwritten when the stage changes.
"""

from typing import Final

import numpy as np

from common import canonical
from common.errors import CheckpointCorrupt, MessageFormat
from common.secagg import codec
from common.secagg.memory import Memory
from common.secagg.messages import Keys
from common.secagg.quantise import QuantisedUpdate
from common.secagg.site import Answer, Record
from common.secagg.stages import Confirmed, GivenUp, Invited, Keyed, Listening, MaskedOut, Released, Shared, Stage

_TITLE: Final = b"FSA1 site record 3\n"
_BEFORE: Final = b"FSA1 site record 2\n"
"""In which a stage that has an update did not say which grid it lies on; all else is the same."""
_WORDS: Final = {size.to_bytes(8, "big"): np.dtype(name) for size, name in ((2, "uint16"), (4, "uint32"))}
_KINDS: Final[tuple[type[Stage], ...]] = (Listening, Invited, Keyed, Shared, MaskedOut, Confirmed, Released, GivenUp)
_WITHOUT_UPDATE: Final = (Listening, Invited, Released)


def save_record(record: Record) -> bytes:
    """The record without its update."""
    parts = (
        bytes([_KINDS.index(type(record.stage))]),
        codec.write(record.memory),
        codec.write(record.stage),
        codec.write(record.answers),
    )
    body = canonical.length_prefixed(*parts)
    return _TITLE + canonical.digest(_TITLE, body) + body


def living_update(record: Record) -> QuantisedUpdate | None:
    """The update that must be kept beside the record, if there is one."""
    return getattr(record.stage, "update", None)


def save_update(update: QuantisedUpdate) -> tuple[bytes, memoryview]:
    """In two parts, which stand one behind the other."""
    return update.weight.to_bytes(8, "big") + update.body.itemsize.to_bytes(8, "big"), update.to_bytes()


def load_update(data: bytes | memoryview) -> QuantisedUpdate:
    """A view of `data`, which may be a mapped file. Raises: CheckpointCorrupt for bytes that are no whole number of words."""
    word = _WORDS.get(bytes(data[8:16]))
    if word is None or (len(data) - 16) % word.itemsize:
        raise _corrupt("update", "has no whole number of ring words")
    body = np.frombuffer(data, dtype=word.newbyteorder("<"), offset=16).astype(word, copy=False)
    return QuantisedUpdate(body=body, weight=int.from_bytes(data[:8], "big"))


def load_record(data: bytes, *, update: QuantisedUpdate | None = None, check_update: bool = True) -> Record:
    """Raises: CheckpointCorrupt for a torn or altered record, or an update that is missing or is not the one it committed to.

    Comparing with the commitment reads the whole update: without `check_update`, whoever uses the update must have it compared first.
    """
    title, body = data[: len(_TITLE)], data[len(_TITLE) + 32 :]
    if title not in (_TITLE, _BEFORE) or data[len(_TITLE) : len(_TITLE) + 32] != canonical.digest(title, body):
        raise _corrupt("record", "fails its digest")
    try:
        kind, memory, stage, answers = _split(body)
        if title == _BEFORE and _KINDS[kind[0]] not in _WITHOUT_UPDATE:
            kind, stage, answers = bytes([_KINDS.index(Listening)]), b"", codec.write(())  # as if burnt
        record = Record(
            memory=codec.read(Memory, memory, what="the memory"),
            stage=codec.read(_KINDS[kind[0]], stage, what="the stage", apart={"update": update}),
            answers=codec.read(tuple[Answer, ...], answers, what="the answers"),
        )
    except (MessageFormat, IndexError, ValueError) as error:
        raise _corrupt("record", "does not parse") from error
    _check_update(record, compare=check_update)
    return record


def _check_update(record: Record, *, compare: bool) -> None:
    stage = record.stage
    if isinstance(stage, Listening | Invited | Released):
        return
    salt = stage.salt if isinstance(stage, GivenUp) else stage.secrets.salt
    committed = codec.read(Keys, stage.announcement.body).commitment
    if stage.update is None or (compare and stage.update.commitment(salt) != committed):
        raise _corrupt("update", "is not the one that this site committed to")


def _split(body: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    parts, at = [], 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        parts.append(body[at + 4 : at + 4 + size])
        at += 4 + size
    kind, memory, stage, answers = parts
    return kind, memory, stage, answers


def _corrupt(what: str, complaint: str) -> CheckpointCorrupt:
    return CheckpointCorrupt(
        f"the stored {what} of this attempt {complaint}.",
        fix="Forget the attempt; the site trains again in the next round, under a new reservation.",
    )

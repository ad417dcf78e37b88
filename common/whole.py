# SPDX-License-Identifier: Apache-2.0
"""A small message in one piece.

Flower takes each message apart: what announces it is one call, each of its pieces another, and each call costs a SuperLink five to ten
milliseconds of SQL and whoever made it a trip over the line. A step of the protocol is three pieces of a few hundred bytes. But the message
that announces them has room for content of its own, which the SuperLink keeps and hands out with it, from the time when there were no
pieces.

A small message travels there. Its tree is one object that names the content, since a message is known by the digest of its object; that
object is announced and never handed in, for nobody asks for it, so the message is there as soon as it is announced. To a stock SuperNode,
which reads pieces alone, it would be a message that never comes. So a coordinator that reads whole answers says so with the label of its
question, and asks whole who has answered whole. Flower forgets an announcement when its object is asked for in vain after
three minutes, and otherwise keeps five short rows of it until the run ends.
"""

from dataclasses import dataclass
from typing import Any, Final

from flwr.app import Error, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import ErrorCode
from flwr.common.serde import message_to_proto, recorddict_from_proto
from flwr.supercore.inflatable.inflatable_object import get_object_tree, no_object_id_recompute

from common.records import size_of

LARGEST: Final = 1 << 16
"""Bytes of content, so that what a thin line has to send again stays small."""
_LARGEST_ENCODED: Final = 2 * LARGEST


_MARK: Final = "+whole"


def inviting(label: str) -> str:
    """A question's label (Flower's group_id), by which an answer may come whole."""
    return label + _MARK


def is_inviting(label: str) -> bool:
    return label.endswith(_MARK)


def plain(label: str) -> str:
    """The label for people.

    >>> plain(inviting("12")), plain("12")
    ('12', '12')
    """
    return label.removesuffix(_MARK)


@dataclass(frozen=True)
class Whole:
    """A message as Flower is told of it, content and all, and its tree of one object."""

    proto: Any
    tree: Any

    @property
    def message_id(self) -> str:
        return str(self.proto.metadata.message_id)


def is_small(content: RecordDict) -> bool:
    """Whether a message with this content may travel whole."""
    return size_of(content) <= LARGEST


def whole(metadata: Metadata, content: RecordDict) -> Whole:
    """The same content under the same metadata is the same message."""
    with no_object_id_recompute():
        name = make_message(metadata=metadata, error=Error(code=ErrorCode.UNKNOWN, reason=content.object_id))
        metadata.__dict__["_message_id"] = name.object_id
        tree = get_object_tree(name)
    return Whole(proto=message_to_proto(make_message(metadata=metadata, content=content)), tree=tree)


def is_whole(proto: Any) -> bool:
    """Whether a message that is announced has its content with it."""
    return bool(proto.HasField("content") and len(proto.content.items))


def content_in(proto: Any) -> RecordDict | None:
    """The content that came with a message; None, if it comes in pieces, or is larger than any that is sent like this.

    Raises whatever Flower's parsers raise at a stranger's bytes.
    """
    if not is_whole(proto) or proto.content.ByteSize() > _LARGEST_ENCODED:
        return None
    return recorddict_from_proto(proto.content)

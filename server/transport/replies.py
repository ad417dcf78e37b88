# SPDX-License-Identifier: Apache-2.0
"""Taking replies from a SuperLink: whole, or one piece after another.

One look asks for any number of replies, and finds the small ones whole (`common.whole`). A larger one is announced before its pieces are
there. Flower's own `pull_messages` then waits a second for each piece, next time two, up to ten, and says nothing until all are in, so that
nobody can tell a slow upload from a dead one. Here pieces are asked for at a pace of our own, whoever waits is told of each that has come,
and a look ends as soon as nobody waits for it any more. Pieces are as large as the sender makes them: 1 MB from our mailbox, 5 MB from a
stock SuperNode. A site that sends more than any answer can have is not listened to: no more of it is taken than the limit.

The calls are those of flwr's `HttpGrid`, and private; flwr is pinned, and `tests/server/test_replies.py` holds the names to it. Any other
grid is asked in Flower's own way, and shows nothing.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx
from flwr.app import Message, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError, inflate_object_from_contents
from flwr.superlink.grid.http_grid import HttpGrid

from common.pieces import unfolded_size
from common.whole import content_in

_FIRST_S: Final = 0.02
_LONGEST_S: Final = 0.5
_MOST_PIECES: Final = 1 << 16


class ReplyLost(Exception):
    """A reply that was announced will not come whole: its sender went away, or Flower forgot it."""


class ReplyTooLarge(Exception):
    """A reply has more pieces, or bytes, than an answer can have."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A reply, all of it; `whole`: it came in one piece."""

    message: Message
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Announced:
    """A reply that is to be taken piece by piece: its id, and its tree of pieces."""

    reply_id: str
    tree: ObjectTree


Found = Arrived | Announced


class Taker(Protocol):
    """How replies are taken.

    `shows_progress`: whether `moved` is called whenever some of one has come; `at_once`: how many are looked for in one call at most.
    """

    @property
    def shows_progress(self) -> bool: ...

    @property
    def at_once(self) -> int: ...

    def look(self, message_ids: Sequence[str]) -> dict[str, Found]:
        """What there is, by the message that it answers. Raises: what the network raises."""
        ...

    def take(self, announced: Announced, *, moved: Callable[[], None], is_over: Callable[[], bool]) -> Arrived | None:
        """The pieces of a reply; None, if it `is_over`. Raises: ReplyLost, ReplyTooLarge; what the network raises."""
        ...


def taker_of(grid: Grid, *, most_bytes: int) -> Taker:
    """`most_bytes`: no more of a reply is taken than this; Flower's own way knows no such limit."""
    return FromSuperLink(grid, most_bytes=most_bytes) if isinstance(grid, HttpGrid) else FromGrid(grid)


class FromGrid:
    """Flower's own way, which finds no reply that is not all there."""

    shows_progress = False
    at_once = 1

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def look(self, message_ids: Sequence[str]) -> dict[str, Found]:
        return {reply.metadata.reply_to_message_id: Arrived(reply) for reply in self._grid.pull_messages(message_ids)}

    def take(self, announced: Announced, *, moved: Callable[[], None], is_over: Callable[[], bool]) -> Arrived | None:
        raise AssertionError("nothing is announced here")


class FromSuperLink:
    """All in one look, and what is in pieces piece by piece."""

    shows_progress = True
    at_once = 256

    def __init__(self, grid: HttpGrid, *, most_bytes: int, sleep: Callable[[float], None] = time.sleep) -> None:
        self._grid, self._most_bytes, self._sleep = grid, most_bytes, sleep

    def look(self, message_ids: Sequence[str]) -> dict[str, Found]:
        seen = self._grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        found: dict[str, Found] = {}
        for announced, tree in zip(seen.messages_list, seen.message_object_trees, strict=True):
            if announced.metadata.reply_to_message_id in message_ids:
                found[announced.metadata.reply_to_message_id] = _found(announced, tree)
        return found

    def take(self, announced: Announced, *, moved: Callable[[], None], is_over: Callable[[], bool]) -> Arrived | None:
        pieces = self._pieces({each.object_id for each in iterate_object_tree(announced.tree)}, moved, is_over)
        if pieces is None:
            return None
        with suppress(httpx.HTTPError):  # it costs the SuperLink disk, and must not cost us what took an hour to come
            self._grid._runtime_client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self._grid.node, run_id=self._grid.run.run_id, message_object_id=announced.reply_id)
            )
        return Arrived(_put_together(announced.reply_id, pieces, self._most_bytes))

    def _pieces(self, wanted: set[str], moved: Callable[[], None], is_over: Callable[[], bool]) -> dict[str, bytes] | None:
        """All of them; None, if that is no longer wanted. Raises: ReplyLost, ReplyTooLarge."""
        if len(wanted) > _MOST_PIECES:
            raise ReplyTooLarge
        pull = make_pull_object_fn_protobuf(self._grid._runtime_client.PullObject, self._grid.node, self._grid.run.run_id)
        pieces: dict[str, bytes] = {}
        pause_s, room = _FIRST_S, self._most_bytes
        while missing := wanted.difference(pieces):
            for object_id in missing:
                if is_over():
                    return None
                try:
                    pieces[object_id] = pull(object_id)
                except ObjectUnavailableError:
                    continue
                except ObjectPullError as error:
                    raise ReplyLost from error
                if (room := room - len(pieces[object_id])) < 0:
                    raise ReplyTooLarge
                pause_s = _FIRST_S
                moved()
            if len(pieces) < len(wanted):
                self._sleep(pause_s)
                pause_s = min(_LONGEST_S, pause_s * 1.5)
        return pieces


def _found(announced: Any, tree: ObjectTree) -> Found:
    try:
        content = content_in(announced)
        if content is None:
            return Announced(announced.metadata.message_id, tree)
        bare = ProtoMessage(metadata=announced.metadata)
        bare.content.SetInParent()
        return Arrived(make_message(metadata=message_from_proto(bare).metadata, content=content), whole=True)
    except Exception:  # Flower's parsers raise whatever a stranger's bytes make them raise
        return Arrived(_without_content(), whole=True)


def _put_together(reply_id: str, pieces: dict[str, bytes], most_bytes: int) -> Message:
    """Of pieces that a stranger made: a reply without content, if they make none. Raises: ReplyTooLarge."""
    try:
        if unfolded_size(pieces) > most_bytes:
            raise ReplyTooLarge
        reply = inflate_object_from_contents(reply_id, pieces)
    except ReplyTooLarge:
        raise
    except Exception:  # whatever their bytes make Flower's parsers raise
        return _without_content()
    return reply if isinstance(reply, Message) else _without_content()


def _without_content() -> Message:
    """What stands for a reply that cannot be read: no message of ours has no content, so who judges it refuses it by name."""
    return make_message(metadata=Metadata(0, "", 0, 0, "", "", 0.0, 1.0, "query"), content=RecordDict())

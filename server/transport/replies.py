# SPDX-License-Identifier: Apache-2.0
"""Taking one reply from a SuperLink, piece by piece.

A reply is announced before its pieces are there. Flower's own `pull_messages` then waits a second for each piece, next time two, up to ten,
and says nothing until all are in; so a small message costs a second more whenever somebody looks a moment too early, and nobody can tell a
slow upload from a dead one. Here pieces are asked for at a pace of our own, whoever waits is told of each that has come, and a look ends
as soon as nobody waits for it any more. Pieces are as large as the sender makes them: 1 MB from our mailbox, 5 MB from a stock SuperNode.
A site that sends more than any answer can have is not listened to: no more of it is taken than the limit.

The calls are those of flwr's `HttpGrid`, and private; flwr is pinned, and `tests/server/test_replies.py` holds the names to it. Any other
grid is asked in Flower's own way, and shows nothing.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

from flwr.app import Message
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError, inflate_object_from_contents
from flwr.superlink.grid.http_grid import HttpGrid

_FIRST_S: Final = 0.02
_LONGEST_S: Final = 0.5
_MOST_PIECES: Final = 1 << 16


class ReplyLost(Exception):
    """A reply that was announced will not come whole: its sender went away, or Flower forgot it."""


class ReplyTooLarge(Exception):
    """A reply has more pieces, or bytes, than an answer can have."""


class Taker(Protocol):
    """How a reply is taken. `shows_progress`: whether `moved` is called whenever some of it has come."""

    @property
    def shows_progress(self) -> bool: ...

    def take(self, message_id: str, *, moved: Callable[[], None], is_over: Callable[[], bool]) -> Message | None:
        """The reply to a message; None, if there is none yet or it `is_over`. Raises: ReplyLost, ReplyTooLarge; what the network raises."""
        ...


def taker_of(grid: Grid, *, most_bytes: int) -> Taker:
    """`most_bytes`: no more of a reply is taken than this; Flower's own way knows no such limit."""
    return FromSuperLink(grid, most_bytes=most_bytes) if isinstance(grid, HttpGrid) else FromGrid(grid)


class FromGrid:
    """Flower's own way."""

    shows_progress = False

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def take(self, message_id: str, *, moved: Callable[[], None], is_over: Callable[[], bool]) -> Message | None:
        del moved, is_over
        found = self._grid.pull_messages([message_id])
        return next((reply for reply in found if reply.metadata.reply_to_message_id == message_id), None)


class FromSuperLink:
    """Piece by piece."""

    shows_progress = True

    def __init__(self, grid: HttpGrid, *, most_bytes: int, sleep: Callable[[float], None] = time.sleep) -> None:
        self._grid, self._most_bytes, self._sleep = grid, most_bytes, sleep

    def take(self, message_id: str, *, moved: Callable[[], None], is_over: Callable[[], bool]) -> Message | None:
        found = self._grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=[message_id]))
        for announced, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            if announced.metadata.reply_to_message_id != message_id:
                continue
            moved()
            reply_id = announced.metadata.message_id
            pieces = self._pieces({each.object_id for each in iterate_object_tree(tree)}, moved, is_over)
            if pieces is None:
                return None
            self._grid._runtime_client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self._grid.node, run_id=self._grid.run.run_id, message_object_id=reply_id)
            )
            reply = inflate_object_from_contents(reply_id, pieces)
            assert isinstance(reply, Message)
            reply.metadata.__dict__["_message_id"] = reply_id
            return reply
        return None

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

# SPDX-License-Identifier: Apache-2.0
"""Handing questions to a grid: whole to whoever reads them so, in Flower's pieces to anybody else.

Our mailbox answers whole what may be answered so (`common.whole`), and that it does shows that it can be asked whole; a stock SuperNode
knows pieces alone. So the first question to a node goes in pieces, and again any that it did not answer.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx
from flwr.app import Message
from flwr.proto.runtime_pb2 import PushAppMessagesRequest
from flwr.serverapp import Grid
from flwr.superlink.grid.http_grid import HttpGrid

from common.whole import inviting, is_small, whole


@dataclass(frozen=True, slots=True)
class HandedIn:
    """The ids of messages that were taken, and of those among them that went whole."""

    taken: frozenset[str]
    whole: frozenset[str] = frozenset()


class Giver(Protocol):
    """How messages are handed in."""

    def label(self, group: str) -> str:
        """What a question's group is called on this grid."""
        ...

    def give(self, messages: Sequence[Message], *, readers: Container[int]) -> HandedIn:
        """Hand in what can be handed in. `readers`: nodes that read small messages whole.

        Raises: ObjectPushError, what the network raises.
        """
        ...


def giver_of(grid: Grid) -> Giver:
    return ToSuperLink(grid) if isinstance(grid, HttpGrid) else ToGrid(grid)


class ToGrid:
    """Flower's own way."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def label(self, group: str) -> str:
        return group

    def give(self, messages: Sequence[Message], *, readers: Container[int]) -> HandedIn:
        del readers
        return HandedIn(frozenset(self._grid.push_messages(messages)))


class ToSuperLink:
    """Whole where that is possible."""

    def __init__(self, grid: HttpGrid) -> None:
        self._grid = grid

    def label(self, group: str) -> str:
        return inviting(group)

    def give(self, messages: Sequence[Message], *, readers: Container[int]) -> HandedIn:
        small: list[Message] = []
        rest: list[Message] = []
        for each in messages:
            (small if each.metadata.dst_node_id in readers and is_small(each.content) else rest).append(each)
        taken = frozenset(self._grid.push_messages(rest)) if rest else frozenset()
        try:
            whole_ones = self._give_whole(small) if small else frozenset()
        except httpx.HTTPError:
            if not rest:
                raise
            whole_ones = frozenset()  # what was taken already must not be forgotten for these, which are asked again
        return HandedIn(taken | whole_ones, whole_ones)

    def _give_whole(self, messages: Sequence[Message]) -> frozenset[str]:
        given = [whole(each.metadata, each.content) for each in messages]
        request = PushAppMessagesRequest(messages_list=[each.proto for each in given], message_object_trees=[each.tree for each in given])
        return frozenset(self._grid._runtime_client.PushMessages(request).message_ids)

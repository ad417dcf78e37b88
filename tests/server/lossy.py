# SPDX-License-Identifier: Apache-2.0
"""A network that loses, duplicates, delays and interrupts, in virtual time: Flower's behaviour as `server.transport.inquiry` has to live
with it.

A `Sea` is a grid. What happens to each delivery to a node is its next `Fate`; when there is none left, the node answers after a second.
`Tides` look for replies in no time at all: they move the clock instead. As in Flower, a reply is handed out once, a second look for the
same id finds an error, and a look does not end before the reply is uploaded.
"""

import heapq
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count

from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from server.transport.inquiry import Key, Replies
from server.transport.looks import Seen

SESSION_S = 180.0
"""How long Flower waits for an upload that stalls."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What becomes of one delivery: `lost`, or answered after so long, with an upload of so long, which may `stall`, or an error."""

    lost: bool = False
    after_s: float = 1.0
    upload_s: float = 0.0
    stalls: bool = False
    error: int | None = None


@dataclass(slots=True)
class Node:
    """A mailbox: the fates of its next messages, and when it is away."""

    fates: list[Fate] = field(default_factory=list)
    away: tuple[float, float] = (math.inf, math.inf)
    asked_at: list[float] = field(default_factory=list)


class Sea:
    """A grid of nodes over such a network."""

    def __init__(self, clock: Clock, nodes: Mapping[int, Node]) -> None:
        self._clock, self.nodes = clock, dict(nodes)
        self._ids = count(1)
        self._replies: dict[str, tuple[float, Fate, Message]] = {}
        self._known: dict[str, Message] = {}
        self.took_s = 0.0

    def is_away(self, node: int) -> bool:
        start, end = self.nodes[node].away
        return start <= self._clock.now - 1000.0 < end

    def get_node_ids(self) -> list[int]:
        return [node for node in self.nodes if not self.is_away(node)]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            message_id, number = f"m{next(self._ids)}", message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = message_id
            node = self.nodes[number]
            node.asked_at.append(self._clock.now)
            self._known[message_id] = message
            ids.append(message_id)
            fate = node.fates.pop(0) if node.fates else Fate()
            if not fate.lost and not self.is_away(number):
                self._replies[message_id] = (self._clock.now + fate.after_s, fate, _reply(message, fate))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """One id; `took_s` says how long the call would have lasted."""
        [message_id] = message_ids
        self.took_s = 0.0
        message = self._known.get(message_id)
        if message is None:
            raise AssertionError("a look for what was never asked")
        if message.content is _TAKEN:
            return [_error(message, ErrorCode.MESSAGE_UNAVAILABLE)]
        if message_id in self._replies and self._replies[message_id][0] <= self._clock.now:
            _, fate, reply = self._replies.pop(message_id)
            self._known[message_id] = _taken(message)
            self.took_s = fate.upload_s + (SESSION_S if fate.stalls else 0.0)
            return [_error(message, ErrorCode.MESSAGE_UNAVAILABLE) if fate.stalls else reply]
        if self.is_away(message.metadata.dst_node_id):
            self._replies.pop(message_id, None)
            self._known[message_id] = _taken(message)
            return [_error(message, ErrorCode.NODE_UNAVAILABLE)]
        return []


class Tides:
    """`server.transport.looks.Looks` in virtual time."""

    def __init__(self, clock: Clock, sea: Sea) -> None:
        self._clock, self._sea = clock, sea
        self._ends: list[tuple[float, int, Seen[Key, Replies]]] = []
        self._order = count()

    def begin(self, key: Key, look: Callable[[], Replies]) -> None:
        try:
            seen: Seen[Key, Replies] = Seen(key, look())
        except Exception as error:  # as the threads carry it
            seen = Seen(key, None, error)
        heapq.heappush(self._ends, (self._clock.now + self._sea.took_s, next(self._order), seen))

    def next(self, timeout_s: float) -> Seen[Key, Replies] | None:
        if self._ends and self._ends[0][0] <= self._clock.now + timeout_s:
            end, _, seen = heapq.heappop(self._ends)
            self._clock.now = max(self._clock.now, end)
            return seen
        self._clock.now += max(timeout_s, 1e-3)
        return None

    @property
    def unread(self) -> int:
        return sum(end <= self._clock.now for end, _, _ in self._ends)


_TAKEN = RecordDict({"taken": ConfigRecord({"yes": 1})})


def _taken(message: Message) -> Message:
    taken = Message(_TAKEN, message.metadata.dst_node_id, message.metadata.message_type)
    taken.metadata.__dict__["_message_id"] = message.metadata.message_id
    return taken


def _reply(message: Message, fate: Fate) -> Message:
    if fate.error is not None:
        return _error(message, fate.error)
    return Message(message.content, reply_to=message)


def _error(message: Message, code: int) -> Message:
    return Message(Error(code=code, reason="as Flower says"), reply_to=message)

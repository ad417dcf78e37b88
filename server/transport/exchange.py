# SPDX-License-Identifier: Apache-2.0
"""One question to many sites: push, then hand out each answer as it arrives, until all are in or patience has run out.

Flower's own `send_and_receive` polls every three seconds and returns all answers at the end. Here a grid that loses nothing and can wait
for the next reply (the simulation engine) is waited on; any other is a network, which loses messages, and is asked as
`server.transport.inquiry` says. Error replies do not name the site that failed (flower-facts), so every reply is mapped back by the message
that it answers.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from server.transport.inquiry import Answer, Inquiry, Key, Pace, Replies
from server.transport.looks import ThreadedLooks

_WAIT_S = 0.2
MOST_BYTES = 1 << 30
"""A plan's largest model, 10^8 parameters of four bytes, and more than twice as much again."""

__all__ = ["Answer", "CancellingGrid", "Line", "Pace", "WaitingGrid"]


@runtime_checkable
class WaitingGrid(Protocol):
    """A grid that can sleep until a reply is there."""

    def wait(self, timeout_s: float) -> bool: ...


@runtime_checkable
class CancellingGrid(Protocol):
    """A grid that can take a question back, and free whoever is busy with it."""

    def cancel(self, message_ids: Iterable[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class Line:
    """A grid, to those who only ask."""

    grid: Grid
    pace: Pace = field(default_factory=Pace)
    most_bytes: int = MOST_BYTES
    """No more of one reply is taken: a site that sends without end fills no memory here."""
    readers: set[int] = field(default_factory=set)
    """Nodes that answer whole, and so can be asked whole."""

    def ask(
        self,
        question: str,
        contents: Mapping[int, RecordDict],
        *,
        group: str,
        deadline_s: float,
        expected_s: float = 0.0,
        until: Callable[[], float] = lambda: math.inf,
    ) -> Iterator[Answer]:
        """Ask each node its own content; yield answers in order of arrival. Nodes that are silent to the end yield nothing.

        The end is the deadline, or earlier: as soon as the time that `until` gives (on the monotonic clock) is past, which is looked at
        between answers. A message's time to live is the deadline: what comes later is not delivered by Flower, and not awaited here.
        `expected_s` is how long an answer may well take: nobody is asked again for mere silence before that.
        """
        if isinstance(self.grid, WaitingGrid):
            yield from self._wait_for(question, contents, group=group, deadline_s=deadline_s, until=until)
            return
        with closing(ThreadedLooks[Key, Replies]()) as looks:
            inquiry = Inquiry(
                self.grid,
                question,
                group=group,
                deadline_s=deadline_s,
                expected_s=expected_s,
                looks=looks,
                pace=self.pace,
                most_bytes=self.most_bytes,
                readers=self.readers,
            )
            yield from inquiry.answers(contents, until=until)

    def _wait_for(
        self, question: str, contents: Mapping[int, RecordDict], *, group: str, deadline_s: float, until: Callable[[], float]
    ) -> Iterator[Answer]:
        """On a grid that loses nothing: asked once, and every error is final."""
        assert isinstance(self.grid, WaitingGrid)
        messages = [Message(content, node, question, ttl=deadline_s, group_id=group) for node, content in contents.items()]
        nodes = [message.metadata.dst_node_id for message in messages]
        awaited = dict(zip(self.grid.push_messages(messages), nodes, strict=True))
        last = time.monotonic() + deadline_s
        while awaited and time.monotonic() < (end := min(last, until())):
            arrived = False
            for reply in self.grid.pull_messages(list(awaited)):
                node = awaited.pop(reply.metadata.reply_to_message_id, None)
                if node is None:
                    continue
                arrived = True
                if reply.has_error():
                    yield Answer(node=node, content=None, failure=reply.error.reason or f"transport error {reply.error.code}")
                else:
                    yield Answer(node=node, content=reply.content)
            if awaited and not arrived:
                self.grid.wait(min(_WAIT_S, max(0.0, end - time.monotonic())))
        if awaited and isinstance(self.grid, CancellingGrid):
            self.grid.cancel(list(awaited))

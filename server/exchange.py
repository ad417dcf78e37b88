# SPDX-License-Identifier: Apache-2.0
"""One question to many sites: push, then hand out each answer as it arrives, until all are in or patience has run out.

Flower's own `send_and_receive` polls every three seconds and returns all answers at the end. Here replies are pulled at our own pace:
a grid that can wait for the next reply (the simulation engine) is waited on, any other is polled. Error replies do not name the site that
failed (flower-facts), so every reply is mapped back by the message that it answers.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one node said: `content`, or `failure` in the transport's words (never shown to other sites)."""

    node: int
    content: RecordDict | None
    failure: str = ""


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

    def ask(
        self,
        question: str,
        contents: Mapping[int, RecordDict],
        *,
        group: str,
        deadline_s: float,
        until: Callable[[], float] = lambda: math.inf,
    ) -> Iterator[Answer]:
        """Ask each node its own content; yield answers in order of arrival. Nodes that are silent to the end yield nothing.

        The end is the deadline, or earlier: as soon as the time that `until` gives (on the monotonic clock) is past, which is looked at
        between answers. A message's time to live is the deadline: what comes later is not delivered by Flower, and not awaited here.
        """
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
                _pause(self.grid, min(_POLL_S, max(0.0, end - time.monotonic())))
        if awaited and isinstance(self.grid, CancellingGrid):
            self.grid.cancel(list(awaited))


def _pause(grid: Grid, timeout_s: float) -> None:
    if isinstance(grid, WaitingGrid):
        grid.wait(timeout_s)
    else:
        time.sleep(timeout_s)

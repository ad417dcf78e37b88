# SPDX-License-Identifier: Apache-2.0
"""One question to many sites: push, then hand out each answer as it arrives, until all are in or the deadline has passed.

Flower's own `send_and_receive` polls every three seconds and returns all answers at the end. Here replies are pulled at our own pace:
a grid that can wait for the next reply (the simulation engine) is waited on, any other is polled. Error replies do not name the site that
failed (flower-facts), so every reply is mapped back by the message that it answers.
"""

import time
from collections.abc import Iterator, Mapping
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


def ask(grid: Grid, question: str, contents: Mapping[int, RecordDict], *, group: str, deadline_s: float) -> Iterator[Answer]:
    """Ask each node its own content; yield answers in order of arrival. Nodes still silent at the deadline yield nothing.

    The message's time to live is the deadline: what comes later is not delivered by Flower, and not awaited by us.
    """
    messages = [Message(content, node, question, ttl=deadline_s, group_id=group) for node, content in contents.items()]
    nodes = [message.metadata.dst_node_id for message in messages]
    awaited = dict(zip(grid.push_messages(messages), nodes, strict=True))
    end = time.monotonic() + deadline_s
    while awaited and time.monotonic() < end:
        arrived = False
        for reply in grid.pull_messages(list(awaited)):
            node = awaited.pop(reply.metadata.reply_to_message_id, None)
            if node is None:
                continue
            arrived = True
            if reply.has_error():
                yield Answer(node=node, content=None, failure=reply.error.reason or f"transport error {reply.error.code}")
            else:
                yield Answer(node=node, content=reply.content)
        if awaited and not arrived:
            _pause(grid, min(_POLL_S, max(0.0, end - time.monotonic())))


@dataclass(frozen=True, slots=True)
class Line:
    """A grid, to those who only ask."""

    grid: Grid

    def ask(self, question: str, contents: Mapping[int, RecordDict], *, group: str, deadline_s: float) -> Iterator[Answer]:
        """As the function."""
        return ask(self.grid, question, contents, group=group, deadline_s=deadline_s)


def _pause(grid: Grid, timeout_s: float) -> None:
    if isinstance(grid, WaitingGrid):
        grid.wait(timeout_s)
    else:
        time.sleep(timeout_s)

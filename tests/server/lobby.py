# SPDX-License-Identifier: Apache-2.0
"""A grid on which nothing happens but greetings."""

import math
import time
from collections.abc import Iterable

from flwr.app import Message

from common import wire


class Lobby:
    """A grid of nodes that say a site's name when they are greeted, or refuse (None); `takes_s` has those that need their time."""

    def __init__(self, names: dict[int, str | None]) -> None:
        self.names = names
        self.greeted: list[list[int]] = []
        self.takes_s: dict[int, float] = {}
        self._replies: dict[str, tuple[float, Message]] = {}

    def get_node_ids(self) -> list[int]:
        return list(self.names)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed = list(messages)
        self.greeted.append([message.metadata.dst_node_id for message in pushed])
        for message in pushed:
            message_id = f"{len(self._replies)}"
            message.metadata.__dict__["_message_id"] = message_id
            name = self.names[message.metadata.dst_node_id]
            refusal = wire.encode_refusal(wire.Refusal(site="", code="E_PLAN_NOT_APPROVED"))
            content = refusal if name is None else wire.encode_hello_reply(wire.HelloReply(site=name))
            there = time.monotonic() + self.takes_s.get(message.metadata.dst_node_id, -math.inf)
            self._replies[message_id] = there, Message(content, reply_to=message)
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        there = [self._replies[each] for each in message_ids]
        return [message for since, message in there if since <= time.monotonic()]

    def wait(self, timeout_s: float) -> bool:
        time.sleep(min(timeout_s, 0.02))
        return False

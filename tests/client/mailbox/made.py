# SPDX-License-Identifier: Apache-2.0
"""A SuperLink's messages without a SuperLink, and a link that fails as it is told."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree

from client.mailbox.carrier import Carrier
from client.mailbox.flower import LinkDown, NotAccepted, Reply, Taken, content_of
from client.mailbox.retrying import Pace
from client.mailbox.settings import Settings
from client.mailbox.tally import Tally
from client.process import events, serve
from common import envelope, wire
from common.envelope import Envelope, Head, Shape
from common.whole import inviting, whole
from common.wire import Content

NODE = 77
RUN = 5
LARGE = 1 << 16
INVITING = inviting("1")
MASK = wire.SECURE["MASK"]


def step(control: bytes = b"control", *, values: int = 0) -> Content:
    model = np.arange(values, dtype=np.float32) if values else None
    return wire.encode_secure_request(wire.SecureRequest(round=1, control=control, model=model))


@dataclass
class FakeLink:
    """Holds objects as a SuperLink does, by their digests. `trouble` is what the next calls of a name raise, one after the other."""

    node: int = NODE
    objects: dict[str, bytes] = field(default_factory=dict)
    trouble: dict[str, list[Exception]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    announced: list[Reply] = field(default_factory=list)
    sessions: int = 0
    tried_again: int = 0
    now: int = 0
    most: int = 0
    """Calls for large parts under way, and the most that there were at once."""
    slow_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def message(
        self,
        message_type: str,
        content: RecordDict,
        *,
        ttl: float = 600,
        tried: int = 0,
        in_pieces: bool = True,
        label: str = inviting("1"),
    ) -> Taken:
        """A message for this node, whose objects are there. Another `tried` is the same question, asked again."""
        metadata = Metadata(RUN, "", 1, NODE, "", label, 1_780_000_000.0 + tried, ttl, message_type)
        if not in_pieces:
            sent = whole(metadata, content)
            response = PullMessagesResponse(messages_list=[sent.proto], message_object_trees=[sent.tree])
            return Taken(node=self.node, raw=response.SerializeToString())
        message = make_message(metadata=metadata, content=content)
        message.metadata.__dict__["_message_id"] = message.object_id
        self.objects.update({name: each.deflate() for name, each in get_all_nested_objects(message).items()})
        bare = message_to_proto(remove_content_from_message(message))
        response = PullMessagesResponse(messages_list=[bare], message_object_trees=[get_object_tree(message)])
        return Taken(node=self.node, raw=response.SerializeToString())

    def fetch(self, run_id: int, object_id: str) -> bytes:
        self._called("fetch")
        assert run_id == RUN
        if object_id not in self.objects:
            raise NotAccepted
        with self._under_way(self.objects[object_id]):
            return self.objects[object_id]

    def announce(self, reply: Reply) -> tuple[set[str], str]:
        self._called("announce")
        with self.lock:
            self.announced.append(reply)
            self.sessions += 1
            return {each for each in reply.objects if each not in self.objects}, f"session {self.sessions}"

    def push(self, run_id: int, session: str, object_id: str, content: bytes) -> bool:
        try:
            self._called("push")
        except NotAccepted:
            return False  # as a SuperLink says that a session is over
        assert run_id == RUN
        assert session in {f"session {number + 1}" for number in range(self.sessions)}
        assert hashlib.sha256(content).hexdigest() == object_id
        with self._under_way(content):
            self.objects[object_id] = content
        return True

    def confirm(self, taken: Taken) -> None:
        self._called("confirm")

    @contextmanager
    def again(self) -> Iterator[None]:
        self.tried_again += 1
        yield

    def answers(self) -> list[dict[str, Any]]:
        """The fields of every answer that arrived whole."""
        found = []
        for reply in self.announced:
            ids = list(reply.objects)
            if all(each in self.objects for each in ids):
                message = reply.push.messages_list[0]
                raw = PullMessagesResponse(messages_list=[message], message_object_trees=reply.push.message_object_trees)
                content = content_of(Taken(node=NODE, raw=raw.SerializeToString()), dict(self.objects))
                found.append({"to": message.metadata.reply_to_message_id, **content["fedward"]})
        return found

    def count(self, name: str) -> int:
        return self.calls.count(name)

    @contextmanager
    def _under_way(self, content: bytes) -> Iterator[None]:
        large = len(content) > LARGE
        with self.lock:
            self.now += large
            self.most = max(self.most, self.now)
        time.sleep(self.slow_s)
        yield
        with self.lock:
            self.now -= large

    def _called(self, name: str) -> None:
        with self.lock:
            self.calls.append(name)
            if self.trouble.get(name):
                raise self.trouble[name].pop(0)


def down(times: int) -> list[Exception]:
    return [LinkDown() for _ in range(times)]


@dataclass
class FakeSite:
    """Answers at a socket; `say` may take its time."""

    say: Callable[[Head], dict[str, Any]]
    vector: bytes = b""
    heard: list[Envelope] = field(default_factory=list)

    def converse(self, arriving: Iterator[bytes], context: Any) -> Iterator[bytes]:
        del context
        got = envelope.read(arriving, largest_vector=1 << 24)
        self.heard.append(got)
        size = len(self.vector)
        shape = Shape(stype="fedward.u4", dtype="uint32", size=size // 4, num_bytes=size) if size else None
        head = Head(message_type=got.head.message_type, fields=self.say(got.head), vector=shape)
        yield from envelope.pieces(Envelope(head=head, data=self.vector))


def obliging(head: Head) -> dict[str, Any]:
    return {"version": 1, "type": "secure.reply", "site": "north", "control": head.fields["control"]}


@contextmanager
def at_the_socket(socket: Path, say: Callable[[Head], dict[str, Any]] = obliging, *, vector: bytes = b"") -> Iterator[FakeSite]:
    site = FakeSite(say, vector)
    server = serve.listen(site.converse, socket)
    try:
        yield site
    finally:
        server.stop(grace=0).wait()


@contextmanager
def carrying(folder: Path, link: FakeLink) -> Iterator[tuple[Carrier, Tally]]:
    settings = Settings(folder=folder, address="", tls=None, proxy=None, socket=folder / "site.sock", key=folder / "node.key")
    tally = Tally(folder)
    with (folder / "log").open("a") as log:
        carrier = Carrier(settings, link, tally, Pace(), events.Log(who="mailbox", form="json", to=log))  # type: ignore[arg-type]
        try:
            yield carrier, tally
        finally:
            carrier.stop(within_s=0)

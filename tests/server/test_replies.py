# SPDX-License-Identifier: Apache-2.0
"""A reply is taken piece by piece, as Flower stores it; and the private names that this needs are flwr's still."""

import hashlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, ObjectTree, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.run import Run
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from common.pieces import unfolded_size
from common.whole import whole
from server.transport.replies import Announced, Arrived, FromGrid, FromSuperLink, ReplyLost, ReplyTooLarge, _put_together, taker_of

MOST_PIECES = 9


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say from which run and node they are."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Store:
    """A SuperLink's Runtime API with one reply in it, whose pieces arrive one with each `sleep`; `gone` once its session has run out."""

    def __init__(self, *, arrived: int) -> None:
        question = Message(RecordDict(), 7, "query.hello")
        question.metadata.__dict__["_message_id"] = "question"
        vector = Array(np.arange(3 * 5_000_000, dtype=np.uint8))  # three pieces of five megabytes
        self.reply = Message(RecordDict({"vector": ArrayRecord({"vector": vector})}), reply_to=question)
        self.reply.metadata.__dict__["_message_id"] = self.reply.object_id
        self._pieces = {name: each.deflate() for name, each in get_all_nested_objects(self.reply).items()}
        self._order, self.arrived = list(self._pieces), arrived
        self.gone, self.announced, self.confirmed = False, True, 0

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:  # noqa: N802 - Flower's name
        if not self.announced or list(request.message_ids) != ["question"]:
            return PullAppMessagesResponse()
        self.announced = False
        proto = message_to_proto(remove_content_from_message(self.reply))
        return PullAppMessagesResponse(messages_list=[proto], message_object_trees=[get_object_tree(self.reply)])

    def PullObject(self, request: Any) -> PullObjectResponse:  # noqa: N802 - Flower's name
        there = self._order.index(request.object_id) < self.arrived
        content = self._pieces[request.object_id] if there else b""
        return PullObjectResponse(object_found=not self.gone, object_available=there, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> ConfirmMessageReceivedResponse:  # noqa: N802 - Flower's name
        assert request.message_object_id == self.reply.metadata.message_id
        self.confirmed += 1
        return ConfirmMessageReceivedResponse()


def grid_on(store: Any) -> HttpGrid:
    grid = HttpGrid("127.0.0.1:1", insecure=True, token="a token")
    grid.set_run(Run.create_empty(1))
    grid._client = store  # the three calls that a look makes
    return grid


def take(
    store: Store, *, sleep: Callable[[float], None], is_over: Callable[[], bool] = lambda: False, most_bytes: int = 1 << 30
) -> tuple[Message | None, int]:
    """The reply, and how often something of it had come."""
    came: list[None] = []
    taker = FromSuperLink(grid_on(store), most_bytes=most_bytes, sleep=sleep)
    found = taker.look(["question"]).get("question")
    if found is None:
        return None, len(came)
    assert isinstance(found, Announced)
    arrived = taker.take(found, moved=lambda: came.append(None), is_over=is_over)
    assert arrived is None or not arrived.whole
    return arrived and arrived.message, len(came)


def test_a_reply_that_is_there_is_taken_at_once_and_whole() -> None:
    store = Store(arrived=MOST_PIECES)
    found, _ = take(store, sleep=lambda _: pytest.fail("there is nothing to wait for"))
    assert found is not None
    assert found.content.array_records["vector"]["vector"].data == store.reply.content.array_records["vector"]["vector"].data
    assert found.metadata.reply_to_message_id == "question"
    assert store.confirmed == 1


def test_a_superlink_that_does_not_hear_the_confirmation_costs_nothing() -> None:
    """A large reply takes a SuperLink so long to delete that the call may fail; the reply is here."""
    store = Store(arrived=MOST_PIECES)

    def fails(_: Any) -> Any:
        raise httpx.ReadTimeout("locked")

    store.ConfirmMessageReceived = fails  # type: ignore[method-assign]
    found, _ = take(store, sleep=lambda _: None)
    assert found is not None
    assert found.content


def test_pieces_that_are_late_are_waited_for_and_each_is_told_of() -> None:
    store, slept = Store(arrived=0), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        store.arrived += 1

    found, came = take(store, sleep=sleep)
    assert found is not None
    assert came == len(store._pieces), "one with each piece"
    assert max(slept) < 0.1, "while something comes, it is looked for soon"


def test_nothing_is_there_before_it_is_announced() -> None:
    store = Store(arrived=0)
    store.announced = False
    assert take(store, sleep=lambda _: None) == (None, 0)


def test_a_reply_whose_session_has_run_out_is_lost() -> None:
    store = Store(arrived=1)

    def sleep(_: float) -> None:
        store.gone = True

    with pytest.raises(ReplyLost):
        take(store, sleep=sleep)
    assert store.confirmed == 0


def test_no_more_of_a_reply_is_taken_than_an_answer_can_have() -> None:
    store = Store(arrived=MOST_PIECES)
    with pytest.raises(ReplyTooLarge):
        take(store, sleep=lambda _: None, most_bytes=14_000_000)
    assert store.confirmed == 0


def test_a_look_ends_when_nobody_waits_for_it() -> None:
    slept: list[float] = []
    found, _ = take(Store(arrived=1), sleep=slept.append, is_over=lambda: len(slept) >= 3)
    assert found is None
    assert len(slept) == 3


def test_small_replies_are_all_found_whole_in_one_look() -> None:
    content = RecordDict({"fedward": ConfigRecord({"site": ""})})
    metadata = [Metadata(1, "", 7, 1, f"q{number}", "1", 1_780_000_000.0, 60.0, "query.hello") for number in range(3)]
    sent = [whole(each, content) for each in metadata[:2]]
    calls: list[list[str]] = []

    def pull(request: Any) -> PullAppMessagesResponse:
        calls.append(list(request.message_ids))
        return PullAppMessagesResponse(messages_list=[each.proto for each in sent], message_object_trees=[each.tree for each in sent])

    client: Any = SimpleNamespace(PullMessages=pull)
    found = FromSuperLink(grid_on(client), most_bytes=1 << 30).look(["q0", "q1", "q2"])
    assert calls == [["q0", "q1", "q2"]]
    assert set(found) == {"q0", "q1"}
    for each in found.values():
        assert isinstance(each, Arrived)
        assert (each.whole, each.message.content) == (True, content)


def test_a_reply_to_what_was_not_asked_is_not_looked_at() -> None:
    sent = whole(Metadata(1, "", 7, 1, "another", "1", 1_780_000_000.0, 60.0, "query.hello"), RecordDict({"a": ConfigRecord({"b": 1})}))
    answer = PullAppMessagesResponse(messages_list=[sent.proto], message_object_trees=[sent.tree])
    client: Any = SimpleNamespace(PullMessages=lambda _: answer)
    assert FromSuperLink(grid_on(client), most_bytes=1 << 30).look(["q0"]) == {}


def test_a_whole_reply_that_cannot_be_read_is_one_without_content() -> None:
    sent = whole(Metadata(1, "", 7, 1, "q0", "1", 1_780_000_000.0, 60.0, "query.hello"), RecordDict({"a": ConfigRecord({"b": 1})}))
    del sent.proto.content.items[:]
    sent.proto.content.items.add(key="a")  # a record of no kind
    answer = PullAppMessagesResponse(messages_list=[sent.proto], message_object_trees=[sent.tree])
    client: Any = SimpleNamespace(PullMessages=lambda _: answer)
    found = FromSuperLink(grid_on(client), most_bytes=1 << 30).look(["q0"])["q0"]
    assert isinstance(found, Arrived)
    assert not found.message.content


def pieces_of(reply: Message) -> dict[str, bytes]:
    return {name: each.deflate() for name, each in get_all_nested_objects(reply).items()}


def head(kind: str, children: list[str], body: bytes) -> bytes:
    return f"{kind} {','.join(children)} {len(body)}".encode() + b"\x00" + body


def strange(name: str) -> tuple[ObjectTree, dict[str, bytes]]:
    """Objects that Flower's own check lets pass, and that make no message."""
    bodies = {
        "a record for a message": [head("RecordDict", [], b"garbage")],
        "no protobuf": [head("Message", [], b"\xff\xff\xff")],
        "a child that is not there": [head("Message", ["0" * 64], b"")],
        "an array of nonsense": [head("Array", [], b'{"shape": 5}')],
        "no json": [head("Array", [], b"{")],
        "not even a head": [b"\x00"],
    }[name]
    objects = {hashlib.sha256(body).hexdigest(): body for body in bodies}
    [root] = objects
    return ObjectTree(object_id=root), objects


@pytest.mark.parametrize(
    "name", ["a record for a message", "no protobuf", "a child that is not there", "an array of nonsense", "no json", "not even a head"]
)
def test_pieces_that_make_no_message_are_a_reply_without_content(name: str) -> None:
    """Any site can send them, and none may end the coordinator."""
    tree, objects = strange(name)
    client: Any = SimpleNamespace(
        PullObject=lambda request: PullObjectResponse(object_found=True, object_available=True, object_content=objects[request.object_id]),
        ConfirmMessageReceived=lambda _: ConfirmMessageReceivedResponse(),
    )
    taker = FromSuperLink(grid_on(client), most_bytes=1 << 30)
    arrived = taker.take(Announced(tree.object_id, tree), moved=lambda: None, is_over=lambda: False)
    assert arrived is not None
    assert not arrived.message.content


def test_a_chunk_that_is_listed_a_thousand_times_is_not_unfolded() -> None:
    store = Store(arrived=MOST_PIECES)
    pieces = store._pieces
    [(array, body)] = [(name, body) for name, body in pieces.items() if body.startswith(b"Array ")]
    swollen = body.partition(b"\x00")
    listed = json.loads(swollen[2])
    listed["arraychunk_ids"] = [0] * 1000
    text = json.dumps(listed).encode()
    kind, children, _ = swollen[0].decode().split(" ")
    assert unfolded_size(pieces) < 16_000_000
    assert unfolded_size({**pieces, array: head(kind, children.split(","), text)}) > 4_999_000_000
    with pytest.raises(ReplyTooLarge):
        _put_together(store.reply.metadata.message_id, {**pieces, array: head(kind, children.split(","), text)}, 1 << 30)


def test_another_grid_is_asked_in_flowers_own_way() -> None:
    store = Store(arrived=MOST_PIECES)
    grid: Any = SimpleNamespace(pull_messages=lambda ids: [store.reply] if ids == ["question"] else [])
    taker = taker_of(grid, most_bytes=1 << 30)
    assert isinstance(taker, FromGrid)
    assert taker.look(["question"]) == {"question": Arrived(store.reply)}
    assert taker.look(["another"]) == {}


def test_flowers_client_has_the_calls_that_a_look_makes() -> None:
    for name in ("PullMessages", "PullObject", "ConfirmMessageReceived"):
        assert callable(getattr(RuntimeHttpClient, name))
    assert isinstance(HttpGrid._runtime_client, property)

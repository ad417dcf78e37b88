# SPDX-License-Identifier: Apache-2.0
"""Small questions go whole to who reads them so, in pieces to anybody else; and the private names that this needs are flwr's still."""

from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.proto.message_pb2 import PushObjectResponse
from flwr.proto.runtime_pb2 import PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from common import wire
from common.whole import content_in, is_inviting, plain
from server.transport.questions import HandedIn, ToGrid, giver_of

READER, STOCK = 7, 8


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say from which run and node they are."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Store:
    """A SuperLink's Runtime API that takes messages."""

    def __init__(self) -> None:
        self.announced: dict[int, Any] = {}
        self.pushed: dict[str, bytes] = {}
        self.calls = 0

    def PushMessages(self, request: Any) -> PushAppMessagesResponse:  # noqa: N802 - Flower's name
        self.calls += 1
        wanted = []
        for proto, tree in zip(request.messages_list, request.message_object_trees, strict=True):
            assert proto.metadata.message_id == tree.object_id
            self.announced[proto.metadata.dst_node_id] = proto
            wanted += [each.object_id for each in iterate_object_tree(tree)]
        ids = [proto.metadata.message_id for proto in request.messages_list]
        return PushAppMessagesResponse(message_ids=ids, objects_to_push=wanted, session_id=f"s{self.calls}")

    def PushObject(self, request: Any) -> PushObjectResponse:  # noqa: N802 - Flower's name
        self.pushed[request.object_id] = request.object_content
        return PushObjectResponse(stored=True)


def grid_on(store: Store) -> HttpGrid:
    grid = HttpGrid("127.0.0.1:1", insecure=True, token="a token")
    grid.set_run(Run.create_empty(1))
    grid._client = store  # type: ignore[assignment] # the two calls that handing in makes
    return grid


def asked(node: int, *, values: int = 0) -> Message:
    model = np.zeros(values, dtype=np.float32) if values else None
    content = wire.encode_secure_request(wire.SecureRequest(round=1, control=b"x" * 200, model=model))
    return Message(content, node, wire.SECURE["MASK"], ttl=60.0, group_id="1")


def test_a_reader_gets_a_small_question_whole_and_a_stock_node_gets_pieces() -> None:
    store = Store()
    messages = [asked(READER), asked(STOCK)]
    given = giver_of(grid_on(store)).give(messages, readers={READER})
    assert given.taken == {each.metadata.message_id for each in messages}
    assert given.whole == {messages[0].metadata.message_id}
    assert content_in(store.announced[READER]) == messages[0].content
    assert content_in(store.announced[STOCK]) is None
    assert store.calls == 2
    assert messages[0].metadata.message_id not in store.pushed, "it is there as soon as it is announced"
    assert messages[1].metadata.message_id in store.pushed


def test_a_large_question_goes_in_pieces_to_anybody() -> None:
    store = Store()
    giver_of(grid_on(store)).give([asked(READER, values=1 << 16)], readers={READER})
    assert content_in(store.announced[READER]) is None
    assert len(store.pushed) > 3


def test_what_was_taken_is_not_forgotten_when_the_rest_fails() -> None:
    store = Store()
    once = store.PushMessages

    def push(request: Any) -> PushAppMessagesResponse:
        if content_in(request.messages_list[0]) is not None:
            raise httpx.ReadTimeout("away")
        return once(request)

    store.PushMessages = push  # type: ignore[method-assign]
    messages = [asked(READER), asked(STOCK)]
    assert giver_of(grid_on(store)).give(messages, readers={READER}).taken == {messages[1].metadata.message_id}
    with pytest.raises(httpx.HTTPError):
        giver_of(grid_on(store)).give(messages[:1], readers={READER})


def test_one_message_to_many_readers_is_one_call() -> None:
    store = Store()
    giver_of(grid_on(store)).give([asked(node) for node in range(2, 12)], readers=range(20))
    assert store.calls == 1
    assert not store.pushed


def test_another_grid_is_handed_messages_in_flowers_own_way() -> None:
    grid: Any = SimpleNamespace(push_messages=lambda messages: [f"m{message.metadata.dst_node_id}" for message in messages])
    giver = giver_of(grid)
    assert isinstance(giver, ToGrid)
    content = RecordDict({"a": ConfigRecord({"b": 1})})
    assert giver.give([Message(content, READER, "query.hello")], readers={READER}) == HandedIn(frozenset({"m7"}))
    assert giver.label("1") == "1"


def test_who_is_asked_is_told_that_it_may_answer_whole() -> None:
    label = giver_of(grid_on(Store())).label("12")
    assert is_inviting(label)
    assert not is_inviting("12")
    assert plain(label) == "12"

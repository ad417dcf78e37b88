# SPDX-License-Identifier: Apache-2.0
"""One look for everybody's replies: nobody's reply can spoil it for the others, and whoever stops reading whole messages is found out."""

from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from server.transport import inquiry
from server.transport.inquiry import Inquiry, Pace
from server.transport.questions import HandedIn
from server.transport.replies import Announced, Arrived, Found
from tests.server.lossy import Clock, Fate, Node, Sea, Tides

PACE = Pace()


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say from which run and node they are."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class SuperLink:
    """Takes many ids in a look. A look with a reply of a `poisoned` node in it fails, as Flower's does over a date that is no number."""

    shows_progress, at_once = True, 256

    def __init__(self, sea: Sea, *, poisoned: Sequence[int] = (), in_pieces: Sequence[int] = (), whole: Sequence[int] = ()) -> None:
        self.sea, self.poisoned, self.in_pieces, self.whole = sea, set(poisoned), set(in_pieces), set(whole)
        self.looks: list[int] = []
        self.taken = 0

    def look(self, message_ids: Sequence[str]) -> dict[str, Found]:
        self.looks.append(len(message_ids))
        known = self.sea._known
        there = {each for each in message_ids if each in self.sea._replies and self.sea._replies[each][0] <= self.sea._clock.now}
        self.sea.took_s = 0.01
        if any(known[each].metadata.dst_node_id in self.poisoned for each in there):
            raise httpx.HTTPStatusError("500", request=httpx.Request("POST", "http://x"), response=httpx.Response(500))
        found: dict[str, Found] = {}
        for each in message_ids:
            node = known[each].metadata.dst_node_id
            for reply in self.sea.pull_messages([each]):
                if node in self.in_pieces and not reply.has_error():
                    found[each] = Announced(each, reply)  # type: ignore[arg-type] # handed back to `take`
                else:
                    found[each] = Arrived(reply, whole=node in self.whole)
        self.sea.took_s = 0.01
        return found

    def take(self, announced: Announced, *, moved: Callable[[], None], is_over: Callable[[], bool]) -> Arrived | None:
        self.taken += 1
        if is_over():
            return None
        moved()
        self.sea.took_s = 2.0
        return Arrived(announced.tree)


class Giver:
    """Hands in; remembers what went whole."""

    def __init__(self, sea: Sea) -> None:
        self.sea = sea
        self.whole: list[int] = []

    def label(self, group: str) -> str:
        return group

    def give(self, messages: Sequence[Message], *, readers: Any) -> HandedIn:
        ids = self.sea.push_messages(messages)
        small = {each for each, message in zip(ids, messages, strict=True) if message.metadata.dst_node_id in readers}
        self.whole += [message.metadata.dst_node_id for each, message in zip(ids, messages, strict=True) if each in small]
        return HandedIn(frozenset(ids), frozenset(small))


class Asked:
    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        nodes: dict[int, Node],
        *,
        deadline_s: float = 300.0,
        readers: set[int] | None = None,
        **how: Sequence[int],
    ) -> None:
        clock = Clock()
        sea = Sea(clock, nodes)
        self.superlink, self.giver, self.readers = SuperLink(sea, **how), Giver(sea), readers if readers is not None else set()
        monkeypatch.setattr(inquiry, "taker_of", lambda grid, *, most_bytes: self.superlink)
        monkeypatch.setattr(inquiry, "giver_of", lambda grid: self.giver)
        asking = Inquiry(
            sea,  # type: ignore[arg-type] # the members that an inquiry uses
            "query.hello",
            group="1",
            deadline_s=deadline_s,
            expected_s=0.0,
            looks=Tides(clock, sea),
            pace=PACE,
            most_bytes=1 << 30,
            readers=self.readers,
            clock=clock,
        )
        contents = {node: RecordDict({"to": ConfigRecord({"node": node})}) for node in nodes}
        self.at = {answer.node: clock.now - 1000.0 for answer in asking.answers(contents, until=lambda: 1e9) if answer.content is not None}
        self.times_asked = {number: len(node.asked_at) for number, node in nodes.items()}


def test_all_are_looked_for_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch, {node: Node(fates=[Fate(after_s=0.4)]) for node in range(1, 51)})
    assert len(asked.at) == 50
    assert max(asked.superlink.looks) == 50
    assert len(asked.superlink.looks) < 10


@pytest.mark.parametrize("poisoned", [[3], [3, 4, 5, 6]])
def test_a_reply_on_which_the_superlink_chokes_costs_its_sender_alone(monkeypatch: pytest.MonkeyPatch, poisoned: list[int]) -> None:
    asked = Asked(monkeypatch, {node: Node() for node in range(1, 11)}, poisoned=poisoned)
    assert set(asked.at) == set(range(1, 11)) - set(poisoned)
    assert max(asked.at.values()) < 4.0
    assert all(asked.times_asked[node] == 1 for node in asked.at), "and they are not asked again for it"
    assert all(asked.times_asked[node] < 40 for node in poisoned)


def test_a_superlink_that_was_down_for_a_while_loses_nobodys_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    down = SuperLink.look

    def look(self: SuperLink, message_ids: Sequence[str]) -> dict[str, Found]:
        if 1000.3 < self.sea._clock.now < 1008.0:
            self.sea.took_s = 0.01
            raise httpx.ConnectError("down")
        return down(self, message_ids)

    monkeypatch.setattr(SuperLink, "look", look)
    asked = Asked(monkeypatch, {node: Node(fates=[Fate(after_s=2.0)]) for node in range(1, 11)})
    assert len(asked.at) == 10
    assert max(asked.at.values()) < 12.0
    assert max(asked.times_asked.values()) == 1


def test_replies_in_pieces_are_taken_so_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {node: Node() for node in range(1, 151)}
    asked = Asked(monkeypatch, nodes, in_pieces=list(nodes))
    assert len(asked.at) == 150
    # Each takes two seconds: three turns of 64.
    assert sorted(round(at) for at in asked.at.values())[PACE.in_all + 1] > sorted(round(at) for at in asked.at.values())[0]


def test_a_node_that_reads_whole_messages_no_more_is_asked_again_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older mailbox has taken its place: it answers what it cannot read with a refusal, in pieces."""
    asked = Asked(monkeypatch, {1: Node(), 2: Node()}, readers={1, 2}, whole=[2])
    assert asked.giver.whole == [1, 2]
    assert asked.times_asked == {1: 2, 2: 1}
    assert set(asked.at) == {1, 2}
    assert asked.readers == {2}


def test_an_error_of_flowers_is_no_sign_of_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that was asked whole and is killed: Flower says so in pieces, and says it without content."""
    away = Node(fates=[Fate(lost=True)], away=(0.5, 60.0))
    asked = Asked(monkeypatch, {1: away, 2: Node(fates=[Fate(after_s=90)])}, readers={1, 2}, whole=[1, 2])
    assert set(asked.at) == {1, 2}
    assert 60 < asked.at[1] < 75


@pytest.mark.parametrize("code", [ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.CLIENT_APP_CRASHED])
def test_a_question_that_went_whole_and_failed_is_asked_again(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    asked = Asked(monkeypatch, {1: Node(fates=[Fate(error=code)])}, readers={1}, in_pieces=[1])
    assert asked.times_asked == {1: 2}
    assert asked.at


def test_nobody_spins_while_replies_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {node: Node() for node in range(1, 151)}
    turns = 0
    wait = Tides.next

    def counted(self: Tides, timeout_s: float) -> Any:
        nonlocal turns
        turns += 1
        return wait(self, timeout_s)

    monkeypatch.setattr(Tides, "next", counted)
    Asked(monkeypatch, nodes, in_pieces=list(nodes))
    assert turns < 1000


def test_who_says_it_is_offline_and_is_not_is_asked_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    offline = Fate(error=ErrorCode.NODE_UNAVAILABLE, after_s=0.1)
    asked = Asked(monkeypatch, {1: Node(fates=[offline] * 1000), 2: Node(fates=[Fate(after_s=280)])}, deadline_s=300)
    assert 2 in asked.at
    assert asked.times_asked[1] < 40

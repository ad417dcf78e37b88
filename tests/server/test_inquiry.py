# SPDX-License-Identifier: Apache-2.0
"""Over a network that loses messages, who eventually answers is heard once, and nobody is pestered or heard after the deadline."""

import math
from collections.abc import Callable, Mapping
from itertools import pairwise

import httpx
import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st

from server.transport.inquiry import Answer, Inquiry, Pace
from tests.server.lossy import SESSION_S, Clock, Fate, Node, Sea, Tides

PACE = Pace()
LOST = Fate(lost=True)


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say from which run and node they are."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Asked:
    """A question put to a sea, and what came of it: answers, and when, in seconds since it was asked."""

    def __init__(
        self,
        nodes: Mapping[int, Node],
        *,
        deadline_s: float = 600.0,
        expected_s: float = 0.0,
        until: Callable[["Asked"], float] = lambda _: math.inf,
        sea: type[Sea] = Sea,
    ) -> None:
        clock = Clock()
        self.sea = sea(clock, nodes)
        self.heard: list[tuple[float, Answer]] = []
        inquiry = Inquiry(
            self.sea,  # type: ignore[arg-type] # the four members that an inquiry uses
            "query.fsa1_share",
            group="1",
            deadline_s=deadline_s,
            expected_s=expected_s,
            looks=Tides(clock, self.sea),
            pace=PACE,
            most_bytes=1 << 30,
            clock=clock,
        )
        contents = {node: RecordDict({"to": ConfigRecord({"node": node})}) for node in nodes}
        for answer in inquiry.answers(contents, until=lambda: 1000.0 + until(self)):
            self.heard.append((clock.now - 1000.0, answer))
        self.took_s = clock.now - 1000.0

    def answered(self) -> dict[int, float]:
        """When each node's own content came back."""
        for _, answer in self.heard:
            assert answer.content is None or answer.content["to"]["node"] == answer.node
        return {answer.node: at for at, answer in self.heard if answer.content is not None}

    def asked_at(self, node: int) -> list[float]:
        return [at - 1000.0 for at in self.sea.nodes[node].asked_at]


def test_a_prompt_answer_is_heard_soon_and_asked_for_once() -> None:
    asked = Asked({1: Node(fates=[Fate(after_s=0.3)]), 2: Node(fates=[Fate(after_s=0.3)])})
    assert asked.took_s < 0.6
    assert [len(asked.asked_at(node)) for node in (1, 2)] == [1, 1]


def test_a_lost_question_is_asked_again_after_silence_each_time_after_twice_as_long() -> None:
    asked = Asked({1: Node(fates=[LOST, LOST, LOST])})
    assert asked.asked_at(1) == pytest.approx([0, 15, 45, 105], abs=1)
    assert asked.answered()[1] == pytest.approx(106, abs=2)


def test_a_node_that_is_expected_to_take_long_is_not_asked_again_before() -> None:
    asked = Asked({1: Node(fates=[Fate(after_s=190)])}, expected_s=200)
    assert asked.asked_at(1) == [0]
    assert asked.answered()[1] == pytest.approx(190, abs=1)


def test_a_late_first_reply_counts_and_the_second_is_the_same() -> None:
    asked = Asked({1: Node(fates=[Fate(after_s=18), Fate(after_s=30)]), 2: Node(fates=[Fate(after_s=80)] * 3)})
    assert [answer.node for _, answer in asked.heard] == [1, 2]
    assert asked.answered()[1] == pytest.approx(18, abs=1)


def test_a_moving_reply_is_left_alone_and_waited_for_beyond_patience() -> None:
    """Its upload takes five minutes; patience is over after one."""
    asked = Asked({1: Node(), 2: Node(fates=[Fate(upload_s=300)])}, until=lambda asked: 60.0 if asked.heard else math.inf)
    assert asked.asked_at(2) == [0]
    assert asked.answered()[2] == pytest.approx(301, abs=2)


def test_an_upload_that_stalls_holds_nobody_else_and_is_asked_for_again() -> None:
    asked = Asked({1: Node(fates=[Fate(stalls=True)]), **{node: Node() for node in range(2, 9)}})
    assert max(at for node, at in asked.answered().items() if node != 1) < 2
    assert len(asked.asked_at(1)) == 2
    assert SESSION_S < asked.answered()[1] < SESSION_S + 10


def test_a_node_that_is_killed_is_asked_again_when_it_is_back() -> None:
    asked = Asked({1: Node(fates=[LOST], away=(1.0, 63.0)), 2: Node(fates=[Fate(after_s=90)])}, expected_s=200)
    assert asked.answered()[1] == pytest.approx(64, abs=3)
    assert len(asked.asked_at(1)) == 2


def test_a_node_that_stays_away_is_given_up_once_nobody_else_is_awaited() -> None:
    asked = Asked({1: Node(fates=[LOST], away=(0.0, math.inf)), 2: Node(fates=[Fate(after_s=300)])}, expected_s=400)
    assert [(answer.node, answer.content is None) for _, answer in asked.heard] == [(2, False), (1, True)]
    assert asked.took_s == pytest.approx(300, abs=2)
    alone = Asked({1: Node(fates=[LOST], away=(0.0, math.inf))})
    assert alone.took_s == pytest.approx(PACE.return_s, abs=3)


@pytest.mark.parametrize("code", [ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ErrorCode.LOAD_CLIENT_APP_EXCEPTION, ErrorCode.INVALID_FAB])
def test_an_error_of_the_site_itself_is_final(code: int) -> None:
    asked = Asked({1: Node(fates=[Fate(error=code)])})
    [(_, answer)] = asked.heard
    assert (answer.content, answer.failure) == (None, "as Flower says")
    assert len(asked.asked_at(1)) == 1


def test_a_site_that_crashes_is_asked_again_twice() -> None:
    crash = Fate(error=ErrorCode.CLIENT_APP_CRASHED)
    assert Asked({1: Node(fates=[crash, crash])}).answered()
    assert not Asked({1: Node(fates=[crash, crash, crash])}).answered()


def test_a_silent_node_yields_nothing_and_nothing_comes_after_the_deadline() -> None:
    asked = Asked({1: Node(fates=[LOST] * 9), 2: Node(fates=[Fate(after_s=61)] * 4)}, deadline_s=60)
    assert asked.heard == []
    assert asked.took_s == pytest.approx(60, abs=1)


class Stormy(Sea):
    """The SuperLink is away from second 5 to second 20: what was handed out before is lost, and calls fail."""

    def pull_messages(self, message_ids):  # type: ignore[no-untyped-def] # as above
        if 5.0 <= self._clock.now - 1000.0 < 20.0:
            self.took_s = 1.0
            raise httpx.ConnectError("refused")
        return super().pull_messages(message_ids)


def test_after_the_network_was_away_a_site_is_asked_again_without_waiting_for_what_it_was_expected_to_take() -> None:
    asked = Asked({1: Node(fates=[LOST])}, expected_s=200, sea=Stormy)
    assert 15 <= asked.answered()[1] < 40
    assert len(asked.asked_at(1)) == 2


class Hasty(Sea):
    """Its first node has answered before the last of the messages are handed in, and they are then refused, as Flower does."""

    def push_messages(self, messages):  # type: ignore[no-untyped-def]
        first, *others = messages
        ids = super().push_messages([first])
        if all(len(node.asked_at) < 2 for node in self.nodes.values()) and others:
            for message in others:
                message.metadata.__dict__["_message_id"] = f"torn {message.metadata.dst_node_id}"
                self._known[message.metadata.message_id] = message
            raise ObjectPushError("an object", 1, "a session")
        return [*ids, *super().push_messages(others)]


def test_a_node_that_is_quicker_than_the_asker_ends_nothing_and_the_others_are_asked_again_soon() -> None:
    asked = Asked({1: Node(fates=[Fate(after_s=0.1)]), 2: Node(), 3: Node()}, sea=Hasty)
    answered = asked.answered()
    assert set(answered) == {1, 2, 3}
    assert answered[1] < 1
    assert max(answered.values()) < PACE.silence_s


class Broken(Sea):
    def pull_messages(self, message_ids):  # type: ignore[no-untyped-def] # it never returns
        del message_ids
        raise ZeroDivisionError


def test_a_mistake_of_our_own_is_not_taken_for_a_network_that_is_away() -> None:
    with pytest.raises(ZeroDivisionError):
        Asked({1: Node()}, sea=Broken)


FATES = st.one_of(
    st.just(LOST),
    st.builds(Fate, after_s=st.floats(0, 90), upload_s=st.floats(0, 120)),
    st.builds(Fate, after_s=st.floats(0, 30), stalls=st.just(value=True)),
    st.builds(Fate, after_s=st.floats(0, 30), error=st.sampled_from([ErrorCode.REPLY_MESSAGE_UNAVAILABLE])),
)
NODES = st.builds(
    Node,
    fates=st.lists(FATES, max_size=3),
    away=st.tuples(st.floats(0, 200), st.floats(0, 200)).map(lambda span: (span[0], span[0] + span[1])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(NODES, min_size=1, max_size=6))
def test_whoever_eventually_answers_is_heard_exactly_once(nodes: list[Node]) -> None:
    """Whatever is lost, late, doubled, stalled or away at first: after three misfortunes and two absences the network is well."""
    asked = Asked(dict(enumerate(nodes)), deadline_s=6000)
    assert sorted(answer.node for _, answer in asked.heard) == list(range(len(nodes)))
    gone = {node for node, each in enumerate(nodes) if each.away[1] - each.away[0] >= PACE.return_s}
    assert set(asked.answered()) >= set(range(len(nodes))) - gone
    for node in range(len(nodes)):
        times = asked.asked_at(node)
        assert len(times) <= 12, "nobody is pestered"
        assert all(later - earlier >= 0.9 for earlier, later in pairwise(times))


@settings(max_examples=100, deadline=None)
@given(st.lists(NODES, min_size=1, max_size=6), st.floats(1, 200))
def test_nobody_is_heard_after_the_deadline_or_twice(nodes: list[Node], deadline_s: float) -> None:
    asked = Asked(dict(enumerate(nodes)), deadline_s=deadline_s)
    assert all(at <= deadline_s for at, _ in asked.heard)
    assert len({answer.node for _, answer in asked.heard}) == len(asked.heard)
    assert asked.took_s <= deadline_s + 1

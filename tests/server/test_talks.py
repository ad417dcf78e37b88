# SPDX-License-Identifier: Apache-2.0
"""Groups are asked side by side, each told its own story; one that fails, or whose sites are silent, holds nobody up."""

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from common import wire
from common.errors import CohortTooSmall, MessageFormat
from common.secagg.messages import Step
from common.secagg.quantise import Grid
from server.gate import Open
from server.membership.roll import Roll
from server.phases import Heard
from server.transport.exchange import Line
from server.transport.talks import Question, Speaker, Talk
from tests.journeys.made import Quiet

DEADLINE_S = 3.0
NODES = {f"s{i}": i for i in range(6)}


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say from which run and node they are."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Table:
    """A grid whose sites answer at once, with their request; `silent` ones never do, `refusing` ones say so."""

    def __init__(self, *, silent: Iterable[str] = (), refusing: Iterable[str] = ()) -> None:
        self._silent, self._refusing = {NODES[site] for site in silent}, {NODES[site] for site in refusing}
        self._names = {node: site for site, node in NODES.items()}
        self._replies: dict[str, Message] = {}
        self.asked: list[tuple[str, list[str]]] = []
        self.cancelled: list[str] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        pushed = list(messages)
        self.asked.append((pushed[0].metadata.message_type, [self._names[m.metadata.dst_node_id] for m in pushed]))
        for number, message in enumerate(pushed):
            message_id = f"{len(self.asked)}-{number}"
            message.metadata.__dict__["_message_id"] = message_id
            ids.append(message_id)
            node = message.metadata.dst_node_id
            if node in self._silent:
                continue
            site = self._names[node]
            control = wire.decode_secure_request(message.content, 3).control
            content = wire.encode_secure_reply(wire.SecureReply(site=site, control=control + site.encode()))
            if node in self._refusing:
                content = wire.encode_refusal(wire.Refusal(site=site, code="E_REPLAY"))
            self._replies[message_id] = Message(content, reply_to=message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(each) for each in message_ids if each in self._replies]

    def wait(self, timeout_s: float) -> bool:
        time.sleep(min(timeout_s, 0.01))
        return False

    def cancel(self, message_ids: Iterable[str]) -> None:
        self.cancelled += message_ids


def speaker(table: Any) -> Speaker:
    grid = Grid.for_cohort(3, coordinate_range=1.0)
    roll = Roll(line=Line(table), plan="", minimum=1, sites=dict(NODES))
    return Speaker(roll=roll, gate=Open(), observer=Quiet(), deadline_s=DEADLINE_S, num_values=3, grid=grid)


def question(step: Step, *sites: str, needed: int | None = None, **more: Any) -> Question:
    return Question(round=1, step=step, contents={site: step.name.encode() for site in sites}, nodes=NODES, needed=needed, **more)


def story(*questions: Question) -> Talk[list[Heard]]:
    heard = []
    for each in questions:
        heard.append((yield each))
    return heard


def test_a_step_of_all_groups_is_one_set_of_questions() -> None:
    table = Table()
    talks = {
        0: story(question(Step.SHARE, "s0", "s1"), question(Step.MASK, "s0", "s1")),
        1: story(question(Step.SHARE, "s2"), question(Step.MASK, "s2")),
    }
    done = speaker(table).side_by_side(talks)
    assert table.asked == [(wire.SECURE["SHARE"], ["s0", "s1", "s2"]), (wire.SECURE["MASK"], ["s0", "s1", "s2"])]
    assert [heard.replies for heard in done[1]] == [{"s2": b"SHAREs2"}, {"s2": b"MASKs2"}]  # type: ignore[union-attr] # it did not fail


def test_a_group_that_is_behind_catches_up_first() -> None:
    table = Table()
    talks = {0: story(question(Step.CONFIRM, "s0")), 1: story(question(Step.MASK, "s1"), question(Step.CONFIRM, "s1"))}
    speaker(table).side_by_side(talks)
    assert table.asked == [(wire.SECURE["MASK"], ["s1"]), (wire.SECURE["CONFIRM"], ["s0", "s1"])]


def test_a_mailbox_that_refuses_in_nobodys_name_is_heard_and_ends_nothing() -> None:
    """Its refusal has an empty field, which Flower's own count of bytes cannot count."""
    table = Table()

    def answer(message_ids: Iterable[str]) -> list[Message]:
        for message_id in message_ids:
            if message_id in table._replies:
                table._replies[message_id].content = wire.encode_refusal(wire.Refusal(site="", code="E_MSG_FORMAT"))
        return Table.pull_messages(table, message_ids)

    table.pull_messages = answer  # type: ignore[method-assign]
    done = speaker(table).side_by_side({0: story(question(Step.SHARE, "s0", "s1"))})
    [heard] = done[0]  # type: ignore[misc] # it did not fail
    assert heard.missing == {"s0": "E_MSG_FORMAT", "s1": "E_MSG_FORMAT"}


def test_a_talk_that_fails_by_name_ends_alone() -> None:
    def failing() -> Talk[list[Heard]]:
        yield question(Step.SHARE, "s0")
        raise CohortTooSmall("too few.")

    done = speaker(Table()).side_by_side({0: failing(), 1: story(question(Step.SHARE, "s1"), question(Step.MASK, "s1"))})
    assert isinstance(done[0], CohortTooSmall)
    assert len(done[1]) == 2  # type: ignore[arg-type] # it did not fail


def test_a_mistake_of_our_own_is_not_taken_for_a_failed_group() -> None:
    def broken() -> Talk[None]:
        yield question(Step.SHARE, "s0")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        speaker(Table()).side_by_side({0: broken()})


def test_silent_sites_cost_a_grace_and_are_taken_back() -> None:
    table = Table(silent=["s2", "s5"])
    started = time.monotonic()
    talks = {
        0: story(question(Step.SHARE, "s0", "s1", "s2", needed=2)),
        1: story(question(Step.SHARE, "s3", "s4", "s5", needed=2)),
    }
    done = speaker(table).side_by_side(talks)
    assert DEADLINE_S / 10 <= time.monotonic() - started < DEADLINE_S
    assert [dict(done[group][0].missing) for group in (0, 1)] == [{"s2": "E_SILENT"}, {"s5": "E_SILENT"}]  # type: ignore[index] # as above
    assert len(table.cancelled) == 2


def test_a_group_that_lacks_answers_is_waited_for_and_the_others_go_on_later() -> None:
    table = Table(silent=["s1", "s2"])
    started = time.monotonic()
    speaker(table).side_by_side(
        {0: story(question(Step.SHARE, "s0", "s1", "s2", needed=2)), 1: story(question(Step.SHARE, "s3", needed=1))}
    )
    assert time.monotonic() - started >= DEADLINE_S


def test_a_refusal_and_a_reply_that_is_not_kept_are_missing_by_their_codes() -> None:
    def keep(site: str, reply: wire.SecureReply) -> None:
        if site == "s2":
            raise MessageFormat("not the one that it signed.")

    done = speaker(Table(refusing=["s1"])).side_by_side({0: story(question(Step.MASK, "s0", "s1", "s2", keep=keep))})
    [heard] = done[0]  # type: ignore[misc] # it did not fail
    assert (set(heard.replies), dict(heard.missing)) == ({"s0"}, {"s1": "E_REPLAY", "s2": "E_MSG_FORMAT"})


def test_the_same_bytes_to_several_sites_are_one_record() -> None:
    """A model of 40 MB is not encoded once for each site."""
    pushed: list[Message] = []

    class Counting(Table):
        def push_messages(self, messages: Iterable[Message]) -> list[str]:
            pushed.extend(messages)
            return super().push_messages(pushed)

    model = np.zeros(3, np.float32)
    talks = {g: story(question(Step.KEYS, f"s{2 * g}", f"s{2 * g + 1}", model=model)) for g in (0, 1)}
    speaker(Counting()).side_by_side(talks)
    assert len({id(message.content) for message in pushed}) == 1

# SPDX-License-Identifier: Apache-2.0
"""The exchange with real threads: one reply that never ends holds nobody up, and leaves nothing behind that would hold up an exit."""

import threading
import time
from collections.abc import Iterable, Iterator

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from server.transport.exchange import Line, Pace
from server.transport.looks import ThreadedLooks

PACE = Pace(silence_s=0.4, first_look_s=0.01, look_s=0.05, moving_s=0.2, roll_s=0.05)


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say from which run and node they are."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Wire:
    """A grid whose nodes answer at once; looking for the reply of a `stuck` one does not end before `free` is set."""

    def __init__(self, *, stuck: Iterable[int] = ()) -> None:
        self._stuck, self._asked = set(stuck), dict[str, Message]()
        self.free = threading.Event()
        self.pushed: list[int] = []
        self.calls: list[int] = []

    def get_node_ids(self) -> list[int]:
        return list(range(100))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{len(self.pushed)}"
            ids.append(message.metadata.message_id)
            self._asked[ids[-1]] = message
            self.pushed.append(message.metadata.dst_node_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        ids = list(message_ids)
        self.calls.append(len(ids))
        message = self._asked[ids[0]]
        if message.metadata.dst_node_id in self._stuck:
            self.free.wait()
        return [Message(message.content, reply_to=message)]


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire(stuck=[3])
    yield made
    made.free.set()


def ask(wire: Wire, *, nodes: int, deadline_s: float, patience_s: float = 60.0) -> dict[int, float]:
    started = time.monotonic()
    contents = {node: RecordDict({"to": ConfigRecord({"node": node})}) for node in range(nodes)}
    line = Line(wire, PACE)  # type: ignore[arg-type] # the three members that a line uses
    end = started + patience_s
    return {
        answer.node: time.monotonic() - started
        for answer in line.ask("query.hello", contents, group="1", deadline_s=deadline_s, until=lambda: end)
    }


def test_a_reply_that_never_ends_holds_nobody_up(wire: Wire) -> None:
    heard = ask(wire, nodes=20, deadline_s=2.0)
    assert set(heard) == set(range(20)) - {3}
    assert max(heard.values()) < 1.0
    assert set(wire.calls) == {1}, "one look asks for one reply"
    assert wire.pushed.count(3) == 1, "whoever is sending is left alone"


def test_looks_that_never_end_are_bounded_in_number(wire: Wire) -> None:
    wire._stuck.update(range(30))
    before = threading.active_count()
    heard = ask(wire, nodes=40, deadline_s=3.0)
    assert set(heard) == set(range(30, 40)), "the others get their turn, once the stuck ones are seen to be slow"
    assert threading.active_count() - before <= PACE.in_all


def test_what_nobody_waits_for_any_more_ends_with_its_look(wire: Wire) -> None:
    before = threading.active_count()
    ask(wire, nodes=4, deadline_s=0.5)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "fedward-look")
    wire.free.set()
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_look_that_fails_is_handed_to_whoever_asked() -> None:
    def look() -> int:
        raise ZeroDivisionError

    looks = ThreadedLooks[str, int]()
    looks.begin("a", look)
    seen = looks.next(5.0)
    looks.close()
    assert seen is not None
    assert (seen.key, type(seen.error)) == ("a", ZeroDivisionError)

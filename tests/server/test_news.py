# SPDX-License-Identifier: Apache-2.0
"""The coordinator tells, real sites answer: who follows the new roster, who has yet to approve, who refuses, who is silent."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.membership import pause
from client.process import handler
from client.process.handler import DEPLOYED, Desk, answered, guarded
from common import roster, wire
from common.news import News
from server.membership import news
from server.membership.news import Heard
from server.transport.exchange import Line
from tests.client.members import STRANGER, Members, members, newcomer
from tests.common.secagg.federation import NOW


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say from which run and node they are; the clock is the consortium's."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr("client.membership.news.time.time", lambda: NOW)


class Hospitals:
    """A grid with a home behind each node, which the deployed handler answers for; None: nobody is there."""

    def __init__(self, homes: dict[int, Path | None], *, garbled: Iterable[int] = ()) -> None:
        self._homes, self._garbled = homes, set(garbled)
        self._replies: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            ids.append(f"m{message.metadata.dst_node_id}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            content = self._answer(message.metadata.dst_node_id, message)
            if content is not None:
                self._replies[ids[-1]] = Message(content, reply_to=message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(each) for each in list(message_ids) if each in self._replies]

    def _answer(self, node: int, message: Message) -> RecordDict | None:
        home = self._homes[node]
        if home is None:
            return None
        if node in self._garbled:
            return RecordDict({"fedward": ConfigRecord({"version": wire.VERSION, "type": "news.reply", "loss": 0.3})})
        desk = Desk(home=home, open_site=lambda: pytest.fail("news need no open site"))
        kind = message.metadata.message_type
        return guarded(lambda: answered(desk, kind, message.content, answers=DEPLOYED), lambda: home)


def tell(north: Members, told: News, grid: Hospitals, nodes: Iterable[int], *, by: Any = None) -> dict[int, Heard]:
    heard = news.tell(Line(cast(Any, grid)), nodes, told, coordinator=by or north.keys.coordinator, deadline_s=0.5)
    return {each.node: each for each in heard}


@pytest.fixture
def north(tmp_path: Path) -> Members:
    return members(tmp_path)


def test_who_follows_who_is_silent_and_who_speaks_strangely(north: Members, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    second = members(tmp_path / "second").home
    grid = Hospitals({1: north.home, 2: None, 3: second}, garbled=[3])
    revoked = News(roster=north.published(roster.with_revoked(north.roster, "west")))
    heard = tell(north, revoked, grid, (1, 2, 3))
    assert heard == {
        1: Heard(node=1, said=wire.NewsReply(site="north", epoch=2, plan="")),
        3: Heard(node=3, said=None),
    }


def test_a_site_that_has_yet_to_approve_is_seen_to(north: Members) -> None:
    joined = News(roster=north.published(roster.with_member(north.roster, newcomer())))
    said = tell(north, joined, Hospitals({1: north.home}), [1])[1].said
    assert said == wire.NewsReply(site="north", epoch=1, plan="")


def test_refusals_come_back_as_codes_and_their_words_stay(north: Members) -> None:
    grid = Hospitals({1: north.home})
    old = News(roster=north.published(north.roster, epoch=0))
    assert tell(north, old, grid, [1])[1].said == wire.Refusal(site="north", code="E_ROSTER_CHANGED")
    stranger = tell(north, old, grid, [1], by=STRANGER)[1].said
    assert stranger == wire.Refusal(site="north", code="E_COORDINATOR_SIGNATURE")
    assert "epoch 0" in (north.home / handler.ERROR_FILE).read_text()
    (north.home / pause.LEFT_FILE).write_text("a statement")
    assert tell(north, News(), grid, [1])[1].said == wire.Refusal(site="north", code="E_SITE_LEFT")

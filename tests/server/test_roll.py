# SPDX-License-Identifier: Apache-2.0
"""The roll: who is behind which node, and whom a call between rounds disturbs."""

from collections.abc import Collection, Iterable

import pytest
from flwr.app import Message
from flwr.supercore.task_identity import TaskIdentity

from common import wire
from server.exchange import Line
from server.roll import Roll


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say from which run and node they are."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Lobby:
    """A grid of nodes that say a site's name when they are greeted, or refuse (None)."""

    def __init__(self, names: dict[int, str | None]) -> None:
        self.names = names
        self.greeted: list[list[int]] = []
        self._replies: dict[str, Message] = {}

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
            self._replies[message_id] = Message(content, reply_to=message)
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies[each] for each in message_ids]

    def wait(self, timeout_s: float) -> bool:
        del timeout_s
        return False


def roll_of(lobby: Lobby) -> Roll:
    return Roll(line=Line(lobby), plan="", minimum=1)  # type: ignore[arg-type] # the members that a line uses


def test_while_all_goes_well_nobody_is_disturbed() -> None:
    lobby = Lobby({1: "north", 2: "south"})
    roll = roll_of(lobby)
    for _ in range(3):
        roll.call()
    assert roll.sites == {"north": 1, "south": 2}
    assert lobby.greeted == [[1, 2]]


def test_who_is_new_is_greeted_and_who_is_gone_is_out() -> None:
    lobby = Lobby({1: "north", 2: "south"})
    roll = roll_of(lobby)
    roll.call()
    lobby.names = {2: "south", 3: "east"}
    roll.call()
    assert roll.sites == {"east": 3, "south": 2}
    assert lobby.greeted[1:] == [[3]]


def test_a_site_that_registered_anew_is_found_under_its_new_node() -> None:
    """Also while Flower still lists the old one, which does not answer any more."""
    lobby = Lobby({1: "north", 2: "south"})
    roll = roll_of(lobby)
    roll.call()
    lobby.names = {1: None, 2: "south", 7: "north"}
    roll.doubt(["north"])
    roll.call()
    assert roll.sites == {"north": 7, "south": 2}


def test_who_fell_silent_is_greeted_before_it_is_asked_again() -> None:
    lobby = Lobby({1: "north", 2: "south"})
    roll = roll_of(lobby)
    roll.call()
    roll.doubt(["south"])
    roll.call()
    roll.call()
    assert lobby.greeted[1:] == [[2]]
    assert roll.sites == {"north": 1, "south": 2}


def test_who_refuses_is_not_there_and_is_greeted_again_and_why_is_known() -> None:
    lobby = Lobby({1: "north", 2: None})
    roll = roll_of(lobby)
    roll.call()
    assert [(absence.site, absence.why) for absence in roll.refusals] == [("node 2", "E_PLAN_NOT_APPROVED")]
    lobby.names[2] = "south"
    roll.call()
    assert roll.sites == {"north": 1, "south": 2}
    assert roll.refusals == ()


def test_one_mapping_is_kept_up_to_date_for_whoever_holds_it() -> None:
    lobby = Lobby({1: "north"})
    roll = roll_of(lobby)
    held = roll.sites
    roll.call()
    assert held == {"north": 1}


def test_news_come_before_greetings() -> None:
    """A site that hears of its plan may then be greeted in the same call."""
    lobby = Lobby({1: None})

    class Herald:
        def tell(self, nodes: Collection[int]) -> None:
            for node in nodes:
                lobby.names[node] = "north"

    roll = Roll(line=Line(lobby), plan="", minimum=1, herald=Herald())  # type: ignore[arg-type] # as above
    roll.call()
    assert roll.sites == {"north": 1}

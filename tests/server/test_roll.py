# SPDX-License-Identifier: Apache-2.0
"""The roll: who is behind which node, and whom a call between rounds disturbs."""

import math
import time
from collections.abc import Collection

import pytest
from flwr.supercore.task_identity import TaskIdentity

from server.membership import roll as roll_module
from server.membership.roll import Roll
from server.transport.exchange import Line
from tests.server.lobby import Lobby


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say from which run and node they are."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


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


@pytest.mark.parametrize("silent", [False, True])
def test_a_site_that_claims_anothers_name_takes_it_from_nobody_who_answers(silent: bool) -> None:
    """A rogue peer would else choose whom the next round goes without."""
    lobby = Lobby({1: "north", 2: "south", 3: "rogue"})
    roll = roll_of(lobby)
    roll.call()
    lobby.names[3] = "north"
    roll.doubt(["rogue", *(["north"] if silent else [])])
    roll.call()
    assert roll.sites == {"north": 1, "south": 2}


def test_at_the_start_too_a_claim_counts_only_from_the_mailbox_of_that_site() -> None:
    """The rogue answers last, and honestly enrolled as west; without keys the last answer won, for the whole run."""
    lobby = Lobby({1: "north", 2: "south", 9: "north"})
    roll = roll_of(lobby)
    roll.owners = lambda: {1: "north", 2: "south", 9: "west"}
    for _ in range(2):
        roll.call()
        assert roll.sites == {"north": 1, "south": 2}
        assert [(absence.site, absence.why) for absence in roll.impostors] == [("west", "E_NODE_KEY")]
        roll.doubt(["north"])


@pytest.mark.parametrize("first", [True, False])
def test_a_rogue_mailbox_does_not_get_the_name_of_a_site_that_is_away(first: bool) -> None:
    """Neither before that site has come nor while it is silent; and when it comes, it is there."""
    lobby = Lobby({9: "north"} if first else {1: "north", 9: "west"})
    roll = roll_of(lobby)
    roll.owners = lambda: {1: "north", 9: "west"}
    roll.call()
    lobby.names = {9: "north"} if first else {1: None, 9: "north"}
    roll.doubt(["north", "west"])
    roll.call()
    assert "north" not in roll.sites
    lobby.names = {1: "north", 9: "north"}
    roll.call()
    assert roll.sites == {"north": 1}


def test_a_node_that_no_key_is_known_of_is_nobodys() -> None:
    roll = roll_of(Lobby({1: "north", 4: "south"}))
    roll.owners = lambda: {1: "north"}
    roll.call()
    assert (roll.sites, [absence.site for absence in roll.impostors]) == ({"north": 1}, ["node 4"])


def test_whose_nodes_they_are_is_asked_only_when_somebody_is_greeted() -> None:
    asked = []

    def owners() -> dict[int, str]:
        asked.append(1)
        return {1: "north"}

    roll = roll_of(Lobby({1: "north"}))
    roll.owners = owners
    for _ in range(3):
        roll.call()
    assert len(asked) == 1


def test_without_keys_a_name_that_two_new_nodes_claim_is_nobodys_until_one_gives_way() -> None:
    lobby = Lobby({1: "north", 2: "south", 9: "north"})
    roll = roll_of(lobby)
    roll.call()
    assert roll.sites == {"south": 2}
    assert [(absence.site, absence.why) for absence in roll.impostors] == [("north", "E_NODE_KEY")]
    assert roll.has_refused_only, "nobody waits for an answer that has come"
    lobby.names[9] = None
    roll.call()
    assert (roll.sites, roll.impostors) == ({"north": 1, "south": 2}, ())


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
    roll.call(with_news=False)
    assert roll.sites == {}, "within a round nobody is told anything"
    roll.call()
    assert roll.sites == {"north": 1}


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll_module, "FIRST_S", 3.0)
    monkeypatch.setattr(roll_module, "LATER_S", 0.2)


def called(roll: Roll) -> float:
    """How long a call between rounds took."""
    started = time.monotonic()
    roll.call(patience_s=roll_module.LATER_S)
    return time.monotonic() - started


@pytest.mark.usefixtures("hurried")
def test_a_site_on_a_slow_line_that_fell_silent_finds_its_way_back() -> None:
    """It answers later than is waited for between rounds, as it did at the start."""
    lobby = Lobby({1: "north", 2: "slow"})
    lobby.takes_s = {2: 0.6}
    roll = roll_of(lobby)
    roll.call(patience_s=3.0)
    roll.doubt(["slow"])
    called(roll)
    assert roll.sites == {"north": 1, "slow": 2}


@pytest.mark.usefixtures("hurried")
def test_a_slow_site_that_comes_late_is_waited_for_and_a_dead_one_holds_up_nobody_twice() -> None:
    lobby = Lobby({1: "north"})
    roll = roll_of(lobby)
    roll.call(patience_s=3.0)
    lobby.names[2], lobby.takes_s[2] = "slow", 0.6
    called(roll)
    assert roll.sites == {"north": 1, "slow": 2}
    lobby.names[3], lobby.takes_s[3] = "dead", math.inf
    assert called(roll) > 2.5
    assert all(called(roll) < 2.5 for _ in range(2))
    assert roll.sites == {"north": 1, "slow": 2}
    roll.doubt(["north"])
    lobby.takes_s[1] = math.inf
    assert called(roll) < 2.5, "one that was quick has not become slow"
    assert roll.sites == {"slow": 2}

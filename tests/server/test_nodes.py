# SPDX-License-Identifier: Apache-2.0
"""Who may connect: the SuperLink's list is made equal to nodes/ and the roster, and nothing is done without a reason."""

import os
import secrets
import time
from dataclasses import replace
from pathlib import Path

import pytest

from common import roster, transport_key
from common.errors import FedwardError, RosterExpired, TransportError
from common.roster import Roster
from server.process.control import Node
from server.process.nodes import Changes, Gatekeeper, Owners, reconcile, wanted
from simulations import consortium

SITES = ("east", "north", "west")
NOW = int(time.time())


class FakeSuperLink:
    """What `server.process.control.Control` says of a SuperLink, without one: the list of nodes, and how Flower changes it."""

    def __init__(self) -> None:
        self.known: list[Node] = []
        self.calls = 0
        self.down = False

    def nodes(self) -> list[Node]:
        self.calls += 1
        if self.down:
            raise TransportError("down")
        return list(self.known)

    def register(self, name: str, key: bytes) -> None:
        assert all(node.key != key for node in self.known), "Flower refuses a key that it has seen"
        self.known.append(Node(node=len(self.known) + 1, name=name, key=key, online=False, gone=False))

    def unregister(self, node: int) -> None:
        self.known = [replace(known, gone=True) if known.node == node else known for known in self.known]

    @property
    def let_in(self) -> set[str]:
        return {node.name for node in self.known if not node.gone}


@pytest.fixture
def nodes(tmp_path: Path) -> Path:
    """Keys of three sites' mailboxes."""
    folder = tmp_path / "nodes"
    folder.mkdir()
    for site in SITES:
        transport_key.create(tmp_path / f"{site}.key", name=site)
        (tmp_path / f"{site}.pub").rename(folder / f"{site}.pub")
    return folder


@pytest.fixture
def members() -> Roster:
    return consortium.found(SITES, entropy=secrets.token_bytes, now=NOW - 60).roster


def keys_of(folder: Path, members: Roster, complained: list[FedwardError] | None = None) -> dict[str, bytes]:
    heard = [] if complained is None else complained
    return wanted(folder, members, now=NOW, complain=heard.append)


def test_a_new_superlink_is_told_of_everybody_and_a_second_time_of_nobody(nodes: Path, members: Roster) -> None:
    superlink = FakeSuperLink()
    assert reconcile(superlink, keys_of(nodes, members)) == Changes(SITES, (), ())
    assert reconcile(superlink, keys_of(nodes, members)) == Changes((), (), ())
    assert superlink.let_in == set(SITES)


def test_a_revoked_site_and_one_whose_key_was_taken_away_are_let_in_no_more(nodes: Path, members: Roster) -> None:
    superlink = FakeSuperLink()
    reconcile(superlink, keys_of(nodes, members))
    assert reconcile(superlink, keys_of(nodes, roster.with_revoked(members, "west"))) == Changes((), ("west",), ())
    (nodes / "east.pub").unlink()
    reconcile(superlink, keys_of(nodes, roster.with_revoked(members, "west")))
    assert superlink.let_in == {"north"}


def test_a_site_that_is_in_no_roster_or_whose_time_is_over_is_not_let_in(nodes: Path, members: Roster) -> None:
    transport_key.create(nodes / "stranger.key", name="stranger")
    over = replace(members, members=tuple(replace(each, not_after=NOW - 1) if each.site_id == "east" else each for each in members.members))
    assert set(keys_of(nodes, over)) == {"north", "west"}


def test_a_key_that_came_back_is_named_because_flower_takes_none_twice(nodes: Path, members: Roster) -> None:
    superlink = FakeSuperLink()
    reconcile(superlink, keys_of(nodes, members))
    reconcile(superlink, keys_of(nodes, roster.with_revoked(members, "west")))
    assert reconcile(superlink, keys_of(nodes, members)) == Changes((), (), ("west",))


def test_one_key_for_two_sites_and_a_file_that_is_no_key_are_complained_of_and_stop_nobody_else(nodes: Path, members: Roster) -> None:
    (nodes / "north.pub").write_bytes((nodes / "east.pub").read_bytes())
    (nodes / "west.pub").write_text("-----BEGIN OPENSSH PRIVATE KEY-----")
    heard: list[FedwardError] = []
    assert set(keys_of(nodes, members, heard)) == {"east"}
    assert [error.code for error in heard] == ["E_NODE_KEY", "E_ROSTER_KEY"]


def test_the_superlink_is_asked_when_something_changed_and_not_otherwise(nodes: Path, members: Roster, tmp_path: Path) -> None:
    superlink, signed = FakeSuperLink(), tmp_path / "roster"
    signed.write_bytes(b"1")
    keeper = Gatekeeper(nodes, (signed,))

    def attend() -> Changes | None:
        return keeper.attend(superlink, lambda: members, lambda error: None)

    assert attend() == Changes(SITES, (), ())
    assert [attend(), attend(), superlink.calls] == [None, None, 1]
    os.utime(signed, ns=(1, 1))
    assert attend() == Changes((), (), ())
    (nodes / "west.pub").unlink()
    assert attend() == Changes((), ("west",), ())
    superlink.known = []  # its database is lost
    assert attend() is None
    keeper.forget()
    assert attend() == Changes(("east", "north"), (), ())


@pytest.mark.parametrize("cause", ["superlink", "roster"])
def test_what_failed_is_tried_again(nodes: Path, members: Roster, cause: str) -> None:
    superlink, keeper = FakeSuperLink(), Gatekeeper(nodes, ())

    def expired() -> Roster:
        raise RosterExpired("expired")

    superlink.down = cause == "superlink"
    with pytest.raises((TransportError, RosterExpired)):
        keeper.attend(superlink, expired if cause == "roster" else lambda: members, lambda error: None)
    superlink.down = False
    assert keeper.attend(superlink, lambda: members, lambda error: None) == Changes(SITES, (), ())


def test_a_node_is_whose_key_it_connects_with_whatever_it_is_called(nodes: Path, members: Roster) -> None:
    superlink, complained = FakeSuperLink(), list[FedwardError]()
    reconcile(superlink, keys_of(nodes, members))
    superlink.known = [replace(node, name="north") for node in superlink.known]
    owners = Owners(superlink, nodes, lambda: members, complained.append)
    assert owners() == {1: "east", 2: "north", 3: "west"}
    superlink.unregister(2)
    (nodes / "west.pub").unlink()
    assert owners() == {1: "east"}
    assert complained == []


def test_a_superlink_that_does_not_answer_lets_nobody_new_be_anybody(nodes: Path, members: Roster) -> None:
    superlink, complained = FakeSuperLink(), list[FedwardError]()
    owners = Owners(superlink, nodes, lambda: members, complained.append)
    superlink.down = True
    assert owners() == {}
    superlink.down = False
    reconcile(superlink, keys_of(nodes, members))
    known = owners()
    superlink.down = True
    assert owners() == known == {1: "east", 2: "north", 3: "west"}
    assert [error.code for error in complained] == ["E_TRANSPORT"] * 2

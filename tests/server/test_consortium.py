# SPDX-License-Identifier: Apache-2.0
"""Which roster the next round follows, and who is told what is new."""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import credentials, roster, wire
from common.errors import RosterNotFound
from common.roster import Roster
from server.membership.consortium import Consortium, Crier
from server.transport.exchange import Answer
from simulations import consortium as founding
from simulations.consortium import Consortium as Founded

NOW = int(time.time())


@pytest.fixture(scope="module")
def founded() -> Founded:
    return founding.found(["east", "north", "south", "west"], entropy=os.urandom, now=NOW)


@pytest.fixture
def members(founded: Founded, tmp_path: Path) -> Consortium:
    founding.enrol(founded, homes={}, coordinator=tmp_path)
    return Consortium(key=tmp_path, roster=tmp_path)


def with_newcomer(founded: Founded) -> tuple[Roster, Roster]:
    """A roster without one of the sites, and the next with it."""
    *others, newcomer = founded.roster.members
    held = replace(founded.roster, members=tuple(others))
    return held, roster.with_member(held, newcomer)


def test_a_roster_that_takes_trust_is_followed_at_once(members: Consortium, founded: Founded) -> None:
    members.epochs = dict.fromkeys(range(4), 1)
    assert members.is_due(roster.with_revoked(founded.roster, "north"), founded.roster)
    without = replace(founded.roster, epoch=2, members=founded.roster.members[1:])
    assert members.is_due(without, founded.roster)


def test_a_roster_that_only_renews_is_followed_at_once(members: Consortium, founded: Founded) -> None:
    members.epochs = dict.fromkeys(range(4), 1)
    assert members.is_due(roster.next_epoch(founded.roster), founded.roster)


@pytest.mark.parametrize(
    ("epochs", "due"),
    [([1, 1, 1, 2], False), ([1, 2, 2, 2], True), ([1, 1, 2, 2], True), ([], True)],
    ids=["only the newcomer", "most", "as many", "nobody was told"],
)
def test_a_roster_that_adds_sites_is_followed_once_at_least_as_many_hold_it(
    members: Consortium, founded: Founded, epochs: list[int], due: bool
) -> None:
    held, newer = with_newcomer(founded)
    members.epochs = dict(enumerate(epochs))
    assert members.is_due(newer, held) is due


def test_a_roster_that_has_run_out_is_not_held_on_to(members: Consortium, founded: Founded) -> None:
    held, newer = with_newcomer(founded)
    members.epochs = dict.fromkeys(range(4), 1)
    assert not members.is_due(newer, held, now=NOW)
    assert members.is_due(newer, held, now=held.not_after + 2 * roster.GRACE_S)


def test_adopting_tells_of_the_roster_with_its_signatures(members: Consortium, founded: Founded) -> None:
    told: list[tuple[Roster, bytes]] = []
    members.adopted = lambda *each: told.append(each)
    members.adopt(founded.roster)
    assert told == [(founded.roster, founded.signed_roster)]


def test_a_roster_that_is_gone_is_named(members: Consortium, tmp_path: Path) -> None:
    (tmp_path / credentials.ROSTER_FILE).unlink()
    with pytest.raises(RosterNotFound):
        members.read()


class Town:
    """A line whose nodes answer news with the epoch that they hold; None stays silent."""

    def __init__(self, epochs: dict[int, int | None]) -> None:
        self.epochs = epochs
        self.told: list[list[int]] = []

    def ask(self, question: str, contents: Mapping[int, Any], **_: object) -> Iterable[Answer]:
        assert question == wire.NEWS
        self.told.append(sorted(contents))
        for node in contents:
            if (epoch := self.epochs[node]) is not None:
                reply = wire.NewsReply(site=f"site{node}", epoch=epoch, plan="")
                yield Answer(node=node, content=wire.encode_news_reply(reply))


def test_everybody_is_told_once_and_who_has_yet_to_approve_again_after_a_minute(members: Consortium) -> None:
    town, now = Town({1: 1, 2: 0, 3: None}), [1000.0]
    crier = Crier(town, members, clock=lambda: now[0])  # type: ignore[arg-type] # a line is only asked
    crier.tell([1, 2, 3])
    town.epochs[2] = 1
    now[0] += 59
    crier.tell([1, 2, 3])
    assert town.told == [[1, 2, 3]]
    now[0] += 1
    crier.tell([1, 2, 3])
    town.epochs[3] = 1
    now[0] += 60
    crier.tell([1, 2, 3])
    now[0] += 60
    crier.tell([1, 2, 3])
    assert town.told == [[1, 2, 3], [2, 3], [3]]
    assert members.epochs == {1: 1, 2: 1, 3: 1}
    crier.tell([1])
    assert members.epochs == {1: 1}, "who is gone does not count"


def test_a_newer_roster_is_told_to_everybody_again(members: Consortium, founded: Founded, tmp_path: Path) -> None:
    town = Town({1: 1, 2: 1})
    crier = Crier(town, members)  # type: ignore[arg-type] # as above
    crier.tell([1, 2])
    newer = roster.sign(roster.render(roster.next_epoch(founded.roster)), root_seed=founded.root.seed)
    (tmp_path / credentials.ROSTER_FILE).write_bytes(newer)
    crier.tell([1, 2])
    assert town.told == [[1, 2], [1, 2]]

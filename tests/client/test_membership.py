# SPDX-License-Identifier: Apache-2.0
"""Who is in this site's cohorts is decided here: revocations at once, newcomers by a person, nothing backwards, nothing unsigned."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from client.membership import rosters as membership
from client.membership import rotation
from client.membership.rosters import Proposal, adopt, check_in_force, examine, in_force, take_in
from common import roster
from common.durable import write_atomically
from common.errors import RosterChanged, RosterExpired, RosterFormat, RosterKey, RosterPending, RosterSignature
from common.roster import Member, Roster
from common.secagg.keys import SigningKey
from simulations.consortium import MONTH_S, YEAR_S
from tests.client.members import STRANGER, Members, members, newcomer
from tests.common.secagg.federation import NOW


@pytest.fixture
def north(tmp_path: Path) -> Members:
    return members(tmp_path)


def member(north: Members, name: str) -> Member:
    found = north.roster.find(name)
    assert found is not None
    return found


def with_changed(north: Members, name: str, **changes: object) -> Roster:
    return roster.with_member(north.roster, replace(member(north, name), **changes))  # type: ignore[arg-type]


def renewed(north: Members) -> Roster:
    longer = tuple(replace(each, not_after=each.not_after + YEAR_S) for each in north.roster.members)
    return replace(north.roster, members=longer, not_after=north.roster.not_after + MONTH_S)


def epoch_in_force(north: Members) -> int:
    held = in_force(north.home)
    assert held is not None
    return held.epoch


def arrives(north: Members, changed: Roster, **options: int) -> Proposal:
    return take_in(north.home, north.published(changed, **options), now=NOW)


# What comes into force by itself.


def test_a_revocation_holds_at_once_and_nobody_is_asked(north: Members) -> None:
    found = arrives(north, roster.with_revoked(north.roster, "west"))
    assert found.changes.revoked == ("west",)
    held = in_force(north.home)
    assert held is not None
    assert (held.epoch, held.find("west").revoked) == (2, True)  # type: ignore[union-attr]
    check_in_force(north.home)


def test_a_renewal_holds_at_once(north: Members) -> None:
    assert arrives(north, renewed(north)).asks == ()
    assert epoch_in_force(north) == 2


def test_a_newcomer_waits_and_rounds_go_on_under_the_roster_in_force(north: Members) -> None:
    found = arrives(north, roster.with_member(north.roster, newcomer()))
    assert found.asks == ("new: anew",)
    assert epoch_in_force(north) == 1
    check_in_force(north.home)
    adopt(north.home, found.data, now=NOW)
    assert epoch_in_force(north) == 2
    assert membership.waiting(north.home) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda north: with_changed(north, "south", public_key=STRANGER.public), "another key or weight: south"),
        (lambda north: with_changed(north, "south", weight=7), "another key or weight: south"),
        (lambda north: with_changed(north, "north", weight=7), "another key or weight: north"),
        (lambda north: replace(north.roster, coordinator=STRANGER.public), "the coordinator has another key"),
    ],
)
def test_what_a_person_must_see_waits(north: Members, change: object, reason: str) -> None:
    assert callable(change)
    assert arrives(north, change(north)).asks == (reason,)
    assert epoch_in_force(north) == 1


def test_a_site_that_was_revoked_does_not_come_back_unseen(north: Members) -> None:
    gone = roster.with_revoked(north.roster, "west")
    arrives(north, gone)
    found = arrives(north, with_changed(north, "west"), epoch=3)
    assert found.asks == ("new: west",)
    assert epoch_in_force(north) == 2


def test_the_policy_may_ask_about_everything(tmp_path: Path) -> None:
    rules = (('revocations = "automatic"', 'revocations = "ask"'), ('renewals = "automatic"', 'renewals = "ask"'))
    north = members(tmp_path, rules=rules)
    assert arrives(north, renewed(north)).asks == ("it is valid for longer, or its entries are",)
    assert arrives(north, roster.with_revoked(north.roster, "west"), epoch=3).asks[0] == "revoked or removed: west"
    assert epoch_in_force(north) == 1


def test_the_policy_may_take_newcomers_but_not_a_cohort_of_them(tmp_path: Path) -> None:
    """A stolen root key signs three inventions and leaves one known peer: a person is asked, whatever the policy says of additions."""
    north = members(tmp_path, rules=(('additions = "ask"', 'additions = "automatic"'),))
    assert arrives(north, roster.with_member(north.roster, newcomer())).asks == ()
    assert epoch_in_force(north) == 2
    sybils = north.roster
    for name in ("x", "y", "z"):
        sybils = roster.with_member(sybils, newcomer(name, SigningKey(name.encode() * 32)))
    for name in ("west", "south"):
        sybils = roster.with_revoked(sybils, name)
    found = arrives(north, sybils, epoch=3)
    assert found.asks == ("1 of its other sites were trusted here before, 2 are asked for",)
    assert epoch_in_force(north) == 2


# While one waits.


@pytest.mark.parametrize(
    "taken",
    [
        lambda north: roster.with_revoked(north.roster, "west"),
        lambda north: replace(north.roster, members=tuple(each for each in north.roster.members if each.site_id != "west")),
        lambda north: with_changed(north, "west", public_key=SigningKey(b"\x44" * 32).public),
        lambda north: replace(north.roster, coordinator=SigningKey(b"\x44" * 32).public),
    ],
    ids=["revoked", "removed", "another key", "another coordinator"],
)
def test_nobody_is_worked_with_whom_a_waiting_roster_distrusts(north: Members, taken: object) -> None:
    """The consortium distrusts a party and adds a newcomer in one roster: until somebody decides, this site rests."""
    assert callable(taken)
    found = arrives(north, roster.with_member(taken(north), newcomer()))
    assert "new: anew" in found.asks
    assert epoch_in_force(north) == 1
    with pytest.raises(RosterPending):
        check_in_force(north.home)
    adopt(north.home, found.data, now=NOW)
    check_in_force(north.home)


def test_a_site_does_not_distrust_its_own_old_key(north: Members) -> None:
    """Its rotation and a newcomer are in one roster, which waits: until then it works on as before."""
    _, new = rotation.begin(north.home)
    found = arrives(north, roster.with_member(with_changed(north, "north", public_key=new.public), newcomer()))
    assert found.asks == ("new: anew",)
    check_in_force(north.home)


def test_a_revocation_alone_does_not_wait_for_a_newcomer_that_waits(north: Members) -> None:
    """Epoch 2 adds and waits; epoch 3, without the newcomer, revokes: it is in force at once, and nothing waits any more."""
    arrives(north, roster.with_member(north.roster, newcomer()))
    arrives(north, roster.with_revoked(north.roster, "west"), epoch=3)
    assert epoch_in_force(north) == 3
    assert membership.waiting(north.home) is None
    assert not (north.home / "incoming" / "roster").exists()


def test_a_waiting_roster_that_was_damaged_answers_nothing_and_gives_way_to_the_next(north: Members) -> None:
    arrives(north, roster.with_member(north.roster, newcomer()))
    file = north.home / "incoming" / "roster"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises((RosterFormat, RosterSignature)):
        check_in_force(north.home)
    arrives(north, roster.with_revoked(north.roster, "west"), epoch=3)
    check_in_force(north.home)


# What is never taken.


def test_a_roster_never_goes_back(north: Members) -> None:
    arrives(north, roster.with_revoked(north.roster, "west"))
    for way in (take_in, adopt, examine):
        with pytest.raises(RosterChanged):
            way(north.home, north.keys.signed_roster, now=NOW)
    assert epoch_in_force(north) == 2


def test_nor_behind_one_that_waits(north: Members) -> None:
    """Epoch 3 was seen and waits for a person; epoch 2, in which west is still trusted, comes late or on purpose."""
    arrives(north, roster.with_member(roster.with_revoked(north.roster, "west"), newcomer()), epoch=3)
    with pytest.raises(RosterChanged):
        arrives(north, renewed(north), epoch=2)


def test_two_rosters_of_one_epoch_are_refused(north: Members) -> None:
    with pytest.raises(RosterChanged):
        arrives(north, renewed(north), epoch=1)


def test_the_same_roster_again_is_no_news(north: Members) -> None:
    assert not take_in(north.home, north.keys.signed_roster, now=NOW).is_news


def test_what_the_pinned_roots_did_not_sign_is_refused(north: Members) -> None:
    forged = replace(roster.with_revoked(north.roster, "west"), epoch=2)
    for data in (roster.render(forged), roster.sign(roster.render(forged), root_seed=STRANGER.seed)):
        for way in (take_in, adopt):
            with pytest.raises(RosterSignature):
                way(north.home, data, now=NOW)
    assert epoch_in_force(north) == 1


def test_fewer_signatures_than_the_consortium_asks_for_are_refused(north: Members) -> None:
    second = SigningKey(b"\x33" * 32)
    roots = roster.Roots(keys=frozenset({north.keys.root.public, second.public}), needed=2)
    (north.home / "roots").write_bytes(roster.render_roots(roots))
    (north.home / "roster").unlink()
    once = north.published(north.roster)
    with pytest.raises(RosterSignature, match="1 valid"):
        adopt(north.home, once, now=NOW)
    adopt(north.home, roster.sign(once, root_seed=second.seed), now=NOW)


def test_an_expired_roster_is_refused(north: Members) -> None:
    with pytest.raises(RosterExpired):
        take_in(north.home, north.published(roster.with_revoked(north.roster, "west")), now=NOW + 3 * MONTH_S)


def test_another_key_under_this_sites_own_name_is_refused_whole(north: Members) -> None:
    for way in (take_in, adopt):
        with pytest.raises(RosterKey, match="'north'"):
            way(north.home, north.published(with_changed(north, "north", public_key=STRANGER.public)), now=NOW)
    assert epoch_in_force(north) == 1


def test_a_site_takes_its_own_revocation(north: Members) -> None:
    arrives(north, roster.with_revoked(north.roster, "north"))
    assert epoch_in_force(north) == 2


def test_the_first_roster_is_always_a_persons_to_approve(north: Members) -> None:
    (north.home / "roster").unlink()
    found = take_in(north.home, north.keys.signed_roster, now=NOW)
    assert found.asks == ("it is the first roster here",)
    assert in_force(north.home) is None
    assert adopt(north.home, found.data, now=NOW).changes.added == ("east", "north", "south", "west")
    assert epoch_in_force(north) == 1


def test_of_two_rosters_that_wait_the_later_stays(north: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator sends both at once, so that the older one, which trusts a revoked site still, is the last to be written."""
    older, newer = (north.published(roster.with_member(north.roster, newcomer()), epoch=epoch) for epoch in (2, 3))
    writing, done = threading.Event(), threading.Event()

    def slow(path: Path, content: bytes, *, fsync: bool, mode: int) -> None:
        if content == older:
            writing.set()
            done.wait(1.0)
        write_atomically(path, content, fsync=fsync, mode=mode)

    monkeypatch.setattr("client.membership.rosters.write_atomically", slow)
    first = threading.Thread(target=take_in, args=(north.home, older), kwargs={"now": NOW})
    first.start()
    assert writing.wait(20)
    try:
        take_in(north.home, newer, now=NOW)
    finally:
        done.set()
        first.join()
    waits = membership.waiting(north.home)
    assert waits is not None
    assert waits.roster.epoch == 3


def test_of_two_rosters_taken_at_once_the_later_stays(north: Members) -> None:
    """The operator's command and the site process, a hundred times: whoever comes second never puts the older one back."""
    files = {epoch: north.published(renewed(north), epoch=epoch) for epoch in range(2, 102)}

    def take(epochs: range) -> None:
        for epoch in epochs:
            try:
                adopt(north.home, files[epoch], now=NOW)
            except RosterChanged:
                continue

    threads = [threading.Thread(target=take, args=(epochs,)) for epochs in (range(2, 102, 2), range(3, 102, 2))]
    seen = 1
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        now_in_force = epoch_in_force(north)
        assert now_in_force >= seen
        seen = now_in_force
    assert epoch_in_force(north) == 101

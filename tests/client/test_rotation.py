# SPDX-License-Identifier: Apache-2.0
"""A site's key grows old, is lost or stolen: it works on until the roster names the new one, and its ledger never starts afresh."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from client import policy
from client.account import Account
from client.audit import SiteAudit
from client.home import ledger_place, read_site_file
from client.membership import approval, rotation
from client.membership import rosters as membership
from common import credentials, keyfile, roster
from common.audit.entries import Paused, Resumed
from common.audit.log import LOG_FILE
from common.errors import ApprovalBroken, LedgerRollback, LedgerTampered, RosterKey, SecretFile
from common.privacy.entries import Caps
from common.privacy.tally import Tally
from common.secagg.keys import SigningKey
from tests.client.homes import account, edit, release
from tests.client.hospitals import Hospitals, hospitals


@pytest.fixture
def three(tmp_path: Path) -> Hospitals:
    return hospitals(tmp_path)


@pytest.fixture
def home(three: Hospitals) -> Path:
    """North, two rounds later."""
    home = three.homes["north"]
    for number in (1, 2):
        account(home).pay(release(number, three.plan))
    return home


def named(three: Hospitals, key: bytes) -> bytes:
    """The next roster, in which north has this key."""
    north = three.members.roster.find("north")
    assert north is not None
    changed = roster.with_member(three.members.roster, replace(north, public_key=key))
    return roster.sign(roster.render(changed), root_seed=three.members.root.seed)


def now_of(three: Hospitals) -> int:
    return three.members.roster.not_before


def tally(home: Path) -> Tally:
    chain = account(home).chain()
    assert chain is not None
    return chain.tally


def same(left: Tally, right: Tally) -> bool:
    return (left.beyond(right), right.beyond(left)) == ((), ())


def test_a_rotation_leaves_no_gap(three: Hospitals, home: Path) -> None:
    old, new = rotation.begin(home)
    assert rotation.begin(home) == (old, new), "a second request asks for the same key"
    served, was = Account(home, read_site_file(home)), tally(home)
    assert credentials.load(home, "site").signer == old
    served.pay(release(3, three.plan))
    membership.take_in(home, named(three, new.public), now=now_of(three))
    assert credentials.load(home, "site").signer == new
    assert rotation.waiting_key(home) is None
    assert keyfile.public_key(str(home / "identity.pub"), "site") == new.public
    served.pay(release(4, three.plan))  # a site process that was open all the while
    assert sum(item.times for item in tally(home).items()) == 2 + sum(item.times for item in was.items())
    assert approval.approved_plan(home) == three.plan
    assert approval.approval_of(home).key == new.public


def test_own_rotation_needs_nobodys_word_and_another_sites_does(three: Hospitals, home: Path) -> None:
    _, new = rotation.begin(home)
    data = named(three, new.public)
    assert membership.examine(home, data, now=now_of(three)).asks == ()
    assert membership.examine(three.homes["south"], data, now=now_of(three)).asks != ()


@pytest.mark.parametrize("step", ["succession.hand_over", "approval.sign_anew", "_put_in_place"])
@pytest.mark.parametrize("after", [False, True])
def test_the_change_of_keys_may_stop_anywhere_and_be_repeated(
    three: Hospitals, home: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    was = tally(home)
    _, new = rotation.begin(home)
    owner, _, name = step.rpartition(".")
    target = getattr(rotation, owner) if owner else rotation
    whole = getattr(target, name)

    def stop(*given: object) -> None:
        if after:
            whole(*given)
        raise KeyboardInterrupt

    data = named(three, new.public)
    with monkeypatch.context() as patched:
        patched.setattr(target, name, stop)
        with pytest.raises(KeyboardInterrupt):
            membership.adopt(home, data, now=now_of(three))
    membership.adopt(home, data, now=now_of(three))
    assert credentials.load(home, "site").signer == new
    assert same(tally(home), was)
    assert approval.approved_plan(home) == three.plan


def test_a_lost_key_costs_no_charge_and_needs_a_new_approval(three: Hospitals, home: Path) -> None:
    was = tally(home)
    (home / "identity.key").unlink()
    new = rotation.recover(home, reason="the disk was burnt")
    assert same(tally(home), was)
    with pytest.raises(ApprovalBroken):
        approval.approved_plan(home)
    membership.take_in(home, named(three, new.public), now=now_of(three))
    approval.approve(home, three.signed, now=now_of(three))
    account(home).pay(release(3, three.plan))
    assert not same(tally(home), was)


def test_a_stolen_keys_ledger_is_signed_over_by_it(three: Hospitals, home: Path) -> None:
    was, old = tally(home), keyfile.load(home / "identity.key", "site")
    new = rotation.recover(home, reason="a laptop was stolen", stolen=True)
    assert same(tally(home), was)
    assert keyfile.load(home / "identity.key", "site") == new
    assert old.seed.hex().encode() not in b"".join(path.read_bytes() for path in home.iterdir() if path.is_file())


def test_a_key_that_is_there_is_not_given_up_by_mistake(home: Path) -> None:
    with pytest.raises(SecretFile, match="is there"):
        rotation.recover(home, reason="a mistake")
    (home / "identity.key").unlink()
    with pytest.raises(SecretFile, match="is not there"):
        rotation.recover(home, reason="a mistake", stolen=True)


def test_recovery_with_nothing_left_of_the_ledger_is_refused(home: Path) -> None:
    place = ledger_place(home, read_site_file(home))
    (home / "identity.key").unlink()
    for file in (place.file, *place.head.parent.glob(f"{place.head.name}-*")):
        file.unlink()
    with pytest.raises(LedgerRollback, match="neither"):
        rotation.recover(home, reason="all is gone")
    rotation.recover(home, reason="it never trained", never_opened=True)


def test_after_recovery_no_empty_ledger_can_be_opened(home: Path) -> None:
    (home / "identity.key").unlink()
    rotation.recover(home, reason="the disk was burnt")
    fresh = account(home)
    for gone in (None, "ledger.jsonl"):
        if gone:
            (home / gone).unlink()
        with pytest.raises((LedgerRollback, LedgerTampered)):
            fresh.begin(read_caps(home))


def test_a_ledger_of_another_key_than_the_rosters_is_not_carried_over(three: Hospitals, home: Path) -> None:
    """Who throws the key away to be rid of what it spent: an empty ledger under a key of their own is not this site's."""
    place = ledger_place(home, read_site_file(home))
    for file in (place.file, *place.head.parent.glob(f"{place.head.name}-*"), home / "identity.key", home / "identity.pub"):
        file.unlink()
    keyfile.create(home / "identity.key", "site", entropy=lambda _: SigningKey(b"\x09" * 32).seed)
    account(home).begin(read_caps(home))
    (home / "identity.key").unlink()
    with pytest.raises(LedgerTampered, match="the roster's key"):
        rotation.recover(home, reason="a clean slate")


def test_without_the_roster_that_named_it_nobody_says_whose_ledger_it_is(three: Hospitals, home: Path) -> None:
    (home / "identity.key").unlink()
    others = tuple(member for member in three.members.roster.members if member.site_id != "north")
    changed = replace(three.members.roster, members=others)
    (home / "roster").write_bytes(roster.sign(roster.render(changed), root_seed=three.members.root.seed))
    with pytest.raises(RosterKey):
        rotation.recover(home, reason="the disk was burnt")


def read_caps(home: Path) -> Caps:

    return policy.load(home).budget


def test_the_audit_log_goes_on_under_the_new_key(three: Hospitals, home: Path) -> None:
    """One that a site process holds open, too: each line is signed by the key of its time."""
    held = SiteAudit(home, read_site_file(home), clock=lambda: now_of(three))
    held.say(Paused())
    _, new = rotation.begin(home)
    membership.adopt(home, named(three, new.public), now=now_of(three))
    SiteAudit(home, read_site_file(home), clock=lambda: now_of(three)).say(Resumed())
    held.say(Paused())
    chain = held._log().read()
    assert chain.key == new.public.hex()
    assert (home / LOG_FILE).read_bytes().count(b'"KEY"') == 1


def test_two_homes_that_share_a_ledger_change_keys_together(three: Hospitals, home: Path, tmp_path: Path) -> None:
    """A second home over the same patients: the key to come is copied there, and whichever hears of the roster first, both go on."""
    second = tmp_path / "second"
    shutil.copytree(home, second)
    for mine in (second / "ledger.jsonl", *second.glob("ledger.head-*")):
        mine.unlink()
    edit(second / "site.toml", "[ledger]\n", f'[ledger]\nfolder = "{home}"\n')
    was = tally(second)
    _, new = rotation.begin(home)
    for name in (rotation.NEXT_KEY_FILE, "identity.next.pub"):
        shutil.copy(home / name, second / name)
    for number, each in enumerate((second, home), start=3):
        membership.take_in(each, named(three, new.public), now=now_of(three))
        assert credentials.load(each, "site").signer == new
        assert approval.approved_plan(each) == three.plan
        account(each).pay(release(number, three.plan))
    assert sum(item.times for item in tally(second).items()) == 2 + sum(item.times for item in was.items())

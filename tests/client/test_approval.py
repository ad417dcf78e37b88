# SPDX-License-Identifier: Apache-2.0
"""Only the plan that this site's operator signed for is followed: whoever edits plan, record or signatures afterwards is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from client.membership import approval
from client.membership.approval import SignedPlan, approve, approved_plan
from common import credentials, endorsement, roster
from common.errors import ApprovalBroken, FedwardError, PlanError, PlanNotApproved, PlanSignature, RosterChanged, RosterNotFound
from common.plan import parse, to_toml
from common.roster import Roots
from common.secagg.keys import SigningKey
from tests.client.members import Members, a_plan, members
from tests.common.secagg.federation import NOW


@pytest.fixture
def north(tmp_path: Path) -> Members:
    return members(tmp_path)


@pytest.fixture
def approved(north: Members) -> Members:
    approve(north.home, north.endorsed(a_plan()), now=NOW)
    return north


def edited(home: Path, name: str, old: bytes, new: bytes) -> None:
    file = home / "approved" / name
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new, 1))


def test_an_approved_plan_is_followed_as_it_was_signed(approved: Members) -> None:
    assert approved_plan(approved.home) == a_plan()
    found = approval.approval_of(approved.home)
    assert (found.site, found.epoch, found.at) == ("north", 1, NOW)


def test_without_an_approval_there_is_no_plan(north: Members) -> None:
    with pytest.raises(PlanNotApproved):
        approved_plan(north.home)


def test_a_later_approval_replaces_the_earlier(approved: Members) -> None:
    approve(approved.home, approved.endorsed(a_plan(version=2)), now=NOW + 1)
    assert approved_plan(approved.home).plan.version == 2


def test_comments_and_order_may_be_edited_and_values_not(approved: Members) -> None:
    edited(approved.home, "plan.toml", b"[plan]", b"# read by the ethics board\n[plan]")
    assert approved_plan(approved.home) == a_plan()
    edited(approved.home, "plan.toml", b"rounds = 4", b"rounds = 400")
    with pytest.raises(ApprovalBroken):
        approved_plan(approved.home)


@pytest.mark.parametrize("name", ["plan.toml", "plan.sig", "approval"])
def test_whichever_file_is_missing_there_is_no_plan(approved: Members, name: str) -> None:
    (approved.home / "approved" / name).unlink()
    with pytest.raises(PlanNotApproved):
        approved_plan(approved.home)


def test_no_single_byte_of_the_record_can_be_changed(approved: Members) -> None:
    file = approved.home / "approved" / "approval"
    record = file.read_bytes()
    for at in range(len(record)):
        file.write_bytes(record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :])
        with pytest.raises(ApprovalBroken):
            approved_plan(approved.home)
    for other in (b"", record[:-1], record + b"\n", record * 2):
        file.write_bytes(other)
        with pytest.raises(ApprovalBroken):
            approved_plan(approved.home)


def test_another_sites_record_is_not_this_sites(approved: Members, tmp_path: Path) -> None:
    """South's approved/ copied into north's home: the same plan, the same roots, another hospital's yes."""
    (tmp_path / "other").mkdir()
    south = tmp_path / "other" / "south"
    south.mkdir()
    credentials.save(
        south, "site", signer=approved.keys.sites["south"], signed_roster=approved.keys.signed_roster, roots=approved.keys.roots
    )
    (south / "site.toml").write_text('[site]\nname = "south"\n')
    approve(south, approved.endorsed(a_plan()), now=NOW)
    shutil.rmtree(approved.home / "approved")
    shutil.copytree(south / "approved", approved.home / "approved")
    with pytest.raises(ApprovalBroken, match="'south'"):
        approved_plan(approved.home)
    edited(approved.home, "approval", b"site south", b"site north")
    with pytest.raises(ApprovalBroken, match="not signed by the key"):
        approved_plan(approved.home)


def test_a_record_under_the_thiefs_own_key_is_refused(approved: Members) -> None:
    """Whoever can write into the folder and does not hold the site's key cannot say yes in its name."""
    thief = SigningKey(b"\x66" * 32)
    said = replace(approval.approval_of(approved.home), key=thief.public)
    (approved.home / "approved" / "approval").write_bytes(approval._render(said, thief))
    with pytest.raises(ApprovalBroken):
        approved_plan(approved.home)


def test_an_approval_does_not_outlive_the_roots_that_it_was_given_under(approved: Members) -> None:
    other = SigningKey(b"\x77" * 32)
    roots = Roots(keys=frozenset({other.public}))
    (approved.home / "roots").write_bytes(roster.render_roots(roots))
    signed = roster.sign(roster.render(approved.roster), root_seed=other.seed)
    (approved.home / "roster").write_bytes(signed)
    with pytest.raises(PlanSignature):
        approved_plan(approved.home)


def test_the_roots_word_is_looked_at_each_time(approved: Members) -> None:
    """An approval whose plan the consortium did not sign, as an operator with the key could make one."""
    stranger = SigningKey(b"\x88" * 32)
    roots = Roots(keys=frozenset({stranger.public}))
    said = endorsement.sign(endorsement.unsigned(a_plan(), roots=roots, minimum_epoch=1), stranger, roots=roots)
    (approved.home / "approved" / "plan.sig").write_bytes(endorsement.render(said))
    with pytest.raises(PlanSignature):
        approved_plan(approved.home)


def test_a_roster_older_than_the_plan_asks_for_is_refused(north: Members) -> None:
    with pytest.raises(RosterChanged):
        approve(north.home, north.endorsed(a_plan(), epoch=2), now=NOW)
    (north.home / "roster").write_bytes(north.published(north.roster))
    approve(north.home, north.endorsed(a_plan(), epoch=2), now=NOW)
    (north.home / "roster").write_bytes(north.keys.signed_roster)
    with pytest.raises(RosterChanged):
        approved_plan(north.home)


def test_new_rosters_void_no_approval(approved: Members) -> None:
    """The plan names no roster: a hospital joins, one is revoked, everybody is renewed, and nobody reads the plan again."""
    from tests.client.members import newcomer

    joined = roster.with_member(approved.roster, newcomer())
    for epoch, changed in enumerate((joined, roster.with_revoked(joined, "south"), joined), start=2):
        (approved.home / "roster").write_bytes(approved.published(changed, epoch=epoch))
        assert approved_plan(approved.home) == a_plan()


def altered_plan(given: SignedPlan) -> SignedPlan:
    plan = parse(given.text.decode())
    weaker = replace(plan, privacy=replace(plan.privacy, epsilon=80.0))
    return replace(given, text=to_toml(weaker).encode())


def of_another_plan(given: SignedPlan) -> SignedPlan:
    return replace(given, text=to_toml(a_plan(name="other")).encode())


def unsigned(given: SignedPlan) -> SignedPlan:
    return replace(given, endorsement=endorsement.render(replace(endorsement.parse(given.endorsement), signatures=())))


def with_a_lower_epoch(given: SignedPlan) -> SignedPlan:
    return replace(given, endorsement=given.endorsement.replace(b"epoch 1\n", b"epoch 0\n"))


def torn(given: SignedPlan) -> SignedPlan:
    return replace(given, endorsement=given.endorsement[:-2])


@pytest.mark.parametrize("attack", [altered_plan, of_another_plan, unsigned, with_a_lower_epoch, torn])
def test_a_plan_that_the_roots_did_not_sign_cannot_be_approved(north: Members, attack: object) -> None:
    assert callable(attack)
    with pytest.raises(PlanSignature):
        approve(north.home, attack(north.endorsed(a_plan())), now=NOW)
    assert not (north.home / "approved").exists()


def test_what_is_no_plan_is_refused_as_one(north: Members) -> None:
    for text in (b"", b"\xff\xfe", b"[plan]", b"[simulation]\nsites = 3\n"):
        with pytest.raises(PlanError):
            approve(north.home, replace(north.endorsed(a_plan()), text=text), now=NOW)


@pytest.mark.parametrize("name", ["roster", "roots"])
def test_before_the_consortium_is_known_no_plan_is_approved(north: Members, name: str) -> None:
    (north.home / name).unlink()
    with pytest.raises(RosterNotFound):
        approve(north.home, north.endorsed(a_plan()), now=NOW)


def test_a_machine_that_stops_between_the_files_has_no_plan_and_may_go_on(approved: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    write, written = approval._write, []

    def stop_at_the_record(file: Path, content: bytes) -> None:
        if file.name == "approval":
            raise KeyboardInterrupt
        written.append(file.name)
        write(file, content)

    newer = approved.endorsed(a_plan(version=2))
    with monkeypatch.context() as patched:
        patched.setattr(approval, "_write", stop_at_the_record)
        with pytest.raises(KeyboardInterrupt):
            approve(approved.home, newer, now=NOW)
    assert written == ["plan.toml", "plan.sig"]
    with pytest.raises(ApprovalBroken):
        approved_plan(approved.home)
    approve(approved.home, newer, now=NOW)
    assert approved_plan(approved.home).plan.version == 2


def test_every_refusal_says_what_to_do(approved: Members) -> None:
    edited(approved.home, "approval", b"at 20", b"at 19")
    with pytest.raises(FedwardError) as refusal:
        approved_plan(approved.home)
    assert "fedward site approve" in refusal.value.fix

# SPDX-License-Identifier: Apache-2.0
"""The roster: canonical, signed by enough roots, never older than the one held."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import roster
from common.errors import FedwardError, MessageTooLarge, RosterChanged, RosterExpired, RosterFormat, RosterSignature, UnknownPeer
from common.roster import Member, Roots
from common.secagg.keys import SigningKey
from simulations.consortium import MONTH_S, YEAR_S, found
from tests.common.secagg.federation import NOW, seeded

DAY_S = 24 * 3600
CONSORTIUM = found(["east", "north", "south"], entropy=seeded("roster"), now=NOW)
ROSTER, FILE = CONSORTIUM.roster, CONSORTIUM.signed_roster


def newcomer(name: str = "west") -> Member:
    return Member(site_id=name, public_key=SigningKey(name.encode().ljust(32)).public, not_before=NOW, not_after=NOW + YEAR_S)


def roots(*seeds: bytes, needed: int = 1) -> Roots:
    return Roots(keys=frozenset(SigningKey(seed).public for seed in seeds), needed=needed)


def test_a_signed_roster_verifies_and_reads_back() -> None:
    assert roster.verify(FILE, roots=CONSORTIUM.roots) == ROSTER
    assert b"site north " in FILE


def test_every_flipped_byte_is_refused() -> None:
    for at in range(len(FILE)):
        altered = FILE[:at] + bytes([FILE[at] ^ 1]) + FILE[at + 1 :]
        with pytest.raises((RosterFormat, RosterSignature)):
            roster.verify(altered, roots=CONSORTIUM.roots)


@given(st.binary(max_size=400))
def test_junk_is_refused_by_name(junk: bytes) -> None:
    with pytest.raises(RosterFormat):
        roster.parse(junk)


@given(st.integers(0, len(FILE)), st.integers(0, len(FILE)))
def test_cut_and_repeated_files_are_refused_by_name(start: int, stop: int) -> None:
    mangled = FILE[:start] + FILE[stop:]
    if mangled != FILE:
        with pytest.raises(FedwardError):
            roster.verify(mangled, roots=CONSORTIUM.roots)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"epoch 1\n", b"epoch 01\n"),
        (b"epoch 1\n", b"epoch  1\n"),
        (b"\n", b"\r\n"),
        (b" active 1\n", b" active +1\n"),
        (b" active 1\n", b" Active 1\n"),
        (b"site north ", b"site North "),
        (b"site north ", b"site south "),
        (b" active 1\n", b" active 0\n"),
        (b" active 1\n", b" active 65537\n"),
    ],
)
def test_a_second_spelling_is_refused(before: bytes, after: bytes) -> None:
    assert before in FILE
    with pytest.raises(RosterFormat):
        roster.parse(FILE.replace(before, after))


def test_an_oversized_file_is_refused_unread() -> None:
    with pytest.raises(MessageTooLarge):
        roster.parse(FILE + bytes(5 * 2**20))


def test_a_foreign_root_does_not_count() -> None:
    forged = roster.sign(roster.render(ROSTER), root_seed=b"\x01" * 32)
    with pytest.raises(RosterSignature):
        roster.verify(forged, roots=CONSORTIUM.roots)


def test_two_of_three_roots_must_sign_and_one_signature_counts_once() -> None:
    a, b, c = b"a" * 32, b"b" * 32, b"c" * 32
    two_of_three = roots(a, b, c, needed=2)
    once = roster.sign(roster.render(ROSTER), root_seed=a)
    with pytest.raises(RosterSignature):
        roster.verify(roster.sign(once, root_seed=a), roots=two_of_three)
    assert roster.verify(roster.sign(once, root_seed=c), roots=two_of_three) == ROSTER


def test_the_order_of_signing_is_irrelevant() -> None:
    body, a, b = roster.render(ROSTER), b"a" * 32, b"b" * 32
    assert roster.sign(roster.sign(body, root_seed=a), root_seed=b) == roster.sign(roster.sign(body, root_seed=b), root_seed=a)


def test_a_downgrade_is_refused() -> None:
    newer = roster.with_revoked(ROSTER, "north")
    roster.check_successor(newer, held=ROSTER)
    with pytest.raises(RosterChanged):
        roster.check_successor(ROSTER, held=newer)
    with pytest.raises(RosterChanged):
        roster.check_successor(ROSTER, held=None, minimum_epoch=2)


def test_two_rosters_of_one_epoch_are_refused() -> None:
    roster.check_successor(ROSTER, held=ROSTER)
    other = replace(roster.with_member(ROSTER, newcomer()), epoch=ROSTER.epoch)
    with pytest.raises(RosterChanged):
        roster.check_successor(other, held=ROSTER)


def test_validity_has_a_day_of_grace() -> None:
    roster.check_valid(ROSTER, now=NOW + MONTH_S + DAY_S)
    for late in (NOW + MONTH_S + DAY_S + 1, NOW - DAY_S - 1):
        with pytest.raises(RosterExpired):
            roster.check_valid(ROSTER, now=late)
    with pytest.raises(RosterExpired):
        roster.active_member(ROSTER, "north", now=NOW + YEAR_S + DAY_S + 1)


def test_a_revoked_or_unknown_site_is_no_member() -> None:
    assert roster.active_member(ROSTER, "north", now=NOW).site_id == "north"
    for name in ("north", "elsewhere"):
        with pytest.raises(UnknownPeer):
            roster.active_member(roster.with_revoked(ROSTER, "north"), name, now=NOW)
    with pytest.raises(UnknownPeer):
        roster.with_revoked(ROSTER, "elsewhere")


def test_changes_name_what_an_operator_approves() -> None:
    new = roster.with_member(roster.with_revoked(ROSTER, "north"), newcomer())
    new = roster.with_member(new, replace(newcomer("south"), weight=2))
    new = replace(new, members=tuple(member for member in new.members if member.site_id != "east"), coordinator=bytes(32))
    found = roster.changes(ROSTER, new)
    assert found.added == ("west",)
    assert found.removed == ("east",)
    assert found.revoked == ("north",)
    assert found.rekeyed == found.reweighted == ("south",)
    assert found.coordinator_changed
    assert found.takes_trust
    assert roster.changes(new, roster.with_member(new, replace(newcomer("north"), revoked=False))).reinstated == ("north",)


def test_a_renewal_or_a_newcomer_takes_trust_from_nobody() -> None:
    south = ROSTER.find("south")
    assert south is not None
    renewed = roster.with_member(ROSTER, replace(south, not_after=south.not_after + DAY_S))
    found = roster.changes(ROSTER, roster.with_member(renewed, newcomer()))
    assert (found.renewed, found.added, found.takes_trust) == (("south",), ("west",), False)
    assert roster.changes(ROSTER, ROSTER) == roster.Changes()


def test_two_sites_cannot_share_a_key() -> None:
    twin = replace(newcomer("twin"), public_key=ROSTER.members[0].public_key)
    with pytest.raises(RosterFormat):
        roster.render(roster.with_member(ROSTER, twin))

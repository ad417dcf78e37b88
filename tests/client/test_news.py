# SPDX-License-Identifier: Apache-2.0
"""News are the coordinator's to bring and the roots' to sign; nothing that arrives is followed."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.membership import approval, news, pause
from client.membership.news import receive
from common import news as common_news
from common import roster
from common.errors import CoordinatorSignature, PlanMismatch, PlanNotApproved, PlanSignature, RosterChanged, RosterSignature, SiteLeft
from common.news import News
from common.plan import digest_of
from common.secagg.keys import SigningKey
from common.wire import NewsReply
from tests.client.members import STRANGER, Members, a_plan, members, newcomer
from tests.common.secagg.federation import NOW


@pytest.fixture
def north(tmp_path: Path) -> Members:
    return members(tmp_path)


def told(north: Members, *, by: SigningKey | None = None, **parts: bytes) -> NewsReply:
    return receive(north.home, common_news.signed(News(**parts), by or north.keys.coordinator), now=NOW)


def plan_of(north: Members, **changes: object) -> dict[str, bytes]:
    given = north.endorsed(a_plan(**changes))
    return {"plan": given.text, "endorsement": given.endorsement}


def test_a_revocation_that_arrives_is_in_force_and_said_so(north: Members) -> None:
    assert told(north) == NewsReply(site="north", epoch=1, plan="")
    assert told(north, roster=north.published(roster.with_revoked(north.roster, "west"))).epoch == 2


def test_a_newcomer_waits_and_the_coordinator_sees_that_it_does(north: Members) -> None:
    assert told(north, roster=north.published(roster.with_member(north.roster, newcomer()))).epoch == 1


def test_a_plan_that_arrives_waits_until_somebody_has_read_it(north: Members) -> None:
    assert told(north, **plan_of(north)).plan == ""
    with pytest.raises(PlanNotApproved):
        approval.approved_plan(north.home)
    waits = news.waiting_plan(north.home)
    assert waits is not None
    approval.approve(north.home, waits, now=NOW)
    news.forget_plan(north.home, digest_of(a_plan()))
    assert news.waiting_plan(north.home) is None
    assert told(north, **plan_of(north)).plan == digest_of(a_plan())
    assert news.waiting_plan(north.home) is None, "what is approved does not wait again"


def test_an_older_version_of_a_plan_does_not_take_the_newers_place(north: Members) -> None:
    told(north, **plan_of(north, version=2))
    with pytest.raises(PlanMismatch):
        told(north, **plan_of(north, version=1))
    assert told(north, **plan_of(north, version=3)) == NewsReply(site="north", epoch=1, plan="")


def test_nobody_but_the_coordinator_brings_news(north: Members) -> None:
    revoking = north.published(roster.with_revoked(north.roster, "west"))
    for stranger in (STRANGER, north.keys.sites["south"], north.keys.root):
        with pytest.raises(CoordinatorSignature):
            told(north, by=stranger, roster=revoking)
    unsigned = News(roster=revoking)
    exchanged = replace(common_news.signed(unsigned, north.keys.coordinator), roster=north.published(north.roster))
    for forged in (unsigned, exchanged):
        with pytest.raises(CoordinatorSignature):
            receive(north.home, forged, now=NOW)


def test_the_coordinator_can_make_neither_roster_nor_plan(north: Members) -> None:
    forged = roster.sign(roster.render(replace(north.roster, epoch=2)), root_seed=north.keys.coordinator.seed)
    with pytest.raises(RosterSignature):
        told(north, roster=forged)
    signed = plan_of(north)
    weaker = signed["plan"].replace(b"epsilon = 8", b"epsilon = 9")
    assert weaker != signed["plan"]
    with pytest.raises(PlanSignature):
        told(north, **{**signed, "plan": weaker})
    assert news.waiting_plan(north.home) is None


def test_old_news_told_again_change_nothing(north: Members) -> None:
    first = north.published(roster.with_revoked(north.roster, "west"))
    told(north, roster=first)
    told(north, roster=north.published(roster.with_revoked(north.roster, "west"), epoch=3))
    with pytest.raises(RosterChanged):
        told(north, roster=first)
    assert told(north).epoch == 3


def test_a_new_coordinator_may_bring_the_roster_that_names_it_and_still_waits_for_a_person(north: Members) -> None:
    new = SigningKey(b"\x22" * 32)
    named = north.published(replace(north.roster, coordinator=new.public))
    assert told(north, by=new, roster=named).epoch == 1
    with pytest.raises(CoordinatorSignature):
        told(north, by=new)


def test_a_paused_site_hears_of_a_revocation_and_one_that_left_hears_nothing(north: Members) -> None:
    pause.pause(north.home)
    assert told(north, roster=north.published(roster.with_revoked(north.roster, "west"))).epoch == 2
    (north.home / pause.LEFT_FILE).write_text("a statement")
    with pytest.raises(SiteLeft):
        told(north)


def test_before_the_first_roster_a_site_listens_to_whom_its_roots_name(north: Members) -> None:
    (north.home / "roster").unlink()
    with pytest.raises(CoordinatorSignature):
        told(north)
    assert told(north, roster=north.keys.signed_roster) == NewsReply(site="north", epoch=0, plan="")
    assert (north.home / "incoming" / "roster").read_bytes() == north.keys.signed_roster


def test_what_waits_is_told_in_words(north: Members) -> None:
    assert news.undecided(north.home) == []
    told(north, **plan_of(north, version=4))
    told(north, roster=north.published(roster.with_member(north.roster, newcomer())))
    assert news.undecided(north.home) == ["roster epoch 2 (new: anew)", "plan 'journey', version 4"]
    both = roster.with_member(roster.with_revoked(north.roster, "west"), newcomer())
    told(north, roster=north.published(both, epoch=3))
    assert news.undecided(north.home)[0].endswith("until then this site rests")
    (north.home / "incoming" / "roster").write_bytes(b"torn")
    assert news.undecided(north.home)[0] == "a roster that is damaged (E_ROSTER_FORMAT)"

# SPDX-License-Identifier: Apache-2.0
"""A coordinator that leaves out whom it likes: it has nobody's word for it, and an auditor sees that."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from common.audit import evidence
from common.audit.entries import Fact, LeftOut
from common.secagg import codec, complaints
from common.secagg.complaints import Complaint
from simulations.apps import FAULTY_APP
from simulations.engine.nursery import Nursery
from tests.attacks.forgers import COORDINATOR, Bundles, exported, judged, with_reply
from tests.journeys.made import made_scenario, made_stage, train

RUBBISH, MISDEALT, HONEST = "site_02", "site_04", "site_01"
"""One whose shares do not open, in round 1, and one whose shares fit nothing, in round 2; and one who did nothing wrong."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    folder = tmp_path_factory.mktemp("left-out")
    stage = made_stage(folder / "run", made_scenario(private=True).with_changes(sites=5, rounds=2))
    with Nursery(FAULTY_APP) as nursery:
        train(stage, nursery, f"{RUBBISH}:rubbish:1:share", f"{MISDEALT}:misdeal:2:share")
    return exported(stage, folder / "bundles", with_vectors=False)


@pytest.fixture
def bundles(honest: Bundles, tmp_path: Path) -> Bundles:
    return honest.copied(tmp_path / "bundles")


def told(bundles: Bundles) -> dict[str, LeftOut]:
    return {fact.site: fact for fact in bundles.facts(COORDINATOR) if isinstance(fact, LeftOut)}


def found(bundles: Bundles) -> list[str]:
    """What is found about leaving out, and nothing else may be."""
    report = judged(bundles.paths)
    assert {finding.code for finding in report.findings} <= {"F_EVIDENCE"}
    assert all("was left out" in finding.text for finding in report.findings)
    return [finding.text for finding in report.findings]


def changing(site: str, change: Callable[[LeftOut], Iterable[Fact]]) -> Callable[[list[Fact]], Iterator[Fact]]:
    def edit(facts: list[Fact]) -> Iterator[Fact]:
        for fact in facts:
            yield from change(fact) if isinstance(fact, LeftOut) and fact.site == site else (fact,)

    return edit


def complained(bundles: Bundles) -> str:
    (path,) = (bundles.folder / COORDINATOR / evidence.FOLDER).glob("*-complaints")
    return path.name


def test_those_who_had_it_coming_are_found_to(honest: Bundles) -> None:
    """The control for everything below: one by its peers' word, one by its shares."""
    assert {site: len(fact.accusers) for site, fact in told(honest).items()} == {RUBBISH: 4, MISDEALT: 0}
    assert found(honest) == []
    assert not any("left out" in each for each in judged(honest.paths).unchecked)


@pytest.mark.parametrize("beside", [RUBBISH, MISDEALT])
def test_one_more_who_is_left_out_beside_them_is_found(bundles: Bundles, beside: str) -> None:
    bundles.rewrite(COORDINATOR, changing(beside, lambda fact: (fact, replace(fact, site=HONEST))))
    (text,) = found(bundles)
    assert f"'{HONEST}' was left out" in text


def test_a_word_that_was_not_given_is_found(bundles: Bundles) -> None:
    bundles.rewrite(COORDINATOR, changing(RUBBISH, lambda fact: (replace(fact, accusers=(*fact.accusers, RUBBISH)),)))
    (text,) = found(bundles)
    assert f"'{RUBBISH}' was left out on the word of" in text


def test_who_is_said_to_have_dealt_badly_where_no_shares_were_opened_is_found(bundles: Bundles) -> None:
    bundles.rewrite(COORDINATOR, changing(RUBBISH, lambda fact: (replace(fact, accusers=()),)))
    (text,) = found(bundles)
    assert f"'{RUBBISH}' was left out because of its shares" in text


def test_complaints_that_were_thrown_away_afterwards_are_found(bundles: Bundles) -> None:
    (bundles.folder / COORDINATOR / evidence.FOLDER / complained(bundles)).unlink()
    bundles.resign(COORDINATOR)
    assert len(found(bundles)) == 1


def test_a_line_about_an_attempt_that_was_never_made_is_found(bundles: Bundles) -> None:
    bundles.rewrite(COORDINATOR, changing(RUBBISH, lambda fact: (fact, replace(fact, at=replace(fact.at, attempt=7), site=HONEST))))
    (text,) = found(bundles)
    assert "attempt 7 is in no line before" in text


def forged(bundles: Bundles, complaint: Complaint, *, signer: str) -> bytes:
    signed = complaints._digest(complaint.version, complaint.ring_bits, complaint.rt, complaint.site_id, complaint.accused)
    return codec.write(replace(complaint, signature=bundles.signers[signer].sign(signed)))


def about(bundles: Bundles, complaint: Complaint, site: str) -> Complaint:
    return replace(complaint, accused=tuple(replace(each, site_id=site) for each in complaint.accused))


def test_a_complaint_that_the_coordinator_wrote_itself_convinces_nobody(bundles: Bundles) -> None:
    """Whose signature is not the accuser's; the accuser's own would do, about what was sent: that is the control."""
    name = complained(bundles)
    replies = bundles.replies(name)
    accuser = replies.items[0].site_id
    said = codec.read(Complaint, replies.by_site[accuser])
    for signer, complaint, finds in (
        (accuser, said, 0),
        (COORDINATOR, said, 1),
        (accuser, about(bundles, said, HONEST if accuser != HONEST else "site_03"), 1),
    ):
        bundles.keep_replies(name, with_reply(replies, accuser, forged(bundles, complaint, signer=signer)))
        bundles.resign(COORDINATOR)
        assert len(found(bundles)) == finds

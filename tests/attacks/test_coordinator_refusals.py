# SPDX-License-Identifier: Apache-2.0
"""What the coordinator does not go on with: too few, too many, strangers, and what is not of this step.

Sites refuse all of it too (`test_coordinator_attacks`). Here the reason is named on the coordinator's own side, before anything is sent.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.errors import CohortTooSmall, ConfirmQuorum, MessageFormat, PlanMismatch, SurvivorSet
from common.secagg import codec, messages
from common.secagg.coordinator import Inviting
from common.secagg.messages import Confirmation, Heads, Keys, Masked, Opened, PeerHead, Shares, Step, Up
from common.secagg.unmask import open_sum
from tests.attacks.test_site_attacks import ROGUE, agree, announced, codes, resaid
from tests.common.secagg.federation import NOW, Federation, federation

STRANGER = "site-004"


def said_by(f: Federation, site_id: str, step: Step, body: object) -> bytes:
    return messages.up(f.consortium.sites[site_id], f.tag, step, site_id, body)


def test_a_cohort_of_two_is_not_named() -> None:
    f = federation(5)
    two = dict(list(announced(f).items())[:2])
    with pytest.raises(CohortTooSmall, match="2 sites announced keys, expected at least 3"):
        Inviting(chair=f.chair, tag=f.tag).agree(two, now=NOW)


def test_a_cohort_whose_sum_could_wrap_is_not_named() -> None:
    f = federation(5)
    chair = replace(f.chair, terms=replace(f.terms, max_cohort=4))
    with pytest.raises(PlanMismatch, match="holds the sum of 4"):
        Inviting(chair=chair, tag=f.tag).agree(announced(f), now=NOW)


def test_a_site_of_another_group_is_laid_aside() -> None:
    f = federation(5)
    f.chair = replace(f.chair, terms=replace(f.terms, members=f.terms.members - {ROGUE}))
    assert agree(f, announced(f)) == {ROGUE: "E_UNKNOWN_PEER"}


SPOILT_KEYS: dict[str, tuple[str, Callable[[Keys], Keys]]] = {
    "share key of small order": ("E_MSG_FORMAT", lambda said: replace(said, share_key=bytes(32))),
    "more peers' heads than are echoed": (
        "E_PLAN_MISMATCH",
        lambda said: replace(
            said, heads=Heads(peers=tuple(PeerHead(site_id=f"s{i}", ledger_head=bytes(32), audit_head=bytes(32)) for i in range(17)))
        ),
    ),
}


@pytest.mark.parametrize("name", SPOILT_KEYS)
def test_an_announcement_that_no_peer_would_take_is_laid_aside(name: str) -> None:
    code, spoil = SPOILT_KEYS[name]
    f = federation(5)
    replies = announced(f)
    assert agree(f, replies | {ROGUE: resaid(f, replies[ROGUE], spoil, Keys, Step.KEYS)}) == {ROGUE: code}


def test_a_reply_to_another_step_is_laid_aside() -> None:
    f = federation(5)
    replies = announced(f)
    _, cohort = f.to_keys()
    assert agree(f, replies | {ROGUE: f.reply(ROGUE, cohort)}) == {ROGUE: "E_ROUND_TAG"}


def test_fewer_sharers_than_a_threshold_are_not_gone_on_with() -> None:
    f = federation(5)
    sharing, cohort = f.to_keys()
    with pytest.raises(CohortTooSmall, match="3 sites shared their secrets, expected at least 4"):
        sharing.route({s: f.reply(s, cohort) for s in f.site_ids[:3]})


def test_shares_longer_than_two_elements_lay_their_sender_aside() -> None:
    f = federation(5)
    sharing, cohort = f.to_keys()
    replies = {s: f.reply(s, cohort) for s in f.site_ids}
    replies[ROGUE] = resaid(f, replies[ROGUE], lambda said: replace(said, sealed=(*said.sealed[:-1], bytes(10**4))), Shares, Step.SHARE)
    masking, _ = sharing.route(replies)
    assert codes(masking.rejected) == {ROGUE: "E_SHARE_FORMAT"}


def test_shares_of_a_site_outside_the_cohort_are_passed_over() -> None:
    """It is enrolled, and signs; it did not announce keys in time, so nobody dealt it a share."""
    f = federation(5)
    sharing, cohort = f.to_keys(f.site_ids[:4])
    replies = {s: f.reply(s, cohort) for s in f.site_ids[:4]}
    uninvited = said_by(f, STRANGER, Step.SHARE, Shares(commitment=bytes(32), sealed=(bytes(94),) * 3))
    masking, deliveries = sharing.route(replies | {STRANGER: uninvited})
    assert masking.sharers == tuple(f.site_ids[:4]) == tuple(deliveries)


def test_fewer_survivors_than_a_threshold_are_not_gone_on_with() -> None:
    f = federation(5)
    masking, deliveries = f.to_shares(*f.to_keys())
    with pytest.raises(SurvivorSet, match="3 sites sent a masked vector, expected at least 4"):
        masking.survive({s: f.reply(s, deliveries[s]) for s in f.site_ids[:3]})


def test_a_site_that_did_not_share_cannot_survive() -> None:
    """Its masks are in nobody's vector, and none of its secrets could be opened."""
    f = federation(5)
    sharing, cohort = f.to_keys()
    masking, deliveries = f.to_shares(sharing, cohort, f.site_ids[:4])
    replies = {s: f.reply(s, deliveries[s]) for s in f.site_ids[:4]}
    late = said_by(f, STRANGER, Step.MASK, Masked(transcript=masking.transcript, tail=bytes(12), vector=bytes(32)))
    confirming, _ = masking.survive(replies | {STRANGER: late})
    assert STRANGER not in confirming.masked


def four_of_five_masked(f: Federation) -> tuple[Any, bytes]:
    masking, deliveries = f.to_shares(*f.to_keys())
    return masking.survive({s: f.reply(s, deliveries[s]) for s in f.site_ids[:4]})


@pytest.mark.parametrize("stranger", [False, True], ids=["three confirm", "three confirm and one that did not survive"])
def test_fewer_confirmations_of_survivors_than_a_threshold_are_not_gone_on_with(stranger: bool) -> None:
    f = federation(5)
    confirming, survivors = four_of_five_masked(f)
    replies = {s: f.reply(s, survivors) for s in f.site_ids[:3]}
    if stranger:
        replies[STRANGER] = said_by(f, STRANGER, Step.CONFIRM, Confirmation(transcript=confirming.transcript))
    with pytest.raises(ConfirmQuorum, match="3 sites confirmed the survivors, expected at least 4"):
        confirming.quorum(replies)


def test_shares_of_a_site_that_did_not_survive_are_passed_over() -> None:
    f = federation(5)
    unmasking, quorum = f.to_confirmations(*four_of_five_masked(f), f.site_ids[:4])
    replies = {s: f.reply(s, quorum) for s in f.site_ids[:4]}
    opened = codec.read(Opened, codec.read(Up, replies["site-000"]).body)
    shares, rejected = unmasking.shares(replies | {STRANGER: said_by(f, STRANGER, Step.UNMASK, opened)})
    assert all(set(of_owner) == {1, 2, 3, 4} for of_owner in shares.values())
    assert rejected == ()


def test_fewer_opened_shares_than_a_threshold_open_nothing() -> None:
    f = federation(5)
    unmasking, quorum = f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys())))
    with pytest.raises(ConfirmQuorum, match="3 usable shares"):
        open_sum(unmasking, {s: f.reply(s, quorum) for s in f.site_ids[:3]}, f.vectors.__getitem__)


@pytest.mark.parametrize("change", [lambda vector: vector.view(np.int32), lambda vector: vector.reshape(2, -1)], ids=["type", "shape"])
def test_a_stored_vector_of_the_same_bytes_and_another_make_stops_the_sum(change: Callable[[Any], Any]) -> None:
    f = federation(5)
    unmasking, quorum = f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys())))
    f.vectors[ROGUE] = change(f.vectors[ROGUE])
    with pytest.raises(MessageFormat, match="not the one it signed"):
        f.to_sum(unmasking, quorum)

# SPDX-License-Identifier: Apache-2.0
"""What a rogue site, or whoever alters its replies, may try against the coordinator and its peers.

It cannot change the sum beyond its own update, it cannot stall the round while a threshold of others answers, and where it can spoil a
round it is named. What it can do, and no cryptography here stops, is to send a well-formed update that is wrong.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.errors import FedwardError, ShareDecrypt, ShareFormat, ShareReconstruct
from common.secagg import codec, complaints, coordinator, field, keys, masks, messages, quantise, stages
from common.secagg.coordinator import Inviting, Masking, Rejected, Unmasking
from common.secagg.messages import Confirmation, Keys, Masked, Opened, Shares, Step, Up
from common.secagg.quantise import QuantisedUpdate
from common.secagg.stages import Shared
from common.secagg.terms import Kind
from common.secagg.unmask import check_norm, open_sum
from tests.common.secagg.federation import NOW, Federation, federation

ROGUE = "site-001"


def codes(rejected: tuple[Rejected, ...]) -> dict[str, str]:
    return {each.site_id: each.reason.code for each in rejected}


def resaid(f: Federation, control: bytes, change: Callable[[Any], Any], kind: type, step: Step) -> bytes:
    """A reply of the rogue site, changed and signed by it again."""
    up = codec.read(Up, control)
    return messages.up(f.consortium.sites[ROGUE], f.tag, step, ROGUE, change(codec.read(kind, up.body)))


def announced(f: Federation) -> dict[str, bytes]:
    header = Inviting(chair=f.chair, tag=f.tag).header
    return {s: f.announce(s, header) for s in f.site_ids}


def agree(f: Federation, replies: Mapping[str, bytes]) -> dict[str, str]:
    sharing, _ = Inviting(chair=f.chair, tag=f.tag).agree(replies, now=NOW)
    assert ROGUE not in {member.site_id for member in sharing.members}
    return codes(sharing.rejected)


GARBAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "empty_reply": ("E_MSG_FORMAT", lambda control: b""),
    "truncated_reply": ("E_MSG_FORMAT", lambda control: control[:-3]),
    "reply_with_bytes_after_its_end": ("E_MSG_FORMAT", lambda control: control + b"!"),
    "oversized_reply": ("E_MSG_TOO_LARGE", lambda control: control + bytes(10**6)),
    "reply_of_a_newer_version": ("E_VERSION", lambda control: control[:4] + (2).to_bytes(8, "big") + control[12:]),
    "reply_of_other_words": ("E_VERSION", lambda control: control[:12] + (16).to_bytes(8, "big") + control[20:]),
    "unsigned_reply": ("E_PEER_SIGNATURE", lambda control: control[:-64] + bytes(64)),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_laid_aside_and_the_round_goes_on(name: str) -> None:
    code, spoil = GARBAGE[name]
    f = federation(5)
    replies = announced(f)
    assert agree(f, replies | {ROGUE: spoil(replies[ROGUE])}) == {ROGUE: code}


def test_a_reply_under_another_sites_name_is_laid_aside() -> None:
    f = federation(5)
    replies = announced(f)
    assert agree(f, replies | {ROGUE: replies["site-002"]}) == {ROGUE: "E_ROUND_TAG"}


def test_a_reply_of_another_round_is_laid_aside() -> None:
    f = federation(5)
    old = announced(f)
    f.next_round()
    assert agree(f, announced(f) | {ROGUE: old[ROGUE]}) == {ROGUE: "E_ROUND_TAG"}


def test_an_outsider_is_laid_aside() -> None:
    f = federation(5)
    replies = announced(f)
    said = codec.read(Keys, codec.read(Up, replies[ROGUE]).body)
    outsider = messages.up(keys.SigningKey(b"\x04" * 32), f.tag, Step.KEYS, "sybil", said)
    sharing, _ = Inviting(chair=f.chair, tag=f.tag).agree(replies | {"sybil": outsider}, now=NOW)
    assert codes(sharing.rejected) == {"sybil": "E_PEER_SIGNATURE"}


def test_a_revoked_site_is_laid_aside_at_the_next_round() -> None:
    f = federation(5)
    members = tuple(replace(member, revoked=member.site_id == ROGUE) for member in f.consortium.roster.members)
    chair = replace(f.chair, roster=replace(f.consortium.roster, members=members))
    sharing, _ = Inviting(chair=chair, tag=f.tag).agree(announced(f), now=NOW)
    assert codes(sharing.rejected) == {ROGUE: "E_UNKNOWN_PEER"}


def test_a_site_of_another_kind_is_laid_aside() -> None:
    f = federation(5)
    replies = announced(f)
    spoilt = resaid(f, replies[ROGUE], lambda said: replace(said, kind=Kind.STAT), Keys, Step.KEYS)
    assert agree(f, replies | {ROGUE: spoilt}) == {ROGUE: "E_PLAN_MISMATCH"}


def test_what_was_said_for_one_kind_is_laid_aside_in_another() -> None:
    """The rogue announced itself for an evaluation, and shows that when it is asked to train."""
    f = federation(5)
    f.turn_to(Kind.EVAL)
    judged = announced(f)
    f.turn_to(Kind.UPDATE, round_number=f.tag.round)
    assert agree(f, announced(f) | {ROGUE: judged[ROGUE]}) == {ROGUE: "E_ROUND_TAG"}


@pytest.mark.parametrize("point", sorted(keys._SMALL_ORDER), ids=lambda point: point.hex()[:8])
def test_a_key_of_small_order_is_laid_aside(point: bytes) -> None:
    f = federation(5)
    replies = announced(f)
    spoilt = resaid(f, replies[ROGUE], lambda said: replace(said, mask_key=point), Keys, Step.KEYS)
    assert agree(f, replies | {ROGUE: spoilt}) == {ROGUE: "E_MSG_FORMAT"}
    assert keys.AgreementKey.load(b"\x11" * 32).agree(point) is None


def test_a_copied_key_disqualifies_both_owners() -> None:
    f = federation(5)
    replies = announced(f)
    theirs = codec.read(Keys, codec.read(Up, replies["site-003"]).body)
    spoilt = resaid(f, replies[ROGUE], lambda said: replace(said, share_key=theirs.share_key), Keys, Step.KEYS)
    assert agree(f, replies | {ROGUE: spoilt}) == {ROGUE: "E_DUP_KEY", "site-003": "E_DUP_KEY"}


def test_too_few_sealed_shares_lay_their_sender_aside() -> None:
    f = federation(5)
    sharing, cohort = f.to_keys()
    replies = {s: f.reply(s, cohort) for s in f.site_ids}
    replies[ROGUE] = resaid(f, replies[ROGUE], lambda shares: replace(shares, sealed=shares.sealed[:2]), Shares, Step.SHARE)
    masking, _ = sharing.route(replies)
    assert codes(masking.rejected) == {ROGUE: "E_SHARE_FORMAT"}


def to_masking(f: Federation) -> tuple[Masking, dict[str, bytes]]:
    masking, deliveries = f.to_shares(*f.to_keys())
    return masking, {s: f.reply(s, deliveries[s]) for s in f.site_ids}


@pytest.mark.parametrize("change", ["truncated", "oversized", "altered"])
def test_a_vector_that_is_not_the_signed_one_is_not_stored(change: str) -> None:
    f = federation(5)
    masking, replies = to_masking(f)
    honest = f.vectors[ROGUE].tobytes()
    spoilt = {"truncated": honest[:-4], "oversized": honest + bytes(4), "altered": bytes([honest[0] ^ 1]) + honest[1:]}[change]
    with pytest.raises(FedwardError) as refusal:
        masking.check_vector(ROGUE, replies[ROGUE], memoryview(spoilt))
    assert refusal.value.code == ("E_MSG_FORMAT" if change == "altered" else "E_MSG_TOO_LARGE")


def test_a_stored_vector_that_changed_on_disk_stops_the_sum() -> None:
    f = federation(5)
    unmasking, quorum = f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys())))
    f.vectors[ROGUE] = f.vectors[ROGUE] + np.uint32(1)
    with pytest.raises(FedwardError) as refusal:
        f.to_sum(unmasking, quorum)
    assert refusal.value.code == "E_MSG_FORMAT"


def test_a_site_that_masked_for_other_sharers_is_laid_aside() -> None:
    f = federation(5)
    masking, replies = to_masking(f)
    replies[ROGUE] = resaid(f, replies[ROGUE], lambda said: replace(said, transcript=bytes(32)), Masked, Step.MASK)
    confirming, _ = masking.survive(replies)
    assert codes(confirming.rejected) == {ROGUE: "E_ROUND_TAG"}


def test_a_wrong_weight_fails_the_canary() -> None:
    """The rogue claims a weight that is not its own, inside the mask where nobody sees it: the declared total is known beforehand."""
    f = federation(5)
    masking, replies = to_masking(f)

    def heavier(masked: Masked) -> Masked:
        tail = np.frombuffer(masked.tail, "<u4") + np.array([60_000, 0, 0], np.uint32)
        return replace(masked, tail=tail.astype("<u4").tobytes())

    replies[ROGUE] = resaid(f, replies[ROGUE], heavier, Masked, Step.MASK)
    with pytest.raises(FedwardError) as refusal:
        f.to_sum(*f.to_confirmations(*masking.survive(replies)))
    assert refusal.value.code == "E_SUM_CANARY"


def test_a_boosted_update_fails_the_aggregate_norm() -> None:
    """A rogue site skips its own checks and sends an update a thousand times too long."""
    f = federation(5, num_values=4096)
    header = Inviting(chair=f.chair, tag=f.tag).header
    replies = {s: f.announce(s, header) for s in f.site_ids}
    boosted = QuantisedUpdate(body=np.full(4096, f.terms.grid.largest, dtype=np.uint32), weight=1)
    f.tell(ROGUE, header)
    stage, reply = stages.announce(f.tag, Kind.UPDATE, boosted, f.seats[ROGUE], messages.Heads())
    f.records[ROGUE] = replace(f.records[ROGUE], stage=stage)
    state = Inviting(chair=f.chair, tag=f.tag).agree(replies | {ROGUE: reply}, now=NOW)
    with pytest.raises(FedwardError) as refusal:
        f.to_sum(*f.to_confirmations(*f.to_masks(*f.to_shares(*state))))
    assert refusal.value.code == "E_AGG_NORM"


def test_the_norm_gate_lets_every_honest_sum_pass() -> None:
    f = federation(5, num_values=512)
    longest = quantise.quantise(np.full(512, 1 / np.sqrt(512), dtype=np.float32), f.terms.grid, weight=1)
    check_norm((longest.body * np.uint32(5)), f.terms, num_sites=5)


def test_a_nan_update_never_reaches_the_ring() -> None:
    with pytest.raises(FedwardError) as refusal:
        quantise.quantise(np.array([0.0, np.nan], dtype=np.float32), federation(3).terms.grid, weight=1)
    assert refusal.value.code == "E_UPDATE_NONFINITE"


def to_unmasking(f: Federation) -> tuple[Unmasking, dict[str, bytes]]:
    unmasking, quorum = f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys()), [s for s in f.site_ids if s != "site-004"]))
    return unmasking, {s: f.reply(s, quorum) for s in f.site_ids if s in unmasking.confirming.masked}


def spoil_shares(f: Federation, replies: dict[str, bytes], rogue: str) -> dict[str, bytes]:
    up = codec.read(Up, replies[rogue])
    opened = codec.read(Opened, up.body)
    shares = tuple(field.to_bytes((field.from_bytes(share) or 0) ^ 1) for share in opened.shares)
    return replies | {rogue: messages.up(f.consortium.sites[rogue], f.tag, Step.UNMASK, rogue, Opened(shares=shares))}


def test_wrong_shares_are_found_out_and_their_sender_named() -> None:
    f = federation(7)
    unmasking, replies = to_unmasking(f)
    result = open_sum(unmasking, spoil_shares(f, replies, ROGUE), f.vectors.__getitem__)
    assert np.array_equal(result.body.view(np.int32), f.plain_sum(result.survivors))
    assert codes(result.rejected) == {ROGUE: "E_SHARE_RECONSTRUCT"}


def test_more_wrong_shares_than_there_are_to_spare_give_no_sum() -> None:
    f = federation(7)
    unmasking, replies = to_unmasking(f)
    for rogue in ("site-000", "site-001"):
        replies = spoil_shares(f, replies, rogue)
    with pytest.raises(FedwardError) as refusal:
        open_sum(unmasking, replies, f.vectors.__getitem__)
    assert refusal.value.code == "E_SHARE_RECONSTRUCT"


def test_a_share_above_the_field_lays_its_sender_aside() -> None:
    f = federation(7)
    unmasking, replies = to_unmasking(f)
    replies[ROGUE] = resaid(f, replies[ROGUE], lambda opened: Opened(shares=(b"\xff" * 33, *opened.shares[1:])), Opened, Step.UNMASK)
    result = open_sum(unmasking, replies, f.vectors.__getitem__)
    assert codes(result.rejected) == {ROGUE: "E_SHARE_FORMAT"}


def dealt(f: Federation, replies: dict[str, bytes], share: Callable[[int], bytes]) -> dict[str, bytes]:
    """The rogue seals what it likes for each place in the cohort, as it should be sealed."""
    stage = f.records[ROGUE].stage
    assert isinstance(stage, Shared)
    channel = keys.AgreementKey.load(stage.secrets.share_private)
    sealed = tuple(
        keys.seal(
            stages._channel_key(channel, peer, stage.transcript, sender=ROGUE, receiver=peer.site_id),
            share(position),
            nonce=bytes(12),
            transcript=stage.transcript,
        )
        for position, peer in enumerate(stage.cohort)
        if peer.site_id != ROGUE
    )
    return replies | {ROGUE: resaid(f, replies[ROGUE], lambda shares: replace(shares, sealed=sealed), Shares, Step.SHARE)}


def test_inconsistent_dealing_is_attributed_to_its_dealer() -> None:
    """The rogue seals random shares of its own seed: no set of them opens, and the error says whose they are."""
    f = federation(5)
    sharing, cohort = f.to_keys()
    replies = {s: f.reply(s, cohort) for s in f.site_ids}
    replies = dealt(f, replies, lambda position: field.to_bytes(7 * position * position) + field.to_bytes(position))
    with pytest.raises(FedwardError, match=ROGUE) as refusal:
        f.to_sum(*f.to_confirmations(*f.to_masks(*sharing.route(replies))))
    assert (refusal.value.code, refusal.value.accused) == ("E_SHARE_RECONSTRUCT", (ROGUE,))


def rubbish(f: Federation, replies: dict[str, bytes], rogue: str, victims: set[str]) -> dict[str, bytes]:
    """What the rogue sealed for its victims does not open."""
    up = codec.read(Up, replies[rogue])
    order = [site for site in f.site_ids if site != rogue]
    sealed = codec.read(Shares, up.body).sealed
    spoilt = tuple(bytes(len(each)) if site in victims else each for site, each in zip(order, sealed, strict=True))
    shares = replace(codec.read(Shares, up.body), sealed=spoilt)
    return replies | {rogue: messages.up(f.consortium.sites[rogue], f.tag, Step.SHARE, rogue, shares)}


def refused_to_mask(f: Federation, deliveries: Mapping[str, bytes], silent: set[str]) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Masked updates, and the complaints of those who could not open what came."""
    replies, complained = {}, {}
    for site in sorted(set(f.site_ids) - silent):
        try:
            replies[site] = f.reply(site, deliveries[site])
        except (ShareDecrypt, ShareFormat) as error:
            complained[site] = complaints.write(f.consortium.sites[site], site, deliveries[site], error.accused)
    return replies, complained


@pytest.mark.parametrize("victims", ["all", "two"])
def test_a_site_that_seals_rubbish_is_left_out_of_the_next_attempt(victims: str) -> None:
    """For everybody, or for as few as can be and then falling silent itself: no attempt succeeds with it, and the next one does without."""
    chosen, left_out = {"all": ("023456", "1"), "two": ("03", "01")}[victims]
    f = federation(7)
    sharing, cohort = f.to_keys()
    spoilt = rubbish(f, {s: f.reply(s, cohort) for s in f.site_ids}, ROGUE, {f"site-00{each}" for each in chosen})
    masking, deliveries = sharing.route(spoilt)
    replies, complained = refused_to_mask(f, deliveries, silent={ROGUE})
    with pytest.raises(FedwardError) as refusal:
        masking.survive(replies)
    assert refusal.value.code == "E_SURVIVOR_SET"
    out = complaints.judge(masking.accusations(complained, deliveries), cohort=7)
    assert set(out) == {f"site-00{each}" for each in left_out}
    trained = {site: update.body.tobytes() for site, update in f.updates.items()}
    given_up = {s: f.reply(s, coordinator.abandon(f.chair, f.tag)) for s in f.site_ids}
    given_up = coordinator.abandons(f.chair, f.tag, given_up)
    f.tag = replace(f.tag, attempt=1)
    inviting = Inviting(chair=f.chair, tag=f.tag, abandons=given_up)
    result = f.run(drops={1: out}, inviting=inviting)
    assert set(result.survivors) == set(f.site_ids) - set(out)
    assert {site: update.body.tobytes() for site, update in f.updates.items()} == trained, "nobody has trained again"


def test_shares_that_open_to_nonsense_are_complained_of_too() -> None:
    f = federation(7)
    sharing, cohort = f.to_keys()
    replies = {s: f.reply(s, cohort) for s in f.site_ids}
    replies = dealt(f, replies, lambda _: b"\xff" * 2 * field.ELEMENT_SIZE)
    masking, deliveries = sharing.route(replies)
    _, complained = refused_to_mask(f, deliveries, silent=set())
    out = complaints.judge(masking.accusations(complained, deliveries), cohort=7)
    assert out == {ROGUE: tuple(site for site in f.site_ids if site != ROGUE)}


def test_a_complaint_of_shares_that_were_not_sent_is_passed_over() -> None:
    """Nor does one count that another site signed, that names a stranger, or that comes from outside."""
    f = federation(7)
    masking, deliveries = f.to_shares(*f.to_keys())
    honest = complaints.write(f.consortium.sites[ROGUE], ROGUE, deliveries[ROGUE], ("site-000",))
    assert masking.accusations({ROGUE: honest}, deliveries) == {ROGUE: frozenset({"site-000"})}
    assert masking.accusations({"site-002": honest, "sybil": honest, ROGUE: honest[:-1]}, deliveries) == {}
    items = tuple(messages.Delivery(site_id=name, sealed=b"made up") for name in ("site-000", "site-002"))
    made_up = messages.down(f.chair.signer, f.tag, Step.MASK, messages.Deliveries(items=items))
    assert masking.accusations({ROGUE: complaints.write(f.consortium.sites[ROGUE], ROGUE, made_up, ("site-000",))}, deliveries) == {}


def test_dealers_of_whom_nothing_opens_are_accused_all_at_once_but_never_a_third_of_the_cohort() -> None:
    """A retry costs everybody a training. And where a third seems to be at fault, it is holders who lie, and nobody is accused."""
    f = federation(7)
    unmasking, replies = to_unmasking(f)
    for liars, accused in ((("site-000", "site-001"), ("site-002", "site-003")), (("site-000", "site-001"), ())):
        spoilt = dict(replies)
        for liar in liars:
            opened = codec.read(Opened, codec.read(Up, replies[liar]).body)
            order = unmasking.confirming.masking.sharers
            shares = tuple(
                field.to_bytes((field.from_bytes(share) or 0) ^ 1) if not accused or owner in accused else share
                for owner, share in zip(order, opened.shares, strict=True)
            )
            spoilt[liar] = messages.up(f.consortium.sites[liar], f.tag, Step.UNMASK, liar, Opened(shares=shares))
        with pytest.raises(ShareReconstruct) as refusal:
            open_sum(unmasking, spoilt, f.vectors.__getitem__)
        assert refusal.value.accused == accused


def test_a_confirmation_of_other_survivors_is_laid_aside() -> None:
    f = federation(5)
    confirming, survivors = f.to_masks(*f.to_shares(*f.to_keys()))
    replies = {s: f.reply(s, survivors) for s in f.site_ids}
    replies[ROGUE] = resaid(f, replies[ROGUE], lambda said: Confirmation(transcript=bytes(32)), Confirmation, Step.CONFIRM)
    unmasking, _ = confirming.quorum(replies)
    assert codes(unmasking.rejected) == {ROGUE: "E_ROUND_TAG"}


@pytest.mark.parametrize("rogues", [1, 2])
def test_rogue_confirmations_cannot_stall_the_others(rogues: int) -> None:
    """Sites count what holds and pass over what does not, so nonsense in the quorum costs nobody the round."""
    f = federation(7)
    confirming, survivors = f.to_masks(*f.to_shares(*f.to_keys()))
    unmasking, quorum = f.to_confirmations(confirming, survivors)
    down = codec.read(messages.Down, quorum)
    said = codec.read(messages.Quorum, down.body).confirmations
    nonsense = tuple(replace(each, body=b"nonsense") for each in said[:rogues])
    mixed = messages.down(f.chair.signer, f.tag, Step.UNMASK, messages.Quorum(confirmations=(*nonsense, *said[rogues:])))
    result = f.to_sum(unmasking, mixed)
    assert np.array_equal(result.body.view(np.int32), f.plain_sum(f.site_ids))


def test_commit_and_open_catches_a_site_that_opens_another_update() -> None:
    """On an incident an auditor asks for the update behind a commitment: another one does not open it."""
    f = federation(5)
    f.to_keys()
    stage = f.records[ROGUE].stage
    assert isinstance(stage, stages.Keyed)
    commitment = codec.read(Keys, stage.announcement.body).commitment
    assert f.updates[ROGUE].commitment(stage.secrets.salt) == commitment
    other = QuantisedUpdate(body=f.updates[ROGUE].body ^ np.uint32(1), weight=1)
    assert other.commitment(stage.secrets.salt) != commitment
    assert f.updates[ROGUE].commitment(bytes(32)) != commitment


def test_wrong_views_of_the_cohort_leave_only_noise() -> None:
    """With every check gone, the transcripts still hold: sites that were told different sharers mask with keys that do not cancel."""
    f = federation(5, num_values=64)
    masking, deliveries = f.to_shares(*f.to_keys())
    four = [s for s in f.site_ids if s != "site-004"]
    items = codec.read(messages.Deliveries, codec.read(messages.Down, deliveries["site-000"]).body).items
    fewer = messages.Deliveries(items=tuple(item for item in items if item.site_id in four))
    f.tell("site-000", messages.down(f.chair.signer, f.tag, Step.MASK, fewer))
    for site_id in four[1:]:
        f.tell(site_id, deliveries[site_id])
    everything = {s: f.records[s].stage for s in f.site_ids}
    total = np.zeros(64, np.uint32)
    for site_id in four:
        stage = everything[site_id]
        assert isinstance(stage, stages.MaskedOut)
        total += f.vectors[site_id]
        tail = np.zeros(3, np.uint32)
        mask = stages.self_mask(stage.secrets.seed, masking.transcript, site_id)
        masks.apply([replace(mask, negative=True)], body=total, tail=tail)
    error = np.abs((total.view(np.int32).astype(np.int64) - f.plain_sum(four)) / 2.0**31)
    assert error.mean() > 0.1, "a sum of lies is spread over the whole ring"

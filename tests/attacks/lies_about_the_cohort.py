# SPDX-License-Identifier: Apache-2.0
"""Lies about who is in the cohort, and with the shares that they sealed."""

from dataclasses import replace

from common.secagg import codec, field, keys, messages, stages
from common.secagg.messages import (
    Cohort,
    Delivery,
    Keys,
    Signed,
    Step,
)
from common.secagg.stages import Keyed, Shared
from common.secagg.terms import Kind
from simulations.consortium import YEAR_S
from tests.attacks.lies import VICTIM, Lie, as_signed, attack, cohort_of, deliveries_of, impostor_keys, mask, resigned, say, share, swap
from tests.common.secagg.federation import NOW, Federation


@attack("E_PEER_SIGNATURE")
def keys_substituted_on_all_pairs(f: Federation) -> Lie:
    _, control = f.to_keys()
    members = cohort_of(control).members
    return share(f, [m if m.site_id == VICTIM else replace(m, body=codec.write(impostor_keys(m))) for m in members])


@attack("E_PEER_SIGNATURE")
def keys_substituted_and_signed_by_another(f: Federation) -> Lie:
    _, control = f.to_keys()
    members = cohort_of(control).members
    return share(f, swap(members, 0, resigned(f, members[0].site_id, impostor_keys(members[0]), key=keys.SigningKey(b"\x03" * 32))))


@attack("E_PEER_SIGNATURE")
def keys_of_another_round(f: Federation) -> Lie:
    _, control = f.to_keys()
    members = cohort_of(control).members
    old = replace(f.tag, round=0)
    return share(f, swap(members, 0, resigned(f, members[0].site_id, codec.read(Keys, members[0].body), tag=old)))


@attack("E_PEER_SIGNATURE")
def keys_signed_for_another_step(f: Federation) -> Lie:
    _, control = f.to_keys()
    members = cohort_of(control).members
    site_id = members[0].site_id
    said = messages.up(f.consortium.sites[site_id], f.tag, Step.SHARE, site_id, codec.read(Keys, members[0].body))
    return share(f, swap(members, 0, as_signed(said)))


@attack("E_PEER_SIGNATURE")
def keys_of_one_site_under_anothers_name(f: Federation) -> Lie:
    _, control = f.to_keys()
    members = cohort_of(control).members
    return share(f, swap(members, 0, replace(members[1], site_id=members[0].site_id)))


@attack("E_COHORT_TOO_SMALL")
def cohort_of_two(f: Federation) -> Lie:
    _, control = f.to_keys()
    return share(f, cohort_of(control).members[1:3])


@attack("E_COHORT_TOO_SMALL", num_sites=7, min_cohort=5)
def cohort_below_the_plans_minimum(f: Federation) -> Lie:
    _, control = f.to_keys()
    return share(f, cohort_of(control).members[:4])


@attack("E_COHORT_TOO_SMALL", num_sites=7, noise_quorum=6)
def cohort_below_the_noise_quorum(f: Federation) -> Lie:
    _, control = f.to_keys()
    return share(f, cohort_of(control).members[:5])


@attack("E_PLAN_MISMATCH")
def cohort_whose_sum_could_wrap(f: Federation) -> Lie:
    _, control = f.to_keys()
    seat = f.seats[VICTIM]
    f.seats[VICTIM] = replace(seat, terms=replace(seat.terms, max_cohort=4))
    return share(f, cohort_of(control).members)


@attack("E_COHORT_ORDER")
def unsorted_cohort(f: Federation) -> Lie:
    _, control = f.to_keys()
    return share(f, cohort_of(control).members[::-1])


@attack("E_COHORT_ORDER")
def one_site_counted_twice(f: Federation) -> Lie:
    _, control = f.to_keys()
    members = cohort_of(control).members
    return share(f, (members[0], *members))


@attack("E_UNKNOWN_PEER")
def cohort_filled_with_sybils(f: Federation) -> Lie:
    _, control = f.to_keys()
    members = list(cohort_of(control).members)
    for i in range(3):
        said = replace(impostor_keys(members[0]), mask_key=keys.agreement_public(bytes([i + 1]) * 32))
        members.append(resigned(f, f"sybil-{i}", said, key=keys.SigningKey(bytes([i]) * 32)))
    return share(f, members)


@attack("E_UNKNOWN_PEER")
def revoked_site_in_the_cohort(f: Federation) -> Lie:
    _, control = f.to_keys()
    seat = f.seats[VICTIM]
    members = tuple(replace(m, revoked=m.site_id == "site-000") for m in seat.roster.members)
    f.seats[VICTIM] = replace(seat, roster=replace(seat.roster, members=members))
    return share(f, cohort_of(control).members)


@attack("E_ROSTER_EXPIRED")
def site_with_an_expired_entry_in_the_cohort(f: Federation) -> Lie:
    _, control = f.to_keys()
    return replace(share(f, cohort_of(control).members), now=NOW + 2 * YEAR_S)


@attack("E_UNKNOWN_PEER")
def site_of_another_group_in_the_cohort(f: Federation) -> Lie:
    _, control = f.to_keys()
    seat = f.seats[VICTIM]
    f.seats[VICTIM] = replace(seat, terms=replace(seat.terms, members=frozenset(f.site_ids[1:])))
    return share(f, cohort_of(control).members)


@attack("E_DUP_KEY")
def colluding_site_copies_a_key(f: Federation) -> Lie:
    _, control = f.to_keys()
    members = cohort_of(control).members
    copied = replace(codec.read(Keys, members[0].body), mask_key=codec.read(Keys, members[1].body).mask_key)
    return share(f, swap(members, 0, resigned(f, members[0].site_id, copied)))


@attack("E_OWN_KEY")
def victim_left_out_of_its_own_cohort(f: Federation) -> Lie:
    _, control = f.to_keys()
    return share(f, [m for m in cohort_of(control).members if m.site_id != VICTIM])


@attack("E_PLAN_MISMATCH")
def cohort_that_mixes_updates_and_statistics(f: Federation) -> Lie:
    _, control = f.to_keys()
    members = cohort_of(control).members
    other = replace(codec.read(Keys, members[0].body), kind=Kind.STAT)
    return share(f, swap(members, 0, resigned(f, members[0].site_id, other)))


@attack("E_MSG_FORMAT")
def colluding_site_announces_a_mask_key_of_small_order(f: Federation) -> Lie:
    """Every pair mask with it would be known to everybody."""
    _, control = f.to_keys()
    members = cohort_of(control).members
    weak = replace(codec.read(Keys, members[0].body), mask_key=b"\x01" + bytes(31))
    return share(f, swap(members, 0, resigned(f, members[0].site_id, weak)))


@attack("E_MSG_FORMAT")
def colluding_site_announces_a_key_of_small_order(f: Federation) -> Lie:
    """Whoever agrees with the zero point agrees on a secret that everybody knows."""
    _, control = f.to_keys()
    members = cohort_of(control).members
    weak = replace(codec.read(Keys, members[0].body), share_key=bytes(32))
    return share(f, swap(members, 0, resigned(f, members[0].site_id, weak)))


@attack("E_EQUIVOCATION")
def split_cohort(f: Federation) -> Lie:
    f.to_shares(*f.to_keys())
    return share(f, _announced(f)[:4])


def _announced(f: Federation) -> tuple[Signed, ...]:
    said = []
    for site_id in f.site_ids:
        stage = f.records[site_id].stage
        assert isinstance(stage, Keyed | Shared)
        said.append(stage.announcement)
    return tuple(said)


def delivered(f: Federation) -> tuple[Delivery, ...]:
    _, deliveries = f.to_shares(*f.to_keys())
    return deliveries_of(deliveries[VICTIM]).items


@attack("E_COHORT_TOO_SMALL")
def lowered_threshold(f: Federation) -> Lie:
    return mask(f, delivered(f)[:2])


@attack("E_COHORT_ORDER")
def unsorted_shares(f: Federation) -> Lie:
    return mask(f, delivered(f)[::-1])


@attack("E_COHORT_ORDER")
def share_of_one_site_delivered_twice(f: Federation) -> Lie:
    items = delivered(f)
    return mask(f, (items[0], *items))


@attack("E_COHORT_ORDER")
def share_that_claims_to_come_from_its_receiver(f: Federation) -> Lie:
    items = delivered(f)
    return mask(f, sorted((replace(items[0], site_id=VICTIM), *items[1:]), key=lambda item: item.site_id))


@attack("E_UNKNOWN_PEER", num_sites=6)
def share_of_a_site_outside_the_cohort(f: Federation) -> Lie:
    _, deliveries = f.to_shares(*f.to_keys(f.site_ids[:5]), f.site_ids[:5])
    items = deliveries_of(deliveries[VICTIM]).items
    return mask(f, (*items, Delivery(site_id=f.site_ids[5], sealed=items[0].sealed)))


@attack("E_SHARE_DECRYPT")
def shares_swapped_between_peers(f: Federation) -> Lie:
    a, b, *rest = delivered(f)
    return mask(f, (replace(a, sealed=b.sealed), replace(b, sealed=a.sealed), *rest))


@attack("E_SHARE_DECRYPT")
def share_meant_for_another_site(f: Federation) -> Lie:
    _, deliveries = f.to_shares(*f.to_keys())
    items = deliveries_of(deliveries[VICTIM]).items
    other = {item.site_id: item for item in deliveries_of(deliveries["site-003"]).items}
    return mask(f, (other[items[0].site_id], *items[1:]))


@attack("E_SHARE_DECRYPT")
def share_reflected_to_its_sender(f: Federation) -> Lie:
    """One key per direction: what the victim sealed for a peer does not open as if the peer had sealed it."""
    _, deliveries = f.to_shares(*f.to_keys())
    items = deliveries_of(deliveries[VICTIM]).items
    mine = {item.site_id: item for item in deliveries_of(deliveries[items[0].site_id]).items}[VICTIM]
    return mask(f, (replace(items[0], sealed=mine.sealed), *items[1:]))


@attack("E_SHARE_DECRYPT")
def truncated_share(f: Federation) -> Lie:
    items = delivered(f)
    return mask(f, (replace(items[0], sealed=items[0].sealed[:20]), *items[1:]))


@attack("E_SHARE_DECRYPT")
def shares_of_another_cohort(f: Federation) -> Lie:
    """Sealed under another T1: the sites were told different cohorts."""
    sharing, cohort = f.to_keys()
    four = say(f, Step.SHARE, Cohort(members=tuple(m for m in cohort_of(cohort).members if m.site_id != "site-004")))
    replies = {s: f.reply(s, four if s == "site-000" else cohort) for s in f.site_ids}
    up = codec.read(messages.Up, replies["site-000"])
    sealed = codec.read(messages.Shares, up.body).sealed
    honest = {s: codec.read(messages.Shares, codec.read(messages.Up, replies[s]).body).sealed for s in ("site-001", "site-003", "site-004")}
    position = {"site-001": 1, "site-003": 2, "site-004": 2}
    items = [Delivery(site_id="site-000", sealed=sealed[1])]
    items += [Delivery(site_id=s, sealed=honest[s][position[s]]) for s in sorted(honest)]
    assert sharing.members
    return mask(f, items)


@attack("E_SHARE_FORMAT")
def colluding_site_seals_something_that_is_no_share(f: Federation) -> Lie:
    items = delivered(f)
    rogue, victim = f.records[items[0].site_id].stage, next(p for p in _cohort(f) if p.site_id == VICTIM)
    assert isinstance(rogue, Shared)
    channel = keys.AgreementKey.load(rogue.secrets.share_private)
    key = stages._channel_key(channel, victim, rogue.transcript, sender=items[0].site_id, receiver=VICTIM)
    sealed = keys.seal(key, b"\xff" * 2 * field.ELEMENT_SIZE, nonce=bytes(12), transcript=rogue.transcript)
    return mask(f, (replace(items[0], sealed=sealed), *items[1:]))


def _cohort(f: Federation) -> tuple[stages.Peer, ...]:
    stage = f.records[VICTIM].stage
    assert isinstance(stage, Shared)
    return stage.cohort


@attack("E_EQUIVOCATION")
def masked_vector_asked_for_two_sets_of_sharers(f: Federation) -> Lie:
    _, deliveries = f.to_shares(*f.to_keys())
    items = deliveries_of(deliveries[VICTIM]).items
    f.tell(VICTIM, deliveries[VICTIM])
    return mask(f, items[:3])

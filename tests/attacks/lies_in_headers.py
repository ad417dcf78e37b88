# SPDX-License-Identifier: Apache-2.0
"""Lies in the bytes themselves, in the header and its model, and in asking for one update twice."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from common.secagg import codec, keys, messages
from common.secagg.coordinator import Inviting, abandon
from common.secagg.messages import (
    Down,
    Header,
    Nothing,
    RoundTag,
    Signed,
    Step,
)
from common.secagg.model import Reference, digest
from common.secagg.site import burn
from common.secagg.terms import Kind
from simulations.consortium import MONTH_S, found
from tests.attacks.lies import VICTIM, Lie, as_signed, attack, invite, masked, raw, say
from tests.common.secagg.federation import LAYOUT, LAYOUTS, NOW, Federation, seeded


@attack("E_MSG_TOO_LARGE")
def oversized_message(f: Federation) -> Lie:
    return Lie(control=invite(f) + bytes(f.terms.largest_message))


@attack("E_MSG_TOO_LARGE")
def oversized_message_that_is_well_formed(f: Federation) -> Lie:
    filler = Signed(site_id="x" * f.terms.largest_message, body=b"", signature=bytes(64))
    return Lie(control=Inviting(chair=f.chair, tag=f.tag, abandons=(filler,)).header)


@attack("E_MSG_FORMAT")
def message_of_another_protocol(f: Federation) -> Lie:
    return Lie(control=b"FSA9" + invite(f)[4:])


@attack("E_MSG_FORMAT")
def message_that_ends_before_its_word_size(f: Federation) -> Lie:
    return Lie(control=invite(f)[:19])


@attack("E_MSG_FORMAT")
def truncated_message(f: Federation) -> Lie:
    return Lie(control=invite(f)[:-1])


@attack("E_MSG_FORMAT")
def bytes_after_the_end(f: Federation) -> Lie:
    return Lie(control=invite(f) + b"\x00")


@attack("E_MSG_FORMAT")
def unknown_step(f: Federation) -> Lie:
    message = codec.read(Down, invite(f))
    unknown: Any = 99
    return Lie(control=codec.write(replace(message, step=unknown)))


@attack("E_MSG_FORMAT")
def list_that_announces_four_billion_entries(f: Federation) -> Lie:
    f.to_keys()
    body = b"\xff\xff\xff\xff"
    return Lie(control=raw(f, Step.SHARE, body))


@attack("E_ROUND_TAG", versions=frozenset({0, 1}))
def header_in_an_envelope_of_another_version(f: Federation) -> Lie:
    """Both versions are spoken here, and the envelope is signed; what is inside says another."""
    message = codec.read(Down, invite(f))
    signature = f.chair.signer.sign(messages._down_digest(0, message.ring_bits, message.rt, message.step, message.body))
    return Lie(control=codec.write(replace(message, version=0, signature=signature)))


@attack("E_VERSION")
def newer_protocol_version(f: Federation) -> Lie:
    return Lie(control=invite(f, version=2))


@attack("E_VERSION")
def older_protocol_version_that_the_plan_does_not_accept(f: Federation) -> Lie:
    return Lie(control=invite(f, version=0))


@attack("E_VERSION")
def bandwidth_mode_that_the_plan_does_not_use(f: Federation) -> Lie:
    return Lie(control=invite(f, ring_bits=16))


@attack("E_COORDINATOR_SIGNATURE")
def message_of_a_foreign_coordinator(f: Federation) -> Lie:
    return Lie(control=messages.down(keys.SigningKey(b"\x05" * 32), f.tag, Step.KEYS, Header(tag=f.tag, kind=Kind.UPDATE)))


@attack("E_COORDINATOR_SIGNATURE")
def unsigned_message(f: Federation) -> Lie:
    return Lie(control=invite(f)[:-64] + bytes(64))


@attack("E_COORDINATOR_SIGNATURE")
def signature_of_another_step(f: Federation) -> Lie:
    """A proxy relabels a signed message."""
    _, cohort = f.to_keys()
    return Lie(control=codec.write(replace(codec.read(Down, cohort), step=Step.ABANDON)))


@attack("E_COORDINATOR_SIGNATURE")
def altered_body(f: Federation) -> Lie:
    message = codec.read(Down, invite(f))
    return Lie(control=codec.write(replace(message, body=message.body[:-1] + b"\x01")))


@attack("E_ROUND_TAG")
def header_under_the_tag_of_another_round(f: Federation) -> Lie:
    return Lie(control=say(f, Step.KEYS, Header(tag=replace(f.tag, round=9), kind=Kind.UPDATE)))


@attack("E_PLAN_MISMATCH")
def another_plan(f: Federation) -> Lie:
    return Lie(control=invite(f, plan=bytes(32)))


@attack("E_PLAN_MISMATCH", kinds=[Kind.UPDATE])
def statistic_that_the_plan_does_not_ask(f: Federation) -> Lie:
    return Lie(control=say(f, Step.KEYS, Header(tag=f.tag, kind=Kind.STAT)))


@attack("E_MODEL_LAYOUT")
def another_layout(f: Federation) -> Lie:
    return Lie(control=invite(f, layout=bytes(32)))


@attack("E_ROSTER_CHANGED")
def roster_of_the_coordinators_own(f: Federation) -> Lie:
    """A roster with Sybils in it that the root never signed here."""
    return Lie(control=invite(f, roster=found(["a", "b", VICTIM], entropy=seeded("sybils"), now=NOW).roster.digest))


@attack("E_ROSTER_CHANGED")
def downgraded_roster(f: Federation) -> Lie:
    """The site's own roster file was replaced by an older one, in which a revoked site is still active."""
    record = f.records[VICTIM]
    f.records[VICTIM] = replace(record, memory=replace(record.memory, roster_epoch=f.consortium.roster.epoch + 1))
    return Lie(control=invite(f))


@attack("E_ROSTER_EXPIRED")
def expired_roster(f: Federation) -> Lie:
    return Lie(control=invite(f), now=NOW + 2 * MONTH_S)


@attack("E_REPLAY")
def replayed_round(f: Federation) -> Lie:
    old = invite(f)
    f.next_round(round_number=2)
    f.to_keys()
    return Lie(control=old)


@attack("E_REPLAY")
def replayed_attempt(f: Federation) -> Lie:
    old = invite(f)
    f.to_keys()
    f.next_round(round_number=1, attempt=1)
    f.to_keys()
    return Lie(control=old)


@attack("E_EQUIVOCATION")
def split_model(f: Federation) -> Lie:
    """One round, two models: the second is offered to a site that has the first."""
    f.to_keys()
    other = np.full(f.terms.num_values, 0.01, dtype=np.float32)
    offer = replace(f.offer(), values=other)
    return Lie(control=invite(f, model=digest(other, LAYOUT)), offer=offer)


@attack("E_EQUIVOCATION")
def round_announced_again_after_the_update_was_burnt(f: Federation) -> Lie:
    f.to_keys()
    f.records[VICTIM] = burn(f.records[VICTIM])
    return Lie(control=invite(f))


@attack("E_MODEL_HASH")
def model_that_is_not_the_announced_one(f: Federation) -> Lie:
    return Lie(control=invite(f), offer=replace(f.offer(), values=np.full(f.terms.num_values, 0.01, dtype=np.float32)))


@attack("E_MODEL_NONFINITE")
def model_with_nan(f: Federation) -> Lie:
    values = np.full(f.terms.num_values, np.nan, dtype=np.float32)
    return Lie(control=invite(f, model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values))


@attack("E_MODEL_LAYOUT")
def model_of_another_type(f: Federation) -> Lie:
    """As many values, and doubles."""
    values: Any = f.weights_now.astype(np.float64)
    return Lie(control=invite(f), offer=replace(f.offer(), values=values, reference=None))


@attack("E_MODEL_LAYOUT")
def model_of_another_size(f: Federation) -> Lie:
    values = np.zeros(f.terms.num_values + 1, dtype=np.float32)
    return Lie(control=invite(f, model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values, reference=None))


def _late(f: Federation, values: Any, *, attempt: int = 0) -> Lie:
    """A model of the hundredth round, to a site that was there in the one before: the plan's rounds could have led there, one could not."""
    last = Reference(values=f.weights_now, round=99)
    control = invite(f, round=100, attempt=attempt, model=digest(values, LAYOUT))
    return Lie(control=control, offer=replace(f.offer(), values=values, reference=last))


@attack("E_MODEL_JUMP")
def crafted_model_further_from_the_last_than_a_round_leads(f: Federation) -> Lie:
    return _late(f, np.full(f.terms.num_values, 5.0, dtype=np.float32))


@attack("E_MODEL_JUMP")
def model_of_a_late_round_at_the_start_of_another_session(f: Federation) -> Lie:
    """It was seen where it belonged. Trained on as a first model, it would let each session move on from where the last one ended."""
    values = np.full(f.terms.num_values, 5.0, dtype=np.float32)
    f.tell(VICTIM, invite(f, round=900, model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values))
    return Lie(control=invite(f, session=bytes(16), model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values))


@attack("E_MODEL_JUMP")
def model_beside_the_last_that_the_rounds_before_it_cannot_have_reached(f: Federation) -> Lie:
    """The last one on file is itself far away: a site that follows step by step is led as far as its coordinator likes."""
    values = np.full(f.terms.num_values, 5.0, dtype=np.float32)
    reference = Reference(values=values, round=2)
    return Lie(control=invite(f, round=3, model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values, reference=reference))


@attack("E_MODEL_JUMP")
def crafted_model_far_from_the_last(f: Federation) -> Lie:
    """The weights that copy an image into the gradient are far away: training could not have led there."""
    values = np.full(f.terms.num_values, 5.0, dtype=np.float32)
    return Lie(control=invite(f, model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values))


@attack("E_MODEL_JUMP")
def crafted_model_smuggled_in_by_a_statistic(f: Federation) -> Lie:
    """A statistic comes without a model; the digest in its header must not count as a model seen."""
    values = np.full(f.terms.num_values, 5.0, dtype=np.float32)
    tag = replace(f.tag, layout=LAYOUTS[Kind.STAT], model=digest(values, LAYOUT))
    f.tell(VICTIM, say(f, Step.KEYS, Header(tag=tag, kind=Kind.STAT), tag=tag))
    return _late(f, values)


@attack("E_PLAN_MISMATCH")
def crafted_model_that_a_million_rounds_could_have_reached(f: Federation) -> Lie:
    """The distance that a model may move grows with the rounds in between, and the coordinator counts them."""
    values = np.full(f.terms.num_values, 5.0, dtype=np.float32)
    return Lie(control=invite(f, round=10**6, model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values))


@attack("E_MODEL_CHAIN")
def crafted_model_for_a_site_that_has_none_to_compare(f: Federation) -> Lie:
    values = np.full(f.terms.num_values, 5.0, dtype=np.float32)
    return Lie(control=invite(f, model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values, reference=None))


@attack("E_MODEL_CHAIN")
def roll_back_to_a_model_never_seen(f: Federation) -> Lie:
    values = np.full(f.terms.num_values, 0.01, dtype=np.float32)
    reference = Reference(values=f.weights_now, round=f.tag.round)
    return Lie(control=invite(f, model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values, reference=reference))


def invited(f: Federation) -> bytes:
    """The victim accepts a header, and its machine stops before it has trained; the same header comes again."""
    header = invite(f)
    f.tell(VICTIM, header)
    return header


@attack("E_MODEL_HASH")
def crafted_model_beside_the_header_of_the_honest_one(f: Federation) -> Lie:
    """The header is the very one that was accepted; the weights beside it are not."""
    values = np.full(f.terms.num_values, 5.0, dtype=np.float32)
    return Lie(control=invited(f), offer=replace(f.offer(), values=values))


@attack("E_PLAN_MISMATCH")
def header_of_a_plan_whose_approval_was_replaced(f: Federation) -> Lie:
    """The operator approved another plan before the site came back."""
    header, seat = invited(f), f.seats[VICTIM]
    f.seats[VICTIM] = replace(seat, terms=replace(seat.terms, plan=bytes(32)))
    return Lie(control=header)


@attack("E_ROSTER_CHANGED")
def header_of_a_roster_that_was_replaced(f: Federation) -> Lie:
    """A site was revoked before the victim came back: nobody trains for a cohort that it would be in."""
    header, seat = invited(f), f.seats[VICTIM]
    f.seats[VICTIM] = replace(seat, roster=replace(seat.roster, epoch=seat.roster.epoch + 1))
    return Lie(control=header)


@attack("E_ROSTER_EXPIRED")
def header_of_a_roster_that_has_expired_since(f: Federation) -> Lie:
    return Lie(control=invited(f), now=NOW + 2 * MONTH_S)


@attack("E_PLAN_MISMATCH")
def step_of_a_plan_whose_approval_was_replaced(f: Federation) -> Lie:
    """An update that was made under one plan is not summed under the quorums of another."""
    _, cohort = f.to_keys()
    seat = f.seats[VICTIM]
    f.seats[VICTIM] = replace(seat, terms=replace(seat.terms, plan=bytes(32)))
    return Lie(control=cohort)


@attack("E_ALREADY_MASKED")
def update_masked_again_for_another_cohort(f: Federation) -> Lie:
    """Sum minus sum-without-you: the second sum never comes to be."""
    masked(f)
    return Lie(control=invite(f, attempt=1))


@attack("E_ALREADY_MASKED")
def update_masked_again_after_only_this_site_gave_up(f: Federation) -> Lie:
    masked(f)
    f.tell(VICTIM, abandon(f.chair, f.tag))
    return Lie(control=invite(f, attempt=1))


def _retry_with(f: Federation, who: Sequence[str], *, signed_tag: RoundTag | None = None, key: keys.SigningKey | None = None) -> bytes:
    said = tuple(as_signed(messages.up(key or f.consortium.sites[s], signed_tag or f.tag, Step.ABANDON, s, Nothing())) for s in who)
    return Inviting(chair=f.chair, tag=replace(f.tag, attempt=1), abandons=said).header


@attack("E_ABANDON_QUORUM")
def too_few_abandons(f: Federation) -> Lie:
    masked(f)
    return Lie(control=_retry_with(f, f.site_ids[:3]))


@attack("E_ABANDON_QUORUM")
def forged_abandons(f: Federation) -> Lie:
    masked(f)
    return Lie(control=_retry_with(f, f.site_ids, key=keys.SigningKey(b"\x03" * 32)))


@attack("E_ABANDON_QUORUM")
def abandons_of_another_attempt(f: Federation) -> Lie:
    masked(f)
    return Lie(control=_retry_with(f, f.site_ids, signed_tag=replace(f.tag, attempt=7)))


@attack("E_ABANDON_QUORUM")
def one_abandon_counted_many_times(f: Federation) -> Lie:
    masked(f)
    return Lie(control=_retry_with(f, [f.site_ids[0]] * 5))


@attack("E_ABANDON_QUORUM", num_sites=6)
def abandons_of_sites_outside_the_old_cohort(f: Federation) -> Lie:
    f.to_masks(*f.to_shares(*f.to_keys(f.site_ids[:5]), f.site_ids[:5]), f.site_ids[:5])
    return Lie(control=_retry_with(f, [*f.site_ids[:3], f.site_ids[5]]))


def _asked_again(f: Federation, **agreed: Any) -> Lie:
    """Another attempt, after the operator approved other terms or another roster came, for which the coordinator asks as it should."""
    seat = f.seats[VICTIM]
    roster, terms = agreed.pop("roster", seat.roster), replace(seat.terms, **agreed)
    f.seats[VICTIM] = replace(seat, roster=roster, terms=terms)
    return Lie(control=invite(f, attempt=1, plan=terms.plan, roster=roster.digest))


@attack("E_UPDATE_TERMS")
def update_of_one_plan_asked_for_under_another(f: Federation) -> Lie:
    """The plan that paid for it has a noise quorum of five, the one that would sum it has three: too little noise."""
    f.to_keys()
    return _asked_again(f, plan=bytes(32))


@attack("E_UPDATE_TERMS")
def update_that_was_given_up_under_one_plan_asked_for_under_another(f: Federation) -> Lie:
    f.to_keys()
    f.tell(VICTIM, abandon(f.chair, f.tag))
    return _asked_again(f, plan=bytes(32))


@attack("E_UPDATE_TERMS")
def update_on_the_grid_of_an_older_roster(f: Federation) -> Lie:
    """A site four times as heavy as any before was enrolled: the integers of an update now mean four times as much."""
    f.to_keys()
    newcomer = replace(f.consortium.roster.members[0], site_id="site-005", public_key=b"\x07" * 32, weight=4)
    newer = replace(f.consortium.roster, epoch=f.consortium.roster.epoch + 1, members=(*f.consortium.roster.members, newcomer))
    return _asked_again(f, roster=newer, grid=replace(f.terms.grid, max_weight=4))


@attack("E_UPDATE_NORM", weights={"site-000": 4}, max_weight=4)
def update_with_the_weight_of_an_older_roster(f: Federation) -> Lie:
    """The heaviest weight is as it was; the site's own is not."""
    f.to_keys()
    members = tuple(replace(each, weight=2) if each.site_id == VICTIM else each for each in f.consortium.roster.members)
    return _asked_again(f, roster=replace(f.consortium.roster, epoch=f.consortium.roster.epoch + 1, members=members))


@attack("E_EQUIVOCATION")
def retry_with_another_model(f: Federation) -> Lie:
    f.to_keys()
    other = np.full(f.terms.num_values, 0.01, dtype=np.float32)
    offer = replace(f.offer(), values=other)
    return Lie(control=invite(f, attempt=1, model=digest(other, LAYOUT)), offer=offer)


@attack("E_ALREADY_RELEASED")
def update_asked_for_again_after_its_sum_was_opened(f: Federation) -> Lie:
    f.run()
    return Lie(control=invite(f, attempt=1))

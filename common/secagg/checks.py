# SPDX-License-Identifier: Apache-2.0
"""Everything a site makes sure of before it answers, one function a check, listed in one table.

A check looks at a case (what arrived, and where this site stands) and raises the error that names what is wrong; it computes nothing
that the protocol needs. So the table can be read as the list of lies that are caught, and a test can take out one check at a time and
watch an attack succeed. What cannot be taken out stands elsewhere: an AES-GCM tag, a message that does not parse, a step out of turn.
"""

from collections.abc import Callable
from typing import Any

from common import roster
from common.errors import (
    AbandonQuorum,
    AlreadyMasked,
    CohortOrder,
    CohortTooSmall,
    ConfirmQuorum,
    CoordinatorSignature,
    DuplicateKey,
    Equivocation,
    MessageFormat,
    ModelLayout,
    OwnKey,
    PeerSignature,
    PlanMismatch,
    Replay,
    RosterChanged,
    RoundTagMismatch,
    ShareFormat,
    SplitView,
    SurvivorSet,
    UnknownPeer,
    UpdateNorm,
)
from common.secagg import codec, field, messages, model, quantise
from common.secagg.cases import (
    Addressed,
    Arrival,
    CohortNamed,
    Invitation,
    ModelOffered,
    QuorumShown,
    Retry,
    SharesDelivered,
    SharesOpened,
    SurvivorsNamed,
    Update,
)
from common.secagg.keys import has_small_order, signature_holds
from common.secagg.messages import Confirmation, Nothing, RoundTag, Signed, Step
from common.secagg.stages import Peer


def run(case: Any) -> None:
    """Every check of a case, in the table's order; the first lie found is the one that is named."""
    for check in TABLE[type(case)]:
        check(case)


def size(case: Arrival) -> None:
    messages.check_size(case.control, limit=case.terms.largest_message)


def magic(case: Arrival) -> None:
    messages.check_magic(case.control)


def version(case: Arrival) -> None:
    messages.check_version(case.control, versions=case.terms.versions, ring_bits=case.terms.grid.ring_bits)


def coordinator_signature(case: Addressed) -> None:
    if not messages.coordinator_signed(case.message, case.seat.roster.coordinator):
        raise CoordinatorSignature(
            f"a message of step {case.message.step.name} is not signed by the roster's coordinator.",
            fix="Something between here and the coordinator altered or made it; nothing was answered.",
        )


def tag_is_the_header(case: Invitation) -> None:
    tag = case.header.tag
    if tag.rt != case.message.rt or (tag.version, tag.ring_bits) != (case.message.version, case.message.ring_bits):
        raise RoundTagMismatch(
            "a header's round tag is not the digest of its fields.", fix="Nothing was answered; the coordinator is at fault."
        )


def plan_is_approved(case: Invitation) -> None:
    if case.header.tag.plan != case.seat.terms.plan:
        raise PlanMismatch(
            f"the round follows plan {case.header.tag.plan.hex()[:16]}, approved here is {case.seat.terms.plan.hex()[:16]}.",
            fix="Compare the plan files; approve the new one only after reading it.",
        )


def kind_is_planned(case: Invitation) -> None:
    if case.header.kind not in case.seat.terms.kinds:
        raise PlanMismatch(f"the round sums {case.header.kind.name}, which the plan does not.", fix="Nothing was answered.")


def round_is_planned(case: Invitation) -> None:
    if case.header.tag.round > case.seat.terms.max_rounds:
        raise PlanMismatch(f"round {case.header.tag.round} is beyond the plan's {case.seat.terms.max_rounds}.", fix="The plan has ended.")


def layout_is_planned(case: Invitation) -> None:
    if case.header.tag.layout != case.seat.terms.layout:
        raise ModelLayout("the round's layout is not the plan's.", fix="Both sides must build the model from the same plan.")


def roster_is_mine(case: Invitation) -> None:
    if case.header.tag.roster != case.seat.roster.digest:
        raise RosterChanged(
            f"the round follows roster {case.header.tag.roster.hex()[:16]}, held here is {case.seat.roster.digest.hex()[:16]}.",
            fix="Fetch the current roster and approve its changes.",
        )


def roster_is_not_older(case: Invitation) -> None:
    if case.seat.roster.epoch < case.memory.roster_epoch:
        raise RosterChanged(
            f"the roster here has epoch {case.seat.roster.epoch}, epoch {case.memory.roster_epoch} was used before.",
            fix="Fetch the current roster; an older one may bring a revoked site back.",
        )


def roster_is_valid(case: Invitation) -> None:
    roster.check_valid(case.seat.roster, now=case.now)


def round_is_new(case: Invitation) -> None:
    tag, mark = case.header.tag, case.memory.mark(case.header.tag.session)
    if mark and (tag.round, tag.attempt) < (mark.round, mark.attempt):
        raise Replay(
            f"round {tag.round} attempt {tag.attempt} is over; this site is at round {mark.round} attempt {mark.attempt}.",
            fix="Nothing was answered; the coordinator may be an old copy.",
        )


def round_is_the_one_answered(case: Invitation) -> None:
    tag, mark = case.header.tag, case.memory.mark(case.header.tag.session)
    if mark and (tag.round, tag.attempt) == (mark.round, mark.attempt):
        raise Equivocation(
            f"round {tag.round} attempt {tag.attempt} was announced before, differently.",
            fix="Two coordinators may be running, or one tells sites different stories. Nothing was answered.",
        )


def model_layout(case: ModelOffered) -> None:
    model.check_layout(case.offer, case.seat.terms)


def model_digest(case: ModelOffered) -> None:
    model.check_digest(case.offer, case.seat.terms, case.header.tag.model)


def model_finite(case: ModelOffered) -> None:
    model.check_finite(case.offer)


def model_chain(case: ModelOffered) -> None:
    tag = case.header.tag
    model.check_chain(case.offer, case.seat.terms, round_number=tag.round, announced=tag.model, seen=case.memory.models_seen)


def model_jump(case: ModelOffered) -> None:
    tag = case.header.tag
    model.check_jump(case.offer, case.seat.terms, round_number=tag.round, announced=tag.model, seen=case.memory.models_seen)


def retry_is_of_the_same_model(case: Retry) -> None:
    if case.header.tag.model != case.earlier.model:
        raise Equivocation(
            f"attempt {case.header.tag.attempt} of round {case.earlier.round} is about another model than the update was trained on.",
            fix="A new model needs a new round.",
        )


def masked_update_has_abandons(case: Retry) -> None:
    if case.masked_with and not case.header.abandons:
        raise AlreadyMasked(
            f"the update of round {case.earlier.round} left masked in attempt {case.earlier.attempt}; nobody has given that attempt up.",
            fix="Collect ABANDON from a quorum of its cohort, or train again under a new reservation.",
        )


def abandons_are_a_quorum(case: Retry) -> None:
    if not case.masked_with:
        return
    valid = _signers(case.header.abandons, case.masked_with, case.earlier, Step.ABANDON, codec.write(Nothing()))
    needed = case.seat.terms.threshold(len(case.masked_with))
    if len(valid) < needed:
        raise AbandonQuorum(
            f"{len(valid)} sites gave attempt {case.earlier.attempt} of round {case.earlier.round} up, expected {needed}.",
            fix="Ask more sites of that cohort, or train again under a new reservation.",
        )


def update_fits(case: Update) -> None:
    terms = case.seat.terms
    quantise.check_update(case.update, terms.grid, num_values=terms.num_values, max_norm=terms.max_norm)


def weight_is_declared(case: Update) -> None:
    member = case.seat.roster.find(case.seat.site_id)
    if member is None or case.update.weight != member.weight:
        raise UpdateNorm(f"the update has weight {case.update.weight}, the roster declares another.", fix="Use the roster's weight.")


def cohort_is_sorted(case: CohortNamed) -> None:
    _check_sorted(tuple(member.site_id for member in case.cohort.members))


def cohort_is_large_enough(case: CohortNamed) -> None:
    count, needed = len(case.cohort.members), case.seat.terms.smallest_cohort
    if count < needed:
        raise CohortTooSmall(f"the cohort has {count} sites, expected at least {needed}.", fix="Wait for more sites.")


def cohort_is_not_too_large(case: CohortNamed) -> None:
    count, most = len(case.cohort.members), case.seat.terms.max_cohort
    if count > most:
        raise PlanMismatch(f"the cohort has {count} sites, the plan's grid holds the sum of {most}.", fix="Split the cohort into groups.")


def cohort_is_enrolled(case: CohortNamed) -> None:
    for member in case.cohort.members:
        roster.active_member(case.seat.roster, member.site_id, now=case.now)


def cohort_is_my_group(case: CohortNamed) -> None:
    for member in case.cohort.members:
        if member.site_id not in case.seat.terms.members:
            raise UnknownPeer(f"site '{member.site_id[:64]}' is not of this site's group.", fix="Groups follow from the roster's epoch.")


def peers_signed(case: CohortNamed) -> None:
    for member in case.cohort.members:
        enrolled = case.seat.roster.find(member.site_id)
        if enrolled is None or not messages.site_signed(member, case.stage.tag, Step.KEYS, enrolled.public_key):
            raise PeerSignature(
                f"the keys of '{member.site_id[:64]}' are not signed by it for this round.",
                fix="The coordinator, or somebody before it, exchanged them. Nothing was shared.",
            )


def keys_are_distinct(case: CohortNamed) -> None:
    found = [key for said in case.announcements for key in (said.mask_key, said.share_key)]
    if len(set(found)) < len(found):
        raise DuplicateKey("two keys of the cohort are the same.", fix="A site copied another's keys; leave it out.")


def keys_have_large_order(case: CohortNamed) -> None:
    for member, said in zip(case.cohort.members, case.announcements, strict=True):
        if has_small_order(said.mask_key) or has_small_order(said.share_key):
            raise MessageFormat(f"a public key of '{member.site_id[:64]}' has small order.", fix="Leave that site out.")


def own_keys_are_intact(case: CohortNamed) -> None:
    if case.stage.announcement not in case.cohort.members:
        raise OwnKey("this site's own keys are missing from the cohort or altered.", fix="Nothing was shared; the coordinator is at fault.")


def kinds_agree(case: CohortNamed) -> None:
    for member, said in zip(case.cohort.members, case.announcements, strict=True):
        if said.kind is not case.stage.kind:
            raise PlanMismatch(f"'{member.site_id[:64]}' announced {said.kind.name}, not {case.stage.kind.name}.", fix="Leave it out.")


def deliveries_are_sorted(case: SharesDelivered) -> None:
    _check_sorted(tuple(item.site_id for item in case.deliveries.items))


def deliveries_are_not_from_me(case: SharesDelivered) -> None:
    if case.seat.site_id in {item.site_id for item in case.deliveries.items}:
        raise CohortOrder("a delivery names its own receiver as sender.", fix="Nothing was masked; the coordinator is at fault.")


def deliveries_are_from_the_cohort(case: SharesDelivered) -> None:
    known = {peer.site_id for peer in case.stage.cohort}
    for item in case.deliveries.items:
        if item.site_id not in known:
            raise UnknownPeer(f"a share comes from '{item.site_id[:64]}', which is not of this cohort.", fix="Nothing was masked.")


def sharers_are_enough(case: SharesDelivered) -> None:
    count, needed = len(case.deliveries.items) + 1, case.seat.terms.threshold(len(case.stage.cohort))
    if count < needed:
        raise CohortTooSmall(
            f"{count} of {len(case.stage.cohort)} sites shared their secrets, expected at least {needed}.",
            fix="Wait for them: the same attempt goes on when they are back.",
        )


def shares_are_field_elements(case: SharesOpened) -> None:
    for site_id, plaintext in case.opened:
        halves = plaintext[: field.ELEMENT_SIZE], plaintext[field.ELEMENT_SIZE :]
        if any(field.from_bytes(half) is None for half in halves):
            raise ShareFormat(f"'{site_id}' sealed something that is not two shares.", fix="Leave that site out of the next attempt.")


def survivors_are_sorted(case: SurvivorsNamed) -> None:
    _check_sorted(case.survivors.site_ids)


def i_survive(case: SurvivorsNamed) -> None:
    if case.seat.site_id not in case.survivors.site_ids:
        raise SurvivorSet("the survivors do not name this site, whose vector was sent.", fix="Nothing was confirmed.")


def survivors_are_sharers(case: SurvivorsNamed) -> None:
    known = {held.site_id for held in case.stage.held}
    if not known.issuperset(case.survivors.site_ids):
        raise SurvivorSet("the survivors name a site that this attempt does not know.", fix="Nothing was confirmed.")


def survivors_are_enough(case: SurvivorsNamed) -> None:
    count, needed = len(case.survivors.site_ids), case.seat.terms.threshold(len(case.stage.cohort))
    if count < needed:
        raise SurvivorSet(
            f"{count} of {len(case.stage.cohort)} sites survive, expected at least {needed}.",
            fix="Wait for them: the same attempt goes on when they are back.",
        )


def nobody_confirmed_otherwise(case: QuorumShown) -> None:
    """A valid signature over other survivors is proof, whoever passed it on."""
    mine = codec.write(Confirmation(transcript=case.stage.transcript))
    for said in case.quorum.confirmations:
        if said.body != mine and _signers((said,), case.stage.cohort, case.stage.tag, Step.CONFIRM, said.body):
            raise SplitView(
                f"'{said.site_id}' signed other survivors than this site did.",
                fix="The coordinator told sites different stories. Keep both messages: they prove it.",
            )


def confirmations_are_a_quorum(case: QuorumShown) -> None:
    """What does not parse or hold is not counted, so that one rogue site cannot stall the others."""
    mine = codec.write(Confirmation(transcript=case.stage.transcript))
    survivors = tuple(peer for peer in case.stage.cohort if peer.site_id in case.stage.survivors)
    valid = _signers(case.quorum.confirmations, survivors, case.stage.tag, Step.CONFIRM, mine)
    needed = case.seat.terms.threshold(len(case.stage.cohort))
    if len(valid) < needed:
        raise ConfirmQuorum(f"{len(valid)} sites confirmed these survivors, expected at least {needed}.", fix="Ask the others to confirm.")


Check = Callable[[Any], None]

TABLE: dict[type, tuple[Check, ...]] = {
    Arrival: (size, magic, version),
    Addressed: (coordinator_signature,),
    Invitation: (
        tag_is_the_header,
        plan_is_approved,
        kind_is_planned,
        round_is_planned,
        layout_is_planned,
        roster_is_mine,
        roster_is_not_older,
        roster_is_valid,
        round_is_new,
        round_is_the_one_answered,
    ),
    ModelOffered: (model_layout, model_digest, model_finite, model_chain, model_jump),
    Retry: (retry_is_of_the_same_model, masked_update_has_abandons, abandons_are_a_quorum),
    Update: (update_fits, weight_is_declared),
    CohortNamed: (
        cohort_is_sorted,
        cohort_is_large_enough,
        cohort_is_not_too_large,
        cohort_is_enrolled,
        cohort_is_my_group,
        peers_signed,
        keys_are_distinct,
        keys_have_large_order,
        own_keys_are_intact,
        kinds_agree,
    ),
    SharesDelivered: (deliveries_are_sorted, deliveries_are_not_from_me, deliveries_are_from_the_cohort, sharers_are_enough),
    SharesOpened: (shares_are_field_elements,),
    SurvivorsNamed: (survivors_are_sorted, i_survive, survivors_are_sharers, survivors_are_enough),
    QuorumShown: (nobody_confirmed_otherwise, confirmations_are_a_quorum),
}


def _check_sorted(site_ids: tuple[str, ...]) -> None:
    if list(site_ids) != sorted(set(site_ids)):
        raise CohortOrder("a list of sites is not strictly sorted by name.", fix="Nothing was answered; the coordinator is at fault.")


def _signers(said: tuple[Signed, ...], peers: tuple[Peer, ...], tag: RoundTag, step: Step, body: bytes) -> frozenset[str]:
    """Which of the peers are behind these signatures over `body`; each counts once."""
    identity = {peer.site_id: peer.identity for peer in peers}
    return frozenset(
        each.site_id
        for each in said
        if each.site_id in identity
        and signature_holds(identity[each.site_id], each.signature, messages.up_digest(tag, step, each.site_id, body))
    )

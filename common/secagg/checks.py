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
    CohortOrder,
    CohortTooSmall,
    ConfirmQuorum,
    DuplicateKey,
    MessageFormat,
    OwnKey,
    PeerSignature,
    PlanMismatch,
    ShareFormat,
    SplitView,
    SurvivorSet,
    UnknownPeer,
)
from common.secagg import codec, field, messages
from common.secagg import header_checks as headers
from common.secagg.cases import (
    Addressed,
    Arrival,
    CohortNamed,
    Continued,
    Invitation,
    InvitedBefore,
    ModelOffered,
    QuorumShown,
    Retry,
    SharesDelivered,
    SharesOpened,
    SurvivorsNamed,
    Update,
)
from common.secagg.keys import has_small_order
from common.secagg.messages import Confirmation, Step
from common.secagg.stages import signers


def run(case: Any) -> None:
    """Every check of a case, in the table's order; the first lie found is the one that is named."""
    for check in TABLE[type(case)]:
        check(case)


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
    unfit = tuple(
        site_id
        for site_id, plaintext in case.opened
        if any(field.from_bytes(half) is None for half in (plaintext[: field.ELEMENT_SIZE], plaintext[field.ELEMENT_SIZE :]))
    )
    if unfit:
        names = ", ".join(f"'{site_id}'" for site_id in unfit)
        raise ShareFormat(
            f"{names} sealed something that is not two shares.",
            fix="The coordinator is told, and can leave them out of the next attempt.",
            accused=unfit,
        )


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
        if said.body != mine and signers((said,), case.stage.cohort, case.stage.tag, Step.CONFIRM, said.body):
            raise SplitView(
                f"'{said.site_id}' signed other survivors than this site did.",
                fix="The coordinator told sites different stories. Keep both messages: they prove it.",
            )


def confirmations_are_a_quorum(case: QuorumShown) -> None:
    """What does not parse or hold is not counted, so that one rogue site cannot stall the others."""
    mine = codec.write(Confirmation(transcript=case.stage.transcript))
    survivors = tuple(peer for peer in case.stage.cohort if peer.site_id in case.stage.survivors)
    valid = signers(case.quorum.confirmations, survivors, case.stage.tag, Step.CONFIRM, mine)
    needed = case.seat.terms.threshold(len(case.stage.cohort))
    if len(valid) < needed:
        raise ConfirmQuorum(f"{len(valid)} sites confirmed these survivors, expected at least {needed}.", fix="Ask the others to confirm.")


Check = Callable[[Any], None]

TABLE: dict[type, tuple[Check, ...]] = {
    Arrival: (headers.size, headers.magic, headers.version),
    Addressed: (headers.coordinator_signature,),
    Invitation: (
        headers.tag_is_the_header,
        headers.plan_is_approved,
        headers.kind_is_planned,
        headers.words_are_planned,
        headers.round_is_planned,
        headers.layout_is_planned,
        headers.roster_is_mine,
        headers.roster_is_not_older,
        headers.roster_is_valid,
        headers.round_is_new,
        headers.round_is_the_one_answered,
        headers.round_is_about_one_model,
    ),
    InvitedBefore: (headers.plan_is_approved, headers.roster_is_mine, headers.roster_is_valid),
    Continued: (headers.plan_is_approved,),
    ModelOffered: (
        headers.model_layout,
        headers.model_digest,
        headers.model_finite,
        headers.model_chain,
        headers.model_jump,
        headers.model_reach,
    ),
    Retry: (
        headers.update_was_made_under_this_plan,
        headers.update_lies_on_this_grid,
        headers.masked_update_has_abandons,
        headers.abandons_are_a_quorum,
    ),
    Update: (headers.update_fits, headers.weight_is_declared),
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

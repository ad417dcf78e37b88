# SPDX-License-Identifier: Apache-2.0
"""What a site makes sure of before it takes part: who speaks, about which plan, roster, round and model, and what it is about to add.

The first half of the table in `checks`; what a check is, is said there.
"""

from common import roster
from common.errors import (
    AbandonQuorum,
    AlreadyMasked,
    CoordinatorSignature,
    Equivocation,
    ModelLayout,
    PlanMismatch,
    Replay,
    RosterChanged,
    RoundTagMismatch,
    UnknownVersion,
    UpdateNorm,
    UpdateTerms,
)
from common.secagg import codec, messages, model, quantise
from common.secagg.cases import Addressed, Arrival, Continued, Invitation, InvitedBefore, ModelOffered, Retry, Update
from common.secagg.memory import place
from common.secagg.messages import Nothing, Step
from common.secagg.stages import signers


def size(case: Arrival) -> None:
    messages.check_size(case.control, limit=case.seat.terms.largest_message)


def magic(case: Arrival) -> None:
    messages.check_magic(case.control)


def version(case: Arrival) -> None:
    messages.check_version(case.control, versions=case.seat.terms.versions, words=case.seat.words)


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


def plan_is_approved(case: Invitation | InvitedBefore | Continued) -> None:
    if case.tag.plan != case.seat.terms.plan:
        raise PlanMismatch(
            f"the round follows plan {case.tag.plan.hex()[:16]}, approved here is {case.seat.terms.plan.hex()[:16]}.",
            fix="Compare the plan files; approve the new one only after reading it.",
        )


def kind_is_planned(case: Invitation) -> None:
    if case.header.kind is not case.seat.terms.kind:
        raise PlanMismatch(f"the round sums {case.header.kind.name}, which the plan does not.", fix="Nothing was answered.")


def words_are_planned(case: Invitation) -> None:
    found, planned = case.header.tag.ring_bits, case.seat.terms.grid.ring_bits
    if found != planned:
        raise UnknownVersion(
            f"the round sums {case.header.kind.name} in words of {found} bits, the plan does in words of {planned}.",
            fix="Bring both ends to the same version of fedward and the same plan.",
        )


def round_is_planned(case: Invitation) -> None:
    number, rounds = case.header.tag.round, case.seat.terms.rounds
    if number not in rounds:
        raise PlanMismatch(
            f"the plan has no {case.header.kind.name} in round {number}, only in {len(rounds)} from {rounds[0]} to {rounds[-1]}.",
            fix="Nothing was answered; the plan has ended, or the coordinator asks for what nobody agreed to.",
        )


def layout_is_planned(case: Invitation) -> None:
    if case.header.tag.layout != case.seat.terms.layout:
        raise ModelLayout("the round's layout is not the plan's.", fix="Both sides must build the model from the same plan.")


def roster_is_mine(case: Invitation | InvitedBefore) -> None:
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


def roster_is_valid(case: Invitation | InvitedBefore) -> None:
    roster.check_valid(case.seat.roster, now=case.now)


def round_is_new(case: Invitation) -> None:
    tag, mark = case.header.tag, case.memory.mark(case.header.tag.session)
    if mark and place(tag.round, case.header.kind, tag.attempt) < mark.place:
        raise Replay(
            f"{case.header.kind.name} of round {tag.round}, attempt {tag.attempt}, is over; "
            f"this site is at {mark.kind.name} of round {mark.round}, attempt {mark.attempt}.",
            fix="Nothing was answered; the coordinator may be an old copy.",
        )


def round_is_the_one_answered(case: Invitation) -> None:
    tag, mark = case.header.tag, case.memory.mark(case.header.tag.session)
    if mark and place(tag.round, case.header.kind, tag.attempt) == mark.place:
        raise Equivocation(
            f"round {tag.round} attempt {tag.attempt} was announced before, differently.",
            fix="Two coordinators may be running, or one tells sites different stories. Nothing was answered.",
        )


def round_is_about_one_model(case: Invitation) -> None:
    tag, mark = case.header.tag, case.memory.mark(case.header.tag.session)
    if mark and tag.round == mark.round and tag.model != mark.model:
        raise Equivocation(
            f"{case.header.kind.name} of round {tag.round} is about another model than {mark.kind.name} was.",
            fix="A new model needs a new round. Nothing was answered.",
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


def model_reach(case: ModelOffered) -> None:
    model.check_reach(case.offer, case.seat.terms, round_number=case.header.tag.round)


def update_was_made_under_this_plan(case: Retry) -> None:
    """A plan's quorum says how many shares of its noise are in a sum: what it paid for is too little noise for a smaller one."""
    if case.earlier.plan != case.header.tag.plan:
        raise UpdateTerms(
            f"the update of round {case.earlier.round} was made under plan {case.earlier.plan.hex()[:16]}, "
            f"the round now follows plan {case.header.tag.plan.hex()[:16]}.",
            fix="Train again under a new reservation, which the new plan pays.",
        )


def update_lies_on_this_grid(case: Retry) -> None:
    if case.grid != case.seat.terms.grid.digest:
        raise UpdateTerms(
            f"the update of round {case.earlier.round} lies on another grid than the round's: "
            "the roster's heaviest weight is not what it was.",
            fix="Train again under a new reservation.",
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
    valid = signers(case.header.abandons, case.masked_with, case.earlier, Step.ABANDON, codec.write(Nothing()))
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

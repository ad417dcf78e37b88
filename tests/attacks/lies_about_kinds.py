# SPDX-License-Identifier: Apache-2.0
"""Lies with statistics and evaluations: more of them than were agreed, of other models, and one kind's words used in another.

The plan of these federations has one statistic, in round 1, and judges a model in every second round from the third on.
"""

from dataclasses import replace

import numpy as np

from common.secagg import codec, messages
from common.secagg.coordinator import abandon
from common.secagg.messages import Header, Step
from common.secagg.model import Offer, digest
from common.secagg.terms import Kind
from tests.attacks.lies import VICTIM, Lie, as_signed, attack, cohort_of, confirm, confirmed, invite, masked, say, share, swap, unmask
from tests.common.secagg.federation import LAYOUT, LAYOUTS, Federation

JUDGED = 3
"""The first round that judges its model."""


def other_model(f: Federation) -> Offer:
    """As far from the last as a round allows: training could have led there."""
    return replace(f.offer(), values=np.full(f.terms.model_size, 0.01, dtype=np.float32))


def released(f: Federation, kind: Kind) -> None:
    f.turn_to(kind)
    f.run()


@attack("E_PLAN_MISMATCH")
def evaluation_in_a_round_that_has_none(f: Federation) -> Lie:
    f.turn_to(Kind.EVAL)
    return Lie(control=invite(f, round=JUDGED + 1))


@attack("E_PLAN_MISMATCH")
def one_evaluation_more_than_the_plan_has(f: Federation) -> Lie:
    f.turn_to(Kind.EVAL)
    return Lie(control=invite(f, round=f.terms.rounds[-1] + f.terms.rounds.step))


@attack("E_PLAN_MISMATCH")
def statistic_in_a_later_round(f: Federation) -> Lie:
    released(f, Kind.STAT)
    return Lie(control=invite(f, round=2))


@attack("E_PLAN_MISMATCH")
def update_of_the_round_that_only_judges_the_last_model(f: Federation) -> Lie:
    """Nothing may be trained after the plan's last round, though one more round is known."""
    f.turn_to(Kind.EVAL)
    last = f.terms.rounds[-1]
    f.turn_to(Kind.UPDATE)
    return Lie(control=invite(f, round=last))


@attack("E_MODEL_JUMP")
def evaluation_of_a_foreign_model(f: Federation) -> Lie:
    """A model that no training of this federation made: how it judges patients is nobody's business."""
    f.turn_to(Kind.EVAL)
    values = np.full(f.terms.model_size, 5.0, dtype=np.float32)
    return Lie(control=invite(f, model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values))


@attack("E_MODEL_LAYOUT")
def evaluation_of_a_model_of_another_size(f: Federation) -> Lie:
    """As long as what is counted, not as the model."""
    f.turn_to(Kind.EVAL)
    values = np.zeros(f.terms.num_values, dtype=np.float32)
    return Lie(control=invite(f, model=digest(values, LAYOUT)), offer=replace(f.offer(), values=values, reference=None))


@attack("E_EQUIVOCATION")
def evaluation_asked_twice_with_another_model(f: Federation) -> Lie:
    f.turn_to(Kind.EVAL)
    f.to_keys()
    offer = other_model(f)
    return Lie(control=invite(f, model=digest(offer.values, LAYOUT)), offer=offer)


@attack("E_EQUIVOCATION")
def evaluation_tried_again_with_another_model(f: Federation) -> Lie:
    f.turn_to(Kind.EVAL)
    f.to_keys()
    offer = other_model(f)
    return Lie(control=invite(f, attempt=1, model=digest(offer.values, LAYOUT)), offer=offer)


@attack("E_EQUIVOCATION")
def evaluation_of_another_model_than_the_round_then_trains(f: Federation) -> Lie:
    """Two models that this site knows: one was judged, the other is to be trained."""
    offer = other_model(f)
    f.tell(VICTIM, invite(f, round=2, model=digest(offer.values, LAYOUT)), offer=offer)
    released(f, Kind.EVAL)
    f.turn_to(Kind.UPDATE, round_number=JUDGED)
    return Lie(control=invite(f, model=digest(offer.values, LAYOUT)), offer=offer)


@attack("E_REPLAY")
def evaluation_after_the_rounds_update(f: Federation) -> Lie:
    f.turn_to(Kind.UPDATE, round_number=JUDGED)
    f.to_keys()
    f.turn_to(Kind.EVAL)
    return Lie(control=invite(f))


@attack("E_REPLAY")
def statistic_after_the_rounds_update_at_a_higher_attempt(f: Federation) -> Lie:
    f.to_keys()
    f.turn_to(Kind.STAT)
    return Lie(control=invite(f, attempt=9))


@attack("E_ALREADY_RELEASED")
def statistic_asked_again_after_its_sum_was_opened(f: Federation) -> Lie:
    """Fresh noise over the same patients, and the mean of both says more than either."""
    released(f, Kind.STAT)
    return Lie(control=invite(f, attempt=1))


@attack("E_ALREADY_RELEASED")
def evaluation_asked_again_after_its_sum_was_opened(f: Federation) -> Lie:
    released(f, Kind.EVAL)
    return Lie(control=invite(f, attempt=1))


@attack("E_ALREADY_MASKED")
def evaluation_masked_again_for_another_cohort(f: Federation) -> Lie:
    """Sum minus sum-without-you, on counts: the second sum never comes to be."""
    f.turn_to(Kind.EVAL)
    masked(f)
    return Lie(control=invite(f, attempt=1))


@attack("E_ABANDON_QUORUM")
def update_masked_again_because_an_evaluation_was_given_up(f: Federation) -> Lie:
    f.turn_to(Kind.EVAL)
    masked(f)
    given_up = tuple(as_signed(f.reply(s, abandon(f.chair, f.tag))) for s in f.site_ids)
    f.turn_to(Kind.UPDATE, round_number=JUDGED)
    masked(f)
    tag = replace(f.tag, attempt=1)
    return Lie(control=say(f, Step.KEYS, Header(tag=tag, kind=Kind.UPDATE, abandons=given_up), tag=tag))


@attack("E_MODEL_LAYOUT")
def evaluation_under_the_layout_of_updates(f: Federation) -> Lie:
    """Were it allowed, an evaluation and an update of one round would have one tag, and each other's signatures."""
    f.turn_to(Kind.EVAL)
    return Lie(control=invite(f, layout=LAYOUT))


@attack("E_MODEL_LAYOUT")
def update_under_the_layout_of_evaluations(f: Federation) -> Lie:
    return Lie(control=invite(f, layout=LAYOUTS[Kind.EVAL]))


@attack("E_VERSION", ring_bits=16)
def evaluation_in_the_short_words_of_updates(f: Federation) -> Lie:
    """Noised counts would wrap."""
    f.turn_to(Kind.EVAL)
    return Lie(control=invite(f, ring_bits=16))


@attack("E_ROUND_TAG", ring_bits=16)
def cohort_in_the_words_of_another_kind(f: Federation) -> Lie:
    """The header was read in one kind's words, the cohort is named in another's."""
    _, cohort = f.to_keys()
    said = replace(f.tag, ring_bits=32)
    digest_of = messages._down_digest(said.version, said.ring_bits, f.tag.rt, Step.SHARE, codec.write(cohort_of(cohort)))
    down = codec.read(messages.Down, cohort)
    return Lie(control=codec.write(replace(down, ring_bits=32, signature=f.chair.signer.sign(digest_of))))


@attack("E_PEER_SIGNATURE")
def keys_of_an_evaluation_in_a_cohort_of_updates(f: Federation) -> Lie:
    """What a peer signed to be counted is passed off as what it signed to train."""
    f.turn_to(Kind.EVAL)
    _, judged = f.to_keys()
    f.turn_to(Kind.UPDATE, round_number=JUDGED)
    _, trained = f.to_keys()
    members = cohort_of(trained).members
    return share(f, swap(members, 0, cohort_of(judged).members[0]))


@attack("E_CONFIRM_QUORUM")
def confirmations_of_an_evaluation_for_an_update(f: Federation) -> Lie:
    f.turn_to(Kind.EVAL)
    said = confirmed(f)
    f.turn_to(Kind.UPDATE, round_number=JUDGED)
    confirmed(f)
    return unmask(f, said)


@attack("E_EXPIRED")
def survivors_of_an_evaluation_that_the_update_overtook(f: Federation) -> Lie:
    f.turn_to(Kind.EVAL)
    masked(f)
    lie = confirm(f, f.site_ids)
    f.turn_to(Kind.UPDATE, round_number=JUDGED)
    f.to_keys()
    return lie


@attack("E_MODEL_HASH")
def evaluation_of_nothing(f: Federation) -> Lie:
    """A model that is not the one named: what would be judged is not what the others judge."""
    f.turn_to(Kind.EVAL)
    return Lie(control=invite(f), offer=other_model(f))

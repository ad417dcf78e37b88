# SPDX-License-Identifier: Apache-2.0
"""Lies about who survived and who confirmed, steps out of turn, and updates that must not be joined."""

from dataclasses import replace

import numpy as np

from common.secagg import codec, messages
from common.secagg.coordinator import Inviting, abandon, abandons
from common.secagg.messages import (
    Cohort,
    Confirmation,
    Step,
)
from common.secagg.quantise import QuantisedUpdate
from common.secagg.stages import Invited
from tests.attacks.lies import VICTIM, Lie, as_signed, attack, confirm, confirmed, invite, mask, masked, quorum_of, raw, share, unmask
from tests.common.secagg.federation import Federation


@attack("E_SURVIVOR_SET")
def victim_declared_dead(f: Federation) -> Lie:
    """Its own key's shares would then be asked for, and its masked vector is already here."""
    masked(f)
    return confirm(f, [s for s in f.site_ids if s != VICTIM])


@attack("E_SURVIVOR_SET")
def too_few_survivors(f: Federation) -> Lie:
    masked(f)
    return confirm(f, f.site_ids[1:4])


@attack("E_SURVIVOR_SET")
def survivor_that_never_shared(f: Federation) -> Lie:
    four = [s for s in f.site_ids if s != "site-004"]
    f.to_masks(*f.to_shares(*f.to_keys(), four), four)
    return confirm(f, f.site_ids)


@attack("E_COHORT_ORDER")
def survivor_counted_twice(f: Federation) -> Lie:
    masked(f)
    return confirm(f, ("site-001", "site-001", VICTIM, "site-003"))


@attack("E_EQUIVOCATION")
def split_survivors(f: Federation) -> Lie:
    f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys())))
    return confirm(f, f.site_ids[:4])


@attack("E_MSG_FORMAT")
def both_shares_asked(f: Federation) -> Lie:
    """The request that opens Flower's SecAgg+ client: everybody is alive, and everybody is dead. Here there is no place to say it."""
    confirmed(f)
    body = codec.write((tuple(f.site_ids), tuple(f.site_ids)))
    return Lie(control=raw(f, Step.UNMASK, body))


@attack("E_EQUIVOCATION")
def both_shares_asked_one_after_the_other(f: Federation) -> Lie:
    """After the release, other survivors, in the hope of the other half of the shares."""
    f.run()
    return confirm(f, f.site_ids[:4])


@attack("E_CONFIRM_QUORUM")
def unmasking_before_a_quorum_confirmed(f: Federation) -> Lie:
    return unmask(f, confirmed(f)[:3])


@attack("E_CONFIRM_QUORUM")
def one_confirmation_counted_many_times(f: Federation) -> Lie:
    return unmask(f, [confirmed(f)[0]] * 5)


@attack("E_CONFIRM_QUORUM")
def forged_confirmations(f: Federation) -> Lie:
    said = confirmed(f)
    return unmask(f, [said[0], *(replace(each, signature=bytes(64)) for each in said[1:])])


@attack("E_CONFIRM_QUORUM")
def confirmations_signed_for_another_step(f: Federation) -> Lie:
    said = confirmed(f)
    body = codec.read(Confirmation, said[0].body)
    other = [as_signed(messages.up(f.consortium.sites[s.site_id], f.tag, Step.UNMASK, s.site_id, body)) for s in said]
    return unmask(f, other)


@attack("E_CONFIRM_QUORUM")
def confirmations_of_another_round(f: Federation) -> Lie:
    said = confirmed(f)
    body, old = codec.read(Confirmation, said[0].body), replace(f.tag, round=0)
    return unmask(f, [as_signed(messages.up(f.consortium.sites[s.site_id], old, Step.CONFIRM, s.site_id, body)) for s in said])


@attack("E_CONFIRM_QUORUM", num_sites=7)
def confirmation_of_a_site_that_did_not_survive(f: Federation) -> Lie:
    """Five of seven must stand behind it; a colluding fallen site may not be the fifth."""
    five = f.site_ids[:5]
    confirming, survivors = f.to_masks(*f.to_shares(*f.to_keys()), five)
    _, control = f.to_confirmations(confirming, survivors, five)
    said = quorum_of(control).confirmations
    body = codec.read(Confirmation, said[0].body)
    colluder = f.site_ids[6]
    return unmask(f, [*said[:4], as_signed(messages.up(f.consortium.sites[colluder], f.tag, Step.CONFIRM, colluder, body))])


@attack("E_SPLIT_VIEW")
def peers_who_confirmed_other_survivors(f: Federation) -> Lie:
    said = confirmed(f)
    other = Confirmation(transcript=bytes(32))
    split = as_signed(messages.up(f.consortium.sites["site-000"], f.tag, Step.CONFIRM, "site-000", other))
    return unmask(f, (split, *said[1:]))


@attack("E_EQUIVOCATION")
def shares_asked_a_second_time_with_another_quorum(f: Federation) -> Lie:
    unmasking, control = f.to_confirmations(*f.to_masks(*f.to_shares(*f.to_keys())))
    f.to_sum(unmasking, control)
    return unmask(f, quorum_of(control).confirmations[:4])


@attack("E_STATE")
def shares_asked_before_the_survivors_were_confirmed(f: Federation) -> Lie:
    masked(f)
    return unmask(f, ())


@attack("E_STATE")
def mask_asked_before_the_secrets_were_shared(f: Federation) -> Lie:
    f.to_keys()
    return mask(f, ())


@attack("E_STATE")
def cohort_named_before_the_site_announced(f: Federation) -> Lie:
    f.tell(VICTIM, invite(f))
    return share(f, ())


@attack("E_STATE")
def survivors_named_before_the_mask(f: Federation) -> Lie:
    f.to_shares(*f.to_keys())
    return confirm(f, f.site_ids)


@attack("E_STATE")
def update_joined_without_an_invitation(f: Federation) -> Lie:
    return Lie(update=QuantisedUpdate(body=np.zeros(f.terms.num_values, dtype=np.uint32), weight=1))


@attack("E_ALREADY_RELEASED")
def abandon_after_release(f: Federation) -> Lie:
    f.run()
    return Lie(control=abandon(f.chair, f.tag))


@attack("E_EXPIRED")
def release_after_abandon(f: Federation) -> Lie:
    """Giving up is for ever, even when a quorum confirms later."""
    said = confirmed(f)
    f.tell(VICTIM, abandon(f.chair, f.tag))
    return unmask(f, said)


@attack("E_EXPIRED")
def release_of_an_overtaken_attempt(f: Federation) -> Lie:
    """All gave the attempt up and masked again; the old attempt's quorum comes too late."""
    said = confirmed(f)
    old = unmask(f, said)
    replies = {s: f.reply(s, abandon(f.chair, f.tag)) for s in f.site_ids}
    given_up = abandons(f.chair, f.tag, replies)
    f.next_round(round_number=1, attempt=1)
    f.to_keys(inviting=Inviting(chair=f.chair, tag=f.tag, abandons=given_up))
    return old


@attack("E_EXPIRED")
def step_of_a_round_that_a_newer_one_overtook(f: Federation) -> Lie:
    _, cohort = f.to_keys()
    f.next_round()
    f.to_keys()
    return Lie(control=cohort)


@attack("E_ROUND_TAG")
def step_of_a_round_never_announced(f: Federation) -> Lie:
    f.to_keys()
    return Lie(control=messages.down(f.chair.signer, replace(f.tag, round=5), Step.SHARE, Cohort(members=())))


@attack("E_ROUND_TAG")
def abandon_of_nothing(f: Federation) -> Lie:
    return Lie(control=abandon(f.chair, f.tag))


def invited(f: Federation) -> None:
    f.tell(VICTIM, invite(f))
    assert isinstance(f.records[VICTIM].stage, Invited)


@attack("E_STATE")
def abandon_while_the_site_trains(f: Federation) -> Lie:
    invited(f)
    return Lie(control=abandon(f.chair, f.tag))


@attack("E_UPDATE_NORM")
def update_of_a_site_that_the_roster_no_longer_names(f: Federation) -> Lie:
    """The roster was renewed while it trained."""
    invited(f)
    seat = f.seats[VICTIM]
    members = tuple(member for member in seat.roster.members if member.site_id != VICTIM)
    f.seats[VICTIM] = replace(seat, roster=replace(seat.roster, members=members))
    return Lie(update=QuantisedUpdate(body=np.zeros(f.terms.num_values, dtype=np.uint32), weight=1))


@attack("E_UPDATE_NORM")
def boosted_update(f: Federation) -> Lie:
    invited(f)
    return Lie(update=QuantisedUpdate(body=np.full(f.terms.num_values, f.terms.grid.largest, dtype=np.uint32), weight=1))


@attack("E_UPDATE_NORM", max_weight=4)
def update_with_a_weight_of_its_own_choice(f: Federation) -> Lie:
    invited(f)
    return Lie(update=QuantisedUpdate(body=np.zeros(f.terms.num_values, dtype=np.uint32), weight=4))


@attack("E_MODEL_LAYOUT")
def update_of_another_length(f: Federation) -> Lie:
    invited(f)
    return Lie(update=QuantisedUpdate(body=np.zeros(f.terms.num_values + 1, dtype=np.uint32), weight=1))

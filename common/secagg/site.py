# SPDX-License-Identifier: Apache-2.0
"""A site's side of FSA1: one message in, the next state and one reply out.

    handle(seat, record, message) -> Outcome(record, reply)

`handle` is a pure function of its arguments. Whoever calls it writes the new record down, and only then sends the reply: a site killed
in between answers the repeated request with the same bytes. The first request for a (round, step) wins; its digest and reply are in the
record. The same request again gets the same reply, another one is refused and changes nothing.

Training stands between the first request and its reply: `handle` answers a header with no reply and the stage `Invited`; the caller
trains, releases, quantises, and `join`s. A header for another attempt of a round whose update still lives is answered at once, with
fresh keys for the same update, if `Retry`'s checks allow it and it still is what `join` would take. Where they do not, `burn` forgets the
update; training again is a new release, which the caller must reserve in its ledger.

What this does not do: it does not train, keep a ledger, open a file or know the time. It cannot know how many rounds its caller ran.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from common.errors import AlreadyReleased, Equivocation, ModelHash, RoundExpired, RoundTagMismatch, WrongStage
from common.secagg import cases, checks, codec, stages
from common.secagg.codec import Bytes32
from common.secagg.masks import Body
from common.secagg.memory import Memory
from common.secagg.messages import Cohort, Deliveries, Down, Header, Heads, Keys, Nothing, Quorum, Step, Survivors
from common.secagg.model import Offer
from common.secagg.quantise import QuantisedUpdate
from common.secagg.stages import Confirmed, GivenUp, Invited, Keyed, Listening, MaskedOut, Peer, Released, Shared, Stage
from common.secagg.terms import Kind, Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The request that won a step, and what it was answered; empty while the site trains."""

    step: Step
    request: Bytes32
    reply: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that must survive a kill: what is remembered, where this attempt stands, what was answered in it."""

    memory: Memory = field(default_factory=Memory)
    stage: Stage = field(default_factory=Listening)
    answers: tuple[Answer, ...] = ()

    def answer(self, step: Step) -> Answer | None:
        return next((answer for answer in self.answers if answer.step is step), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Write `record` down, then send `reply` and `vector`. No reply means: train, then `join`."""

    record: Record
    reply: bytes | None = None
    vector: Body | None = None


_Progress: TypeAlias = tuple[Stage, bytes, Body | None]


def handle(seat: Seat, record: Record, control: bytes, *, now: int, offer: Offer | None = None, heads: Heads | None = None) -> Outcome:
    """Answer one message of the coordinator.

    `now` is Unix time, used for the validity of roster entries alone. `offer` is the global model beside a header. `heads` are this
    site's ledger and audit heads, which a fresh announcement carries.
    Raises: ProtocolError, RosterError, UpdateError or CohortTooSmall by name; the record is then unchanged, and nothing may be sent.
    """
    checks.run(cases.Arrival(control=control, seat=seat))
    message = codec.read(Down, control, what="a message from the coordinator")
    checks.run(cases.Addressed(message=message, seat=seat))
    request = hashlib.sha256(control).digest()
    if message.step is Step.KEYS:
        return _begin(seat, record, message, request, now=now, offer=offer, heads=heads or Heads())
    seat = seat.turned_to(_check_attempt(seat, record, message))
    if stored := record.answer(message.step):
        return _repeat(seat, record, stored, request)
    stage, reply, vector = _STEPS[message.step](seat, record.stage, message, now)
    answers = (*record.answers, Answer(step=message.step, request=request, reply=reply))
    return Outcome(record=replace(record, stage=stage, answers=answers), reply=reply, vector=vector)


def join(seat: Seat, record: Record, update: QuantisedUpdate, *, heads: Heads | None = None) -> Outcome:
    """Commit to a trained update and announce fresh keys.

    Raises: WrongStage unless invited; ModelLayout, UpdateNorm for an update that the plan does not allow.
    """
    invited = record.stage
    if not isinstance(invited, Invited):
        raise _out_of_turn("an update", record.stage)
    seat = seat.turned_to(invited.kind)
    checks.run(cases.Update(update=update, seat=seat))
    stage, reply = invited.join(update, seat, heads or Heads())
    answers = tuple(replace(answer, reply=reply) for answer in record.answers)
    return Outcome(record=replace(record, stage=stage, answers=answers), reply=reply)


def burn(record: Record) -> Record:
    """Forget the living update and its keys; what was answered stays answered. The next attempt must train again."""
    if isinstance(record.stage, Listening | Invited):
        return record
    return Record(memory=record.memory.end(record.stage.tag))


def _begin(seat: Seat, record: Record, message: Down, request: bytes, *, now: int, offer: Offer | None, heads: Heads) -> Outcome:
    """1 down. An identical header is answered as before, whatever has changed here since; if it was not answered yet, it must hold anew."""
    stored = record.answer(Step.KEYS)
    if stored and stored.request == request and stored.reply:
        return Outcome(record=record, reply=stored.reply)
    header = codec.read(Header, message.body, what="a header")
    seat = seat.turned_to(header.kind)
    if stored and stored.request == request:
        checks.run(cases.InvitedBefore(header=header, seat=seat, now=now))
        _check_offer(seat, record, header, offer)  # its digest was signed, the weights beside it were not
        return Outcome(record=record)
    checks.run(cases.Invitation(message=message, header=header, seat=seat, memory=record.memory, now=now))
    _check_offer(seat, record, header, offer)
    memory = record.memory.accept(header.tag, header.kind, roster_epoch=seat.roster.epoch)
    earlier = record.stage
    if not isinstance(earlier, Listening) and _same_round(earlier, header):
        if isinstance(earlier, Released):
            raise AlreadyReleased(
                f"the shares of round {earlier.tag.round} attempt {earlier.tag.attempt} are out; this update joins no other sum.",
                fix="Train again under a new reservation.",
            )
        if not isinstance(earlier, Invited):
            checks.run(cases.Retry(header=header, seat=seat, earlier=earlier.tag, grid=earlier.grid, masked_with=earlier.masked_with))
            checks.run(cases.Update(update=earlier.update, seat=seat))  # as at first: the roster may declare another weight by now
            stage, reply = stages.announce(header.tag, header.kind, earlier.update, seat, heads)
            answers = (Answer(step=Step.KEYS, request=request, reply=reply),)
            return Outcome(record=Record(memory=memory.end(earlier.tag), stage=stage, answers=answers), reply=reply)
    if not isinstance(earlier, Listening):
        memory = memory.end(earlier.tag)
    invited = Invited(tag=header.tag, kind=header.kind)
    return Outcome(record=Record(memory=memory, stage=invited, answers=(Answer(step=Step.KEYS, request=request, reply=b""),)))


def _check_offer(seat: Seat, record: Record, header: Header, offer: Offer | None) -> None:
    if not header.kind.has_model:
        return
    if offer is None:
        raise ModelHash("a header came without its model.", fix="Ask for the round again.")
    checks.run(cases.ModelOffered(header=header, offer=offer, seat=seat, memory=record.memory))


def _same_round(stage: Invited | Keyed | Shared | MaskedOut | Confirmed | Released | GivenUp, header: Header) -> bool:
    return (stage.tag.session, stage.tag.round, stage.kind) == (header.tag.session, header.tag.round, header.kind)


def _check_attempt(seat: Seat, record: Record, message: Down) -> Kind:
    """What this site is summing, if the message belongs to it."""
    if message.rt in record.memory.over:
        raise RoundExpired("a message belongs to an attempt that was given up or overtaken here.", fix="Begin a new attempt.")
    stage = record.stage
    if isinstance(stage, Listening) or _named(message) != (stage.tag.version, stage.tag.ring_bits, stage.tag.rt):
        raise RoundTagMismatch(
            "a message belongs to a round, attempt or model that is not this site's current one.", fix="Begin a new round."
        )
    checks.run(cases.Continued(tag=stage.tag, seat=seat))
    return stage.kind


def _named(message: Down) -> tuple[int, int, bytes]:
    return message.version, message.ring_bits, message.rt


def _repeat(seat: Seat, record: Record, stored: Answer, request: bytes) -> Outcome:
    if stored.request != request:
        raise Equivocation(
            f"step {stored.step.name} was answered before, for a different request.",
            fix="Two coordinators may be running, or one tells sites different stories. Nothing was answered.",
        )
    if stored.step is not Step.MASK:
        return Outcome(record=record, reply=stored.reply)
    stage = record.stage
    if isinstance(stage, MaskedOut | Confirmed):
        return Outcome(record=record, reply=stored.reply, vector=stage.masked(seat)[0])
    raise _out_of_turn(stored.step.name, stage)


def _share(seat: Seat, stage: Stage, message: Down, now: int) -> _Progress:
    if not isinstance(stage, Keyed):
        raise _out_of_turn("SHARE", stage)
    cohort = codec.read(Cohort, message.body, what="a cohort")
    said = tuple(codec.read(Keys, member.body, what="a peer's keys") for member in cohort.members)
    checks.run(cases.CohortNamed(cohort=cohort, announcements=said, stage=stage, seat=seat, now=now))
    peers = tuple(
        Peer(site_id=member.site_id, identity=_identity(seat, member.site_id), mask_key=keys.mask_key, share_key=keys.share_key)
        for member, keys in zip(cohort.members, said, strict=True)
    )
    return *stage.share(cohort, peers, seat), None


def _mask(seat: Seat, stage: Stage, message: Down, _now: int) -> _Progress:
    if not isinstance(stage, Shared):
        raise _out_of_turn("MASK", stage)
    deliveries = codec.read(Deliveries, message.body, what="a delivery of shares")
    checks.run(cases.SharesDelivered(deliveries=deliveries, stage=stage, seat=seat))
    opened = stage.unseal(deliveries, seat)
    checks.run(cases.SharesOpened(opened=opened))
    return stage.mask(opened, seat)


def _confirm(seat: Seat, stage: Stage, message: Down, _now: int) -> _Progress:
    if not isinstance(stage, MaskedOut):
        raise _out_of_turn("CONFIRM", stage)
    survivors = codec.read(Survivors, message.body, what="a list of survivors")
    checks.run(cases.SurvivorsNamed(survivors=survivors, stage=stage, seat=seat))
    return *stage.confirm(survivors.site_ids, seat), None


def _unmask(seat: Seat, stage: Stage, message: Down, _now: int) -> _Progress:
    if not isinstance(stage, Confirmed):
        raise _out_of_turn("UNMASK", stage)
    quorum = codec.read(Quorum, message.body, what="a quorum")
    checks.run(cases.QuorumShown(quorum=quorum, stage=stage, seat=seat))
    return *stage.release(seat), None


def _abandon(seat: Seat, stage: Stage, message: Down, _now: int) -> _Progress:
    if isinstance(stage, Released):
        raise AlreadyReleased("the shares of this attempt are out; it cannot be given up.", fix="Finish the round: its sum can be opened.")
    if not isinstance(stage, Keyed | Shared | MaskedOut | Confirmed):
        raise _out_of_turn("ABANDON", stage)
    codec.read(Nothing, message.body, what="an ABANDON")
    return *stages.give_up(stage, seat), None


_STEPS: Final[dict[Step, Callable[[Seat, Stage, Down, int], Any]]] = {
    Step.SHARE: _share,
    Step.MASK: _mask,
    Step.CONFIRM: _confirm,
    Step.UNMASK: _unmask,
    Step.ABANDON: _abandon,
}


def _identity(seat: Seat, site_id: str) -> bytes:
    member = seat.roster.find(site_id)
    return member.public_key if member else bytes(32)


def _out_of_turn(what: str, stage: Stage) -> WrongStage | RoundExpired:
    if isinstance(stage, GivenUp):
        return RoundExpired(f"{what} was asked for an attempt that this site gave up.", fix="Begin a new attempt.")
    return WrongStage(
        f"{what} is not due: this site is {type(stage).__name__}.", fix="Messages of one attempt come in order; ask again in turn."
    )

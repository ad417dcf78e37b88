# SPDX-License-Identifier: Apache-2.0
"""A site's answers in secure aggregation: state from disk, one message through the protocol, state to disk, reply.

    KEYS      check the model, then: ledger, training, release, quantise; commit to the update, send fresh keys
    SHARE     does no peer remember more of this site's ledger than there is? deal the secrets of this attempt, sealed for each peer
    MASK      note beside the ledger that it leaves; send the masked update
    CONFIRM   sign who survived
    UNMASK    open one share of each
    ABANDON   sign that this attempt's shares will never leave

What may be answered is decided in `common.secagg.site`; what is trained, in `client.site`. Here is only the order: a step is written
down before it is sent, and training begins after the header that asks for it is on disk. Another attempt of a round masks the stored
update again and costs nothing, where the protocol allows that; where it does not, the update is forgotten and trained anew, which is a
new release and on the ledger before it begins. A coordinator that breaks attempts off on purpose thus spends the budget, never more. A
record that is older than what has left, since its folder was put back from a copy, uses its update no more (`client.ledger.sent`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from client.attempts import AttemptStore
from client.audit import SiteAudit
from client.echoes import Echoes
from client.ledger.sent import SentUpdates
from client.release import masked
from common import failpoints
from common.errors import AbandonQuorum, AlreadyMasked, AlreadyReleased, UpdateNorm, UpdateTerms
from common.secagg import site as protocol
from common.secagg.messages import Step
from common.secagg.model import Offer, Reference
from common.secagg.quantise import QuantisedUpdate
from common.secagg.site import Outcome, Record
from common.secagg.stages import Confirmed, GivenUp, Invited, Keyed, MaskedOut, Released, Shared
from common.secagg.terms import Seat
from common.update import QuantisedDelta, Vector, Weights
from common.wire import SecureReply, SecureRequest

_STEP: Final = slice(20, 28)
_USING_THE_UPDATE: Final = tuple(step.to_bytes(8, "big") for step in (Step.KEYS, Step.MASK))
"""Where a message says which step it is (common.secagg.messages.Down)."""
_STORED: Final[Mapping[type, str]] = {
    Shared: "after_share_stored",
    MaskedOut: "after_mask_stored",
    Confirmed: "after_confirm_stored",
    Released: "after_unmask_stored",
    GivenUp: "after_abandon_stored",
}
"""Where a test may kill a site whose new stage is on the disk (common.failpoints)."""
Work = Callable[[Invited, Vector | None], QuantisedDelta]
Clock = Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """All that a site answers from. `work` trains or counts, and charges the ledger before it opens an image; `now` gives Unix seconds.

    `echoes` puts the ledger's token into fresh keys, and looks for it in what peers remember before anything is dealt to them. `audit` has
    the line about a reply on the disk before the reply leaves, `sent` the note that an update does.
    """

    seat: Seat
    store: AttemptStore
    sent: SentUpdates
    initial: Weights
    work: Work
    now: Clock
    echoes: Echoes
    audit: SiteAudit


def answer(desk: Desk, request: SecureRequest) -> SecureReply:
    """Answer one step.

    Raises: ProtocolError, RosterError, UpdateError or CohortTooSmall by name; LedgerRollback, AuditTampered; and what training raises.
    """
    with desk.store.locked():
        record = desk.store.record(update_is_used=request.control[_STEP] in _USING_THE_UPDATE)
        outcome = _handle(desk, record, request)
        if isinstance(record.stage, Keyed) and isinstance(outcome.record.stage, Shared):
            desk.echoes.meet(record.stage, request.control)
        desk.store.keep(record, outcome.record)
        if outcome.record is not record and type(outcome.record.stage) in _STORED:
            failpoints.reach(_STORED[type(outcome.record.stage)])
        if outcome.reply is None:
            outcome = _work(desk, outcome.record, request)
        assert outcome.reply is not None
        if outcome.vector is not None:
            assert isinstance(outcome.record.stage, MaskedOut | Confirmed)
            desk.sent.note(outcome.record.stage)
        desk.audit.answered(outcome.record, request.control, outcome.reply)
    update = masked(outcome) if outcome.vector is not None else None
    return SecureReply(site=desk.seat.site_id, control=outcome.reply, update=update)


def _handle(desk: Desk, record: Record, request: SecureRequest) -> Outcome:
    offer = None if request.model is None else Offer(values=_native(request.model), initial=desk.initial.values, reference=_reference(desk))
    now = desk.now()
    begins = request.control[_STEP] == Step.KEYS.to_bytes(8, "big")
    heads = desk.echoes.announce() if begins else None
    try:
        desk.sent.check(record.stage)
        return protocol.handle(desk.seat, record, request.control, now=now, offer=offer, heads=heads)
    except (AlreadyMasked, AlreadyReleased, AbandonQuorum, UpdateTerms, UpdateNorm):
        if not begins:
            raise  # an ABANDON that comes too late forgets nothing
        # Everything about the header was good but the update's past.
        return protocol.handle(desk.seat, protocol.burn(record), request.control, now=now, offer=offer, heads=heads)


def _work(desk: Desk, record: Record, request: SecureRequest) -> Outcome:
    stage = record.stage
    assert isinstance(stage, Invited)
    desk.audit.asked(stage.tag, stage.kind, request.control)
    # A statistic has no model; what came beside it was not looked at.
    model = _native(request.model) if request.model is not None and stage.kind.has_model else None
    if model is not None:
        desk.store.keep_reference(Reference(values=model, round=stage.tag.round))
    made = desk.work(stage, model)
    failpoints.reach("after_training")
    outcome = protocol.join(desk.seat, record, QuantisedUpdate(body=made.words, weight=made.weight), heads=desk.echoes.announce())
    desk.store.keep(record, outcome.record)
    failpoints.reach("after_keys_stored_before_reply")
    return outcome


def _reference(desk: Desk) -> Reference:
    return desk.store.reference() or Reference(values=desk.initial.values, round=0)


def _native(values: Vector) -> Vector:
    return np.asarray(values, dtype=np.float32)

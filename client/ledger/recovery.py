# SPDX-License-Identifier: Apache-2.0
"""Going on after the newest ledger was lost: what it had charged and is not in the copy that was put back is charged again, at least.

    older copy -> what is known to be lost -> RESTORE: charges, excluded patients, the new branch's name -> new sealed head

Two things know what was lost. The sealed head holds every charge and every excluded patient up to its line: the difference to the copy is
exact. Beyond it, a peer may have shown a line (the witness): then it is known how many lines at least are missing, not what they said, so
each is charged as one round of the plan that the operator names, and as many as they state, never fewer than the peer has seen.

Nothing is asked of the budget here: what was spent was spent. Where the sums now are past a cap, the next reservation is refused.

What this does not do: know of lines that neither head nor peer has seen. Ask the coordinator how many rounds this site took part in since
the copy was made, and state that number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from client.ledger import head as sealed
from client.ledger import witness
from client.ledger.chain import Chain
from client.ledger.head import Head
from client.ledger.store import Ledger, Pen, Place
from client.ledger.witness import Witness
from common.errors import LedgerRollback
from common.privacy.entries import Entry, Restored, Tallied


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is missing from a ledger that was put back.

    `charges`, `excluded`: known from the sealed head. `unknown_lines`: at least so many more, that only a peer has seen. The ledger's loss
    is made good through line `through` of `branch`.
    """

    branch: int
    through: int
    charges: tuple[Tallied, ...]
    excluded: tuple[str, ...]
    unknown_lines: int


def assess(place: Place, pen: Pen) -> Loss | None:
    """What is known to be lost; None, if nothing is. Raises: LedgerTampered, LedgerRollback where there is no ledger file at all."""
    chain = Ledger(place, pen, compare_head=False).chain
    return _loss(chain, _head(place, pen), witness.read(place.witness))


def restore(place: Place, pen: Pen, *, reason: str, stated: Sequence[Tallied] = ()) -> Entry:
    """Write what was lost into the ledger and go on under a new branch. `stated` is what the operator charges for unknown lines.

    Raises: LedgerRollback, if nothing is known to be lost and nothing is stated, or fewer lines are stated than a peer has seen.
    """
    ledger = Ledger(place, pen, compare_head=False)
    head = _head(place, pen)

    def decide(chain: Chain) -> Restored:
        loss = _loss(chain, head, witness.read(place.witness))
        lines = sum(charged.times for charged in stated)
        if loss is None and not lines:
            raise LedgerRollback(
                f"{chain.name} has lost nothing that its sealed head or a peer has seen.",
                fix="If rounds were lost all the same, state them: --plan PLAN --rounds NUMBER.",
            )
        if loss is not None and lines < loss.unknown_lines:
            raise LedgerRollback(
                f"peers have seen {loss.unknown_lines} line(s) more than ledger and sealed head know of, {lines} are stated.",
                fix="State at least as many, charged as rounds of the plan that was running: --plan PLAN --rounds NUMBER.",
            )
        return Restored(
            branch=max(pen.clock(), chain.branch + 1),
            lost_branch=loss.branch if loss else chain.branch,
            lost_through=(loss.through if loss else chain.position.seq) + max(0, lines - (loss.unknown_lines if loss else 0)),
            charges=(*(loss.charges if loss else ()), *stated),
            excluded=loss.excluded if loss else (),
            reason=reason,
        )

    entry = ledger.note(decide)
    assert entry is not None
    place.witness.unlink(missing_ok=True)
    return entry


def _head(place: Place, pen: Pen) -> Head | None:
    content = sealed.read(place.head)
    return None if content is None else sealed.parse(content, public=pen.signer.public, name=str(place.head))


def _loss(chain: Chain, head: Head | None, seen: Witness | None) -> Loss | None:
    last = chain.position.seq
    at = None if head is None or chain.holds(head.branch, head.seq, head.position.head) else head
    further = None if seen is None or chain.holds(seen.branch, seen.seq, bytes.fromhex(seen.head)) else seen
    if at is None and further is None:
        return None
    known = last if at is None or at.branch != chain.branch else at.seq
    unknown = 0
    if further is not None and not (at is not None and at.branch == further.branch and at.seq >= further.seq):
        unknown = max(1, further.seq - known)
    furthest = max((each for each in (at, further) if each is not None), key=lambda each: (each.branch, each.seq))
    return Loss(
        branch=furthest.branch,
        through=furthest.seq,
        charges=() if at is None else _missing(chain, at),
        excluded=() if at is None else tuple(mark for mark in at.excluded if mark not in chain.excluded),
        unknown_lines=unknown,
    )


def _missing(chain: Chain, head: Head) -> tuple[Tallied, ...]:
    """What the head had charged and the chain has not. A chain that has grown past the head on its own is another story: all is charged."""
    grown_apart = head.branch == chain.branch and head.seq <= chain.position.seq
    return head.charges if grown_apart else head.tally.beyond(chain.tally)

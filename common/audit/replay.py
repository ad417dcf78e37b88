# SPDX-License-Identifier: Apache-2.0
"""The coordinator's rounds once more, from the replies that it kept: the same code, the same checks, no coordinator.

    INVITE -> the tag again -> KEYS -> T1 -> SHARE -> T2 -> MASK -> T3 -> CONFIRM -> UNMASK -> (masked updates) the sum

Replies are signed by the sites, and everything that a coordinator says follows from them, so what it wrote into its log can be held against
what it must have been. A replay signs with a key that nobody has and sends nothing. Without masked updates it ends one step before the
sum: who is in it is then proved, its value is not.

What is held here opens no site's update. Of a survivor there are shares of b and none of s, so its pair masks stay on; of a site that fell
there are shares of s and none of b, and no masked update in the sum (common.secagg.unmask).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.agreement import groups_of, terms_beside, terms_of
from common.audit import evidence
from common.audit.bundle import Bundle
from common.audit.entries import Invited, Summed
from common.audit.evidence import Replies
from common.audit.findings import Findings
from common.audit.parties import Archive, Witness
from common.audit.rounds import Room
from common.errors import BundleFormat, ConfirmQuorum, FedwardError, MessageFormat
from common.plan import Plan
from common.roster import Roster
from common.secagg import codec, messages
from common.secagg.coordinator import Inviting, Unmasking
from common.secagg.keys import SigningKey
from common.secagg.masks import Body
from common.secagg.messages import NO_HEAD, Keys, RoundTag, Step, Up
from common.secagg.terms import Chair, Kind
from common.secagg.unmask import AggregateSum, open_sum
from common.spelling import digest
from common.update import Weights

_NOBODY = SigningKey(bytes(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a replay starts from: the coordinator's bundle, and the plan with its first weights."""

    coordinator: Witness
    session: str
    plan: Plan
    initial: Weights
    kept: Archive

    @property
    def bundle(self) -> Bundle:
        return self.coordinator.bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What an attempt's replies give: where each site's log stood by its own signature, and the sum where the updates were kept."""

    heads: Mapping[str, bytes]
    echoes: tuple[tuple[str, str, bytes], ...]
    sum: AggregateSum | None


def replay(ground: Ground, room: Room, found: Findings) -> Replayed | None:
    """One attempt once more. What does not agree is noted; None, if nothing can be had from it."""
    number = room.invited.at.round
    try:
        inviting = inviting_of(ground, room.invited)
        if inviting is None:
            found.skip(f"the replies of round {number}: its roster is in no bundle")
            return None
        if inviting.tag.rt.hex() != room.invited.tag:
            found.add("F_EVIDENCE", "coordinator", f"round {number}: the tag does not follow from plan, roster and model.", number=number)
            return None
        replies = {step: replies_of(ground.bundle, room, step) for step in room.heard}
        said = _announced(inviting, replies["KEYS"]) if "KEYS" in replies else {}
        total = _sum(ground, room, inviting, replies, found) if room.summed else None
    except FedwardError as error:
        found.add("F_EVIDENCE", "coordinator", f"round {number}: {error.code}: {error.message}", number=number)
        return None
    return Replayed(
        heads={site: keys.heads.audit for site, keys in said.items()},
        echoes=tuple(
            (site, echo.site_id, echo.audit_head) for site, keys in said.items() for echo in keys.heads.peers if echo.audit_head != NO_HEAD
        ),
        sum=total,
    )


def inviting_of(ground: Ground, invited: Invited) -> Inviting | None:
    """The stage that the coordinator began an attempt with; None, if its roster is in no bundle. Raises: FedwardError."""
    roster = ground.kept.rosters.get(invited.roster)
    if roster is None:
        return None
    kind = Kind[invited.at.kind]
    members = groups_of(ground.plan, roster)
    if invited.group >= len(members):
        raise MessageFormat(f"group {invited.group} is none of the plan's.")
    chair = _chair(ground, roster, members[invited.group], kind)
    tag = RoundTag(
        version=chair.terms.version,
        ring_bits=chair.terms.grid.ring_bits,
        plan=chair.terms.plan,
        roster=roster.digest,
        session=bytes.fromhex(ground.session),
        round=invited.at.round,
        attempt=invited.at.attempt,
        model=bytes.fromhex(invited.model),
        layout=chair.terms.layout,
    )
    return Inviting(chair=chair, tag=tag)


def _chair(ground: Ground, roster: Roster, members: frozenset[str], kind: Kind) -> Chair:
    updates = terms_of(ground.plan, ground.initial, roster, members)
    terms = next((each for each in (updates, *terms_beside(updates, ground.plan)) if each.kind is kind), None)
    if terms is None:
        raise MessageFormat(f"the plan has no {kind.name}.")
    return Chair(signer=_NOBODY, terms=terms, roster=roster)


def replies_of(bundle: Bundle, room: Room, step: str) -> Replies:
    """A step's replies, if they are those whose hashes are in the log. Raises: BundleFormat, MessageFormat."""
    name = f"{evidence.FOLDER}/{evidence.step_name(room.invited.at, room.invited.group, step)}"
    if not bundle.has(name):
        raise BundleFormat(f"the replies to {step} are missing.")
    replies = evidence.read_replies(bundle.read(name))
    if tuple((item.site_id, digest(item.control).hex()) for item in replies.items) != room.heard[step].replies:
        raise MessageFormat(f"the replies to {step} are not those that the log names.")
    return replies


def _announced(inviting: Inviting, replies: Replies) -> dict[str, Keys]:
    """What sites signed about themselves, whether or not the attempt came to anything."""
    said = {}
    for site, control in replies.by_site.items():
        up = codec.read(Up, control, what="a site's keys")
        member = inviting.chair.roster.find(site)
        if member is not None and up.site_id == site and messages.site_signed(up, inviting.tag, Step.KEYS, member.public_key):
            said[site] = codec.read(Keys, up.body, what="a site's keys")
    return said


def _sum(ground: Ground, room: Room, inviting: Inviting, replies: Mapping[str, Replies], found: Findings) -> AggregateSum | None:
    """From keys to the sum, as the coordinator did it. Raises: what it would have raised; BundleFormat."""
    assert room.summed is not None
    if missing := [step.name for step in (Step.KEYS, Step.SHARE, Step.MASK, Step.CONFIRM, Step.UNMASK) if step.name not in replies]:
        raise BundleFormat(f"the log has a sum and no {missing[0]}.")
    sharing, _ = inviting.agree(replies["KEYS"].by_site, now=replies["KEYS"].closed)
    masking, _ = sharing.route(replies["SHARE"].by_site)
    confirming, _ = masking.survive(replies["MASK"].by_site)
    unmasking, _ = confirming.quorum(replies["CONFIRM"].by_site)
    _compare(unmasking, room.summed, found)
    names = {site: f"{evidence.FOLDER}/{evidence.vector_name(room.invited.at, room.invited.group, site)}" for site in confirming.masked}
    if not all(ground.bundle.has(name) for name in names.values()):
        _check_shares(unmasking, replies["UNMASK"])
        return None
    total = open_sum(unmasking, replies["UNMASK"].by_site, lambda site: _vector(ground.bundle, names[site], unmasking))
    number = room.invited.at.round
    if digest(total.body.tobytes()).hex() != room.summed.sum or total.total_weight != room.summed.weight:
        found.add("F_SUM", "coordinator", f"round {number}: the masked updates give another sum than the log names.", number=number)
    return total


def _check_shares(unmasking: Unmasking, replies: Replies) -> None:
    """Whether as many opened their shares as a sum needs, for these survivors and by their own signatures. Raises: ConfirmQuorum."""
    shares, _ = unmasking.shares(replies.by_site)
    fewest = min((len(held) for held in shares.values()), default=0)
    if fewest < unmasking.threshold:
        raise ConfirmQuorum(f"{fewest} sites opened their shares, a sum needs {unmasking.threshold}.")


def _compare(unmasking: Unmasking, summed: Summed, found: Findings) -> None:
    confirming, number = unmasking.confirming, summed.at.round
    if confirming.transcript.hex() != summed.transcript:
        found.add("F_EVIDENCE", "coordinator", f"round {number}: the replies give other survivors than the log names.", number=number)
    if tuple((site, confirming.masked[site].vector.hex()) for site in sorted(confirming.masked)) != summed.vectors:
        found.add("F_EVIDENCE", "coordinator", f"round {number}: the sum names other masked updates than the sites signed.", number=number)


def _vector(bundle: Bundle, name: str, unmasking: Unmasking) -> Body:
    content = bundle.read(name)
    word = unmasking.confirming.masking.chair.terms.grid.word
    if len(content) % word.itemsize:
        raise BundleFormat(f"'{name}' is no vector.")
    vector: Body = np.frombuffer(content, dtype=word)
    return vector

# SPDX-License-Identifier: Apache-2.0
"""The coordinator's side of FSA1: an adder that learns one sum a round.

    Inviting --KEYS--> Sharing --SHARE--> Masking --MASK--> Confirming --CONFIRM--> Unmasking --UNMASK--> AggregateSum

Each stage takes the replies of its step and gives the next stage and what to send. It needs no randomness and keeps no secret of its
own, so a coordinator that was killed rebuilds its stage by feeding the journalled replies through again, and sends the same bytes.

A reply that does not fit is laid aside with its reason (`rejected`); the round goes on without that site while a threshold is left, and
ends by a named error, without a sum, when it is not. No rogue site can stall it by sending nonsense. One whose shares do not open, or fit
nothing, can make an attempt fail: its peers complain of it (`complaints`), or the sum's opening names it (`unmask`), and the next attempt
can do without it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from common import roster
from common.errors import (
    CohortTooSmall,
    ConfirmQuorum,
    DuplicateKey,
    FedwardError,
    MessageFormat,
    MessageTooLarge,
    PeerSignature,
    PlanMismatch,
    RoundTagMismatch,
    ShareFormat,
    SurvivorSet,
    UnknownPeer,
)
from common.secagg import codec, field, keys, messages
from common.secagg import complaints as complaining
from common.secagg.messages import (
    Cohort,
    Confirmation,
    Deliveries,
    Delivery,
    Down,
    Header,
    Keys,
    Masked,
    Nothing,
    Opened,
    Quorum,
    RoundTag,
    Shares,
    Signed,
    Step,
    Survivors,
    Up,
)
from common.secagg.terms import Chair, Kind

T = TypeVar("T")
Replies = Mapping[str, bytes]
_MOST_PEER_HEADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A reply that was laid aside, and why."""

    site_id: str
    reason: FedwardError


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """A member of U1 as the coordinator knows it."""

    site_id: str
    identity: bytes
    weight: int
    keys: Keys
    said: Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class Inviting:
    """1: the header is what every site gets, with the model beside it."""

    chair: Chair
    tag: RoundTag
    abandons: tuple[Signed, ...] = ()

    @property
    def kind(self) -> Kind:
        return self.chair.terms.kind

    @property
    def header(self) -> bytes:
        return messages.down(self.chair.signer, self.tag, Step.KEYS, Header(tag=self.tag, kind=self.kind, abandons=self.abandons))

    def agree(self, replies: Replies, *, now: int) -> tuple["Sharing", bytes]:
        """From KEYS to the cohort U1, which every site of it is sent. Raises: CohortTooSmall."""
        announced, rejected = _sort_out(replies, lambda site_id, control: self._announced(site_id, control, now))
        members, copies = _without_copies(announced)
        rejected += copies
        _expect(len(members), self.chair.terms.smallest_cohort, "announced keys", CohortTooSmall)
        if len(members) > self.chair.terms.max_cohort:
            raise PlanMismatch(f"{len(members)} sites announced keys, the plan's grid holds the sum of {self.chair.terms.max_cohort}.")
        cohort = Cohort(members=tuple(each.said for each in members))
        stage = Sharing(chair=self.chair, tag=self.tag, members=members, transcript=messages.t1(self.tag.rt, cohort), rejected=rejected)
        return stage, messages.down(self.chair.signer, self.tag, Step.SHARE, cohort)

    def _announced(self, site_id: str, control: bytes, now: int) -> Announced:
        up = _open(self.chair, self.tag, Step.KEYS, site_id, control)
        member = roster.active_member(self.chair.roster, site_id, now=now)
        if site_id not in self.chair.terms.members:
            raise UnknownPeer(f"site '{site_id}' is not of this group.")
        said = codec.read(Keys, up.body, what="a site's keys")
        if said.kind is not self.kind or len(said.heads.peers) > _MOST_PEER_HEADS:
            raise PlanMismatch(f"site '{site_id}' announced {said.kind.name}, this round sums {self.kind.name}.")
        if keys.has_small_order(said.mask_key) or keys.has_small_order(said.share_key):
            raise MessageFormat(f"a public key of '{site_id}' has small order.")
        signed = Signed(site_id=site_id, body=up.body, signature=up.signature)
        return Announced(site_id=site_id, identity=member.public_key, weight=member.weight, keys=said, said=signed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """2: U1 is out."""

    chair: Chair
    tag: RoundTag
    members: tuple[Announced, ...]
    transcript: bytes
    rejected: tuple[Rejected, ...]

    def route(self, replies: Replies) -> tuple["Masking", Mapping[str, bytes]]:
        """From SHARE to U2: to each of its sites, what the others sealed for it. Raises: CohortTooSmall."""
        shares, rejected = _sort_out(self._known(replies), self._shares)
        site_ids = tuple(sorted(shares))
        _expect(len(site_ids), self.chair.terms.threshold(len(self.members)), "shared their secrets", CohortTooSmall)
        order = [member.site_id for member in self.members]
        messages_down = {}
        for receiver in site_ids:
            items = tuple(
                Delivery(site_id=sender, sealed=shares[sender].sealed[_position(order, sender, receiver)])
                for sender in site_ids
                if sender != receiver
            )
            messages_down[receiver] = messages.down(self.chair.signer, self.tag, Step.MASK, Deliveries(items=items))
        stage = Masking(
            chair=self.chair,
            tag=self.tag,
            members=self.members,
            cohort_transcript=self.transcript,
            transcript=messages.t2(self.transcript, site_ids),
            sharers=site_ids,
            seed_commitments={site_id: shares[site_id].commitment for site_id in site_ids},
            rejected=rejected,
        )
        return stage, messages_down

    def _known(self, replies: Replies) -> Replies:
        known = {member.site_id for member in self.members}
        return {site_id: control for site_id, control in replies.items() if site_id in known}

    def _shares(self, site_id: str, control: bytes) -> Shares:
        shares = codec.read(Shares, _open(self.chair, self.tag, Step.SHARE, site_id, control).body, what="a site's shares")
        longest = 2 * field.ELEMENT_SIZE + keys.NONCE_SIZE + keys.TAG_SIZE
        if len(shares.sealed) != len(self.members) - 1 or any(len(sealed) > longest for sealed in shares.sealed):
            raise ShareFormat(f"site '{site_id}' sealed {len(shares.sealed)} shares, expected {len(self.members) - 1} of {longest} bytes.")
        return shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Masking:
    """3: the masks are being put on."""

    chair: Chair
    tag: RoundTag
    members: tuple[Announced, ...]
    cohort_transcript: bytes
    transcript: bytes
    sharers: tuple[str, ...]
    seed_commitments: Mapping[str, bytes]
    rejected: tuple[Rejected, ...]

    def survive(self, replies: Replies) -> tuple["Confirming", bytes]:
        """From MASK to U3, whose vectors have arrived and are stored by the caller. Raises: SurvivorSet."""
        mine = {site_id: control for site_id, control in replies.items() if site_id in self.sharers}
        masked, rejected = _sort_out(mine, self._masked)
        survivors = tuple(sorted(masked))
        _expect(len(survivors), self.chair.terms.threshold(len(self.members)), "sent a masked vector", SurvivorSet)
        stage = Confirming(masking=self, masked=masked, transcript=messages.t3(self.transcript, survivors), rejected=rejected)
        return stage, messages.down(self.chair.signer, self.tag, Step.CONFIRM, Survivors(site_ids=survivors))

    def accusations(self, complaints: Replies, deliveries: Mapping[str, bytes]) -> Mapping[str, frozenset[str]]:
        """Who accuses whom, of those who were sent `deliveries`. Raises: nothing; a complaint that does not hold is passed over."""
        mine = {site_id: content for site_id, content in complaints.items() if site_id in self.sharers}
        found, _ = _sort_out(mine, lambda site_id, content: self._accused(site_id, content, deliveries[site_id]))
        return found

    def _accused(self, site_id: str, content: bytes, delivered: bytes) -> frozenset[str]:
        member = next(member for member in self.members if member.site_id == site_id)
        said = complaining.read(content, self.tag, site_id, member.identity)
        items = codec.read(Deliveries, codec.read(Down, delivered).body).items
        sealed = {item.site_id: complaining.digest(item.sealed) for item in items}
        if any(sealed.get(accused) != quoted for accused, quoted in said.items()):
            raise ShareFormat(f"site '{site_id}' complains of shares that it was not sent.")
        return frozenset(said)

    def check_vector(self, site_id: str, control: bytes, vector: memoryview) -> None:
        """Before a vector is stored: is it as long as the plan says, and the one that its site signed?

        Raises: MessageTooLarge, MessageFormat, and what an unfit reply raises.
        """
        expected = self.chair.terms.num_values * self.chair.terms.grid.word.itemsize
        if vector.nbytes != expected:
            raise MessageTooLarge(f"the masked vector of '{site_id}' has {vector.nbytes} bytes, expected {expected}.")
        if messages.vector_digest(vector) != self._masked(site_id, control).vector:
            raise MessageFormat(f"the masked vector of '{site_id}' is not the one it signed.", fix="Ask for it again.")

    def _masked(self, site_id: str, control: bytes) -> Masked:
        masked = codec.read(Masked, _open(self.chair, self.tag, Step.MASK, site_id, control).body, what="a masked update")
        if masked.transcript != self.transcript:
            raise RoundTagMismatch(f"site '{site_id}' masked for another set of sharers.")
        return masked


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirming:
    """4: survivors are being confirmed."""

    masking: Masking
    masked: Mapping[str, Masked]
    transcript: bytes
    rejected: tuple[Rejected, ...]

    def quorum(self, replies: Replies) -> tuple["Unmasking", bytes]:
        """From CONFIRM to a quorum that every survivor is shown. Raises: ConfirmQuorum."""
        mine = {site_id: control for site_id, control in replies.items() if site_id in self.masked}
        confirmed, rejected = _sort_out(mine, self._confirmation)
        threshold = self.masking.chair.terms.threshold(len(self.masking.members))
        _expect(len(confirmed), threshold, "confirmed the survivors", ConfirmQuorum)
        stage = Unmasking(confirming=self, threshold=threshold, rejected=rejected)
        quorum = Quorum(confirmations=tuple(confirmed[site_id] for site_id in sorted(confirmed)))
        return stage, messages.down(self.masking.chair.signer, self.masking.tag, Step.UNMASK, quorum)

    def _confirmation(self, site_id: str, control: bytes) -> Signed:
        up = _open(self.masking.chair, self.masking.tag, Step.CONFIRM, site_id, control)
        if codec.read(Confirmation, up.body, what="a confirmation").transcript != self.transcript:
            raise RoundTagMismatch(f"site '{site_id}' confirmed other survivors.")
        return Signed(site_id=site_id, body=up.body, signature=up.signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmasking:
    """5: shares come in; `common.secagg.unmask.open_sum` makes the sum of them."""

    confirming: Confirming
    threshold: int
    rejected: tuple[Rejected, ...]

    def shares(self, replies: Replies) -> tuple[Mapping[str, Mapping[int, int]], tuple[Rejected, ...]]:
        """For each site of U2, {x of the holder: share}. Raises: nothing; what does not fit is laid aside."""
        opened, rejected = _sort_out({s: c for s, c in replies.items() if s in self.confirming.masked}, self._opened)
        masking = self.confirming.masking
        x_of = {member.site_id: x for x, member in enumerate(masking.members, start=1)}
        of_owner = {
            owner: {x_of[holder]: shares[position] for holder, shares in opened.items()} for position, owner in enumerate(masking.sharers)
        }
        return of_owner, rejected

    def _opened(self, site_id: str, control: bytes) -> tuple[int, ...]:
        masking = self.confirming.masking
        opened = codec.read(Opened, _open(masking.chair, masking.tag, Step.UNMASK, site_id, control).body, what="opened shares")
        elements = tuple(element for share in opened.shares if (element := field.from_bytes(share)) is not None)
        if not len(elements) == len(opened.shares) == len(masking.sharers):
            raise ShareFormat(f"site '{site_id}' opened {len(elements)} shares, expected {len(masking.sharers)}.")
        return elements


def abandon(chair: Chair, tag: RoundTag) -> bytes:
    """6: ask a site to give an attempt up."""
    return messages.down(chair.signer, tag, Step.ABANDON, Nothing())


def abandons(chair: Chair, tag: RoundTag, replies: Replies) -> tuple[Signed, ...]:
    """The signatures for the next header, from the sites' answers to ABANDON."""

    def signed(site_id: str, control: bytes) -> Signed:
        up = _open(chair, tag, Step.ABANDON, site_id, control)
        return Signed(site_id=site_id, body=up.body, signature=up.signature)

    good, _ = _sort_out(replies, signed)
    return tuple(good[site_id] for site_id in sorted(good))


def _open(chair: Chair, tag: RoundTag, step: Step, site_id: str, control: bytes) -> Up:
    """A reply of this round and step, signed by the site that it names."""
    up = messages.read_up(control, versions=frozenset({tag.version}), ring_bits=tag.ring_bits, limit=chair.terms.largest_message)
    if up.rt != tag.rt or up.step is not step or up.site_id != site_id:
        raise RoundTagMismatch(f"a reply of '{up.site_id[:64]}' to step {up.step.name} came as '{site_id[:64]}' to {step.name}.")
    member = chair.roster.find(site_id)
    if member is None or not messages.site_signed(up, tag, step, member.public_key):
        raise PeerSignature(f"the reply to {step.name} is not signed by '{site_id[:64]}'.", fix="Something in between altered it.")
    return up


def _sort_out(replies: Replies, parse: Callable[[str, bytes], T]) -> tuple[dict[str, T], tuple[Rejected, ...]]:
    good: dict[str, T] = {}
    rejected = []
    for site_id, control in sorted(replies.items()):
        try:
            good[site_id] = parse(site_id, control)
        except FedwardError as reason:
            rejected.append(Rejected(site_id=site_id, reason=reason))
    return good, tuple(rejected)


def _without_copies(announced: Mapping[str, Announced]) -> tuple[tuple[Announced, ...], tuple[Rejected, ...]]:
    """A key with two owners disqualifies both: which of them copied cannot be told."""
    owners: dict[bytes, list[str]] = {}
    for each in announced.values():
        for key in (each.keys.mask_key, each.keys.share_key):
            owners.setdefault(key, []).append(each.site_id)
    copies = {site_id for sites in owners.values() if len(sites) > 1 for site_id in sites}
    rejected = tuple(
        Rejected(site_id=site_id, reason=DuplicateKey(f"site '{site_id}' announced a key that was announced twice."))
        for site_id in sorted(copies)
    )
    return tuple(announced[site_id] for site_id in sorted(announced) if site_id not in copies), rejected


def _position(order: Iterable[str], sender: str, receiver: str) -> int:
    """Where the share for `receiver` stands in what `sender` sealed: U1's order, the sender left out."""
    return [site_id for site_id in order if site_id != sender].index(receiver)


def _expect(found: int, needed: int, what: str, error: type[FedwardError]) -> None:
    if found < needed:
        raise error(f"{found} sites {what}, expected at least {needed}.", fix="Wait for them, or begin another attempt.")

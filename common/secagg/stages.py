# SPDX-License-Identifier: Apache-2.0
"""A site's life in one attempt, a type for each stage; each has only the step that is due.

    Listening -> Invited -> Keyed -> Shared -> Masked -> Confirmed -> Released
                  (trains)    `--------`---------`---------`-> GivenUp

A stage is a frozen value: `Shared.mask(...)` returns a `Masked` and a message, and leaves the `Shared` as it was. What a stage does not
need is not there: a `Released` holds no key, and no stage can open a share without the survivors that it confirmed. The checks that
guard each step stand in `checks.py` and run before the step does; what is computed here may assume them.

`grid` is the digest of the one that the update lies on: its heaviest weight is the roster's, which may have changed by the next attempt.

The point of no return is `mask`: once the vector has left, t other sites can release a sum that contains it. From there on the update
may be masked again only when t sites of that cohort have signed that they gave the attempt up.
"""

import dataclasses
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from common.errors import MessageFormat, ShareDecrypt
from common.secagg import codec, field, keys, messages, shamir
from common.secagg.codec import APART, Bytes32
from common.secagg.masks import Body, Mask, apply
from common.secagg.messages import Cohort, Confirmation, Deliveries, Heads, Keys, Masked, Opened, RoundTag, Shares, Signed, Step
from common.secagg.quantise import QuantisedUpdate
from common.secagg.terms import Kind, Seat


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Secrets:
    """Drawn afresh for every attempt. The salt outlives it: it opens the commitment to an auditor."""

    mask_private: Bytes32
    share_private: Bytes32
    seed: Bytes32
    salt: Bytes32


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A member of U1: its identity from the roster, its keys for this attempt."""

    site_id: str
    identity: Bytes32
    mask_key: Bytes32
    share_key: Bytes32


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Held:
    """The shares of one peer's two secrets that this site holds, 33 bytes each."""

    site_id: str
    seed_share: bytes
    key_share: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Between rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """The header is accepted; the caller trains."""

    tag: RoundTag
    kind: Kind

    def join(self, update: QuantisedUpdate, seat: Seat, heads: Heads) -> tuple["Keyed", bytes]:
        return announce(self.tag, self.kind, update, seat, heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """Keys are out; nothing about the update is, but its commitment."""

    tag: RoundTag
    kind: Kind
    grid: Bytes32
    secrets: Secrets
    announcement: Signed
    update: QuantisedUpdate = dataclasses.field(metadata=APART, compare=False, repr=False)

    @property
    def masked_with(self) -> tuple[Peer, ...]:
        return ()

    def share(self, cohort: Cohort, peers: tuple[Peer, ...], seat: Seat) -> tuple["Shared", bytes]:
        """Deal b and s to U1, sealed for each peer."""
        transcript = messages.t1(self.tag.rt, cohort)
        count, threshold = len(peers), seat.terms.threshold(len(peers))
        seeds = shamir.share(self.secrets.seed, threshold=threshold, count=count, entropy=seat.entropy)
        scalars = shamir.share(self.secrets.mask_private, threshold=threshold, count=count, entropy=seat.entropy)
        channel = keys.AgreementKey.load(self.secrets.share_private)
        own, sealed = b"", []
        for peer, seed_share, key_share in zip(peers, seeds, scalars, strict=True):
            plaintext = field.to_bytes(seed_share) + field.to_bytes(key_share)
            if peer.site_id == seat.site_id:
                own = plaintext
                continue
            key = _channel_key(channel, peer, transcript, sender=seat.site_id, receiver=peer.site_id)
            sealed.append(keys.seal(key, plaintext, nonce=seat.entropy(keys.NONCE_SIZE), transcript=transcript))
        commitment = messages.seed_commitment(transcript, self.secrets.seed)
        reply = Shares(commitment=commitment, sealed=tuple(sealed))
        stage = Shared(
            tag=self.tag,
            kind=self.kind,
            grid=self.grid,
            secrets=self.secrets,
            transcript=transcript,
            cohort=peers,
            own=_held(seat.site_id, own),
            announcement=self.announcement,
            update=self.update,
        )
        return stage, messages.up(seat.signer, self.tag, Step.SHARE, seat.site_id, reply)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The secrets are dealt; the update has still not left."""

    tag: RoundTag
    kind: Kind
    grid: Bytes32
    secrets: Secrets
    announcement: Signed
    transcript: Bytes32
    cohort: tuple[Peer, ...]
    own: Held
    update: QuantisedUpdate = dataclasses.field(metadata=APART, compare=False, repr=False)

    @property
    def masked_with(self) -> tuple[Peer, ...]:
        return ()

    def unseal(self, deliveries: Deliveries, seat: Seat) -> tuple[tuple[str, bytes], ...]:
        """What peers sealed for this site. Raises: ShareDecrypt, naming every peer whose share does not open."""
        by_id = {peer.site_id: peer for peer in self.cohort}
        channel = keys.AgreementKey.load(self.secrets.share_private)
        opened, shut = [], []
        for item in deliveries.items:
            key = _channel_key(channel, by_id[item.site_id], self.transcript, sender=item.site_id, receiver=seat.site_id)
            plaintext = keys.unseal(key, item.sealed, transcript=self.transcript)
            if plaintext is None:
                shut.append(item.site_id)
            else:
                opened.append((item.site_id, plaintext))
        if shut:
            raise ShareDecrypt(
                f"what {_names(shut)} sealed for '{seat.site_id}' does not open.",
                fix="The coordinator is told, and can leave them out of the next attempt.",
                accused=tuple(shut),
            )
        return tuple(opened)

    def mask(self, opened: tuple[tuple[str, bytes], ...], seat: Seat) -> tuple["MaskedOut", bytes, Body]:
        """Mask the update for U2, the sites whose shares are held."""
        held = tuple(sorted((self.own, *(_held(*each) for each in opened)), key=lambda each: each.site_id))
        stage = MaskedOut(
            tag=self.tag,
            kind=self.kind,
            grid=self.grid,
            secrets=self.secrets,
            announcement=self.announcement,
            transcript=messages.t2(self.transcript, tuple(each.site_id for each in held)),
            cohort=self.cohort,
            held=held,
            update=self.update,
        )
        body, tail = stage.masked(seat)
        digest = messages.vector_digest(body.data.cast("B"))
        reply = Masked(transcript=stage.transcript, tail=tail, vector=digest)
        return stage, messages.up(seat.signer, self.tag, Step.MASK, seat.site_id, reply), body


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedOut:
    """The masked update has left."""

    tag: RoundTag
    kind: Kind
    grid: Bytes32
    secrets: Secrets
    announcement: Signed
    transcript: Bytes32
    cohort: tuple[Peer, ...]
    held: tuple[Held, ...]
    update: QuantisedUpdate = dataclasses.field(metadata=APART, compare=False, repr=False)

    @property
    def masked_with(self) -> tuple[Peer, ...]:
        return self.cohort

    def masked(self, seat: Seat) -> tuple[Body, bytes]:
        """The masked vector and tail, made again whenever they are asked for."""
        return masked_update(self.update, self.secrets, self.transcript, self.cohort, self.held, seat)

    def confirm(self, survivors: tuple[str, ...], seat: Seat) -> tuple["Confirmed", bytes]:
        """Sign who survived."""
        transcript = messages.t3(self.transcript, survivors)
        stage = Confirmed(
            tag=self.tag,
            kind=self.kind,
            grid=self.grid,
            secrets=self.secrets,
            announcement=self.announcement,
            mask_transcript=self.transcript,
            transcript=transcript,
            cohort=self.cohort,
            held=self.held,
            survivors=survivors,
            update=self.update,
        )
        return stage, messages.up(seat.signer, self.tag, Step.CONFIRM, seat.site_id, Confirmation(transcript=transcript))


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """The survivors are signed; the shares are still here."""

    tag: RoundTag
    kind: Kind
    grid: Bytes32
    secrets: Secrets
    announcement: Signed
    mask_transcript: Bytes32
    transcript: Bytes32
    cohort: tuple[Peer, ...]
    held: tuple[Held, ...]
    survivors: tuple[str, ...]
    update: QuantisedUpdate = dataclasses.field(metadata=APART, compare=False, repr=False)

    @property
    def masked_with(self) -> tuple[Peer, ...]:
        return self.cohort

    def masked(self, seat: Seat) -> tuple[Body, bytes]:
        """The masked vector and tail, made again whenever they are asked for."""
        return masked_update(self.update, self.secrets, self.mask_transcript, self.cohort, self.held, seat)

    def release(self, seat: Seat) -> tuple["Released", bytes]:
        """One share for each site of U2, never two: which one follows from the survivors that this site itself confirmed."""
        alive = frozenset(self.survivors)
        shares = tuple(each.seed_share if each.site_id in alive else each.key_share for each in self.held)
        reply = messages.up(seat.signer, self.tag, Step.UNMASK, seat.site_id, Opened(shares=shares))
        return Released(tag=self.tag, kind=self.kind, salt=self.secrets.salt), reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The end of an attempt that gave its shares. The salt opens the commitment, should an auditor ask."""

    tag: RoundTag
    kind: Kind
    salt: Bytes32


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenUp:
    """The end of an attempt that will never give its shares: its keys are gone, its update may live on.

    `masked_with` is the cohort for which the update left masked, and is empty if it never did.
    """

    tag: RoundTag
    kind: Kind
    grid: Bytes32
    masked_with: tuple[Peer, ...]
    salt: Bytes32
    announcement: Signed
    update: QuantisedUpdate = dataclasses.field(metadata=APART, compare=False, repr=False)


Living: TypeAlias = Keyed | Shared | MaskedOut | Confirmed
Stage: TypeAlias = Listening | Invited | Living | Released | GivenUp


def announce(tag: RoundTag, kind: Kind, update: QuantisedUpdate, seat: Seat, heads: Heads) -> tuple[Keyed, bytes]:
    """Fresh keys, and a commitment to the update."""
    secrets = Secrets(mask_private=seat.entropy(32), share_private=seat.entropy(32), seed=seat.entropy(32), salt=seat.entropy(32))
    said = Keys(
        kind=kind,
        mask_key=keys.agreement_public(secrets.mask_private),
        share_key=keys.agreement_public(secrets.share_private),
        commitment=update.commitment(secrets.salt),
        heads=heads,
    )
    reply = messages.up(seat.signer, tag, Step.KEYS, seat.site_id, said)
    sent = codec.read(messages.Up, reply)
    announcement = Signed(site_id=seat.site_id, body=sent.body, signature=sent.signature)
    grid = seat.terms.grid.digest
    return Keyed(tag=tag, kind=kind, grid=grid, secrets=secrets, announcement=announcement, update=update), reply


def signers(said: tuple[Signed, ...], peers: tuple[Peer, ...], tag: RoundTag, step: Step, body: bytes) -> frozenset[str]:
    """Which of the peers are behind these signatures over `body`; each counts once."""
    identity = {peer.site_id: peer.identity for peer in peers}
    return frozenset(
        each.site_id
        for each in said
        if each.site_id in identity and messages.site_signed(dataclasses.replace(each, body=body), tag, step, identity[each.site_id])
    )


def give_up(stage: Living, seat: Seat) -> tuple[GivenUp, bytes]:
    """Sign that this attempt's shares will never leave this site, and forget its keys."""
    ended = GivenUp(
        tag=stage.tag,
        kind=stage.kind,
        grid=stage.grid,
        masked_with=stage.masked_with,
        salt=stage.secrets.salt,
        announcement=stage.announcement,
        update=stage.update,
    )
    return ended, messages.up(seat.signer, stage.tag, Step.ABANDON, seat.site_id, messages.Nothing())


def masked_update(
    update: QuantisedUpdate, secrets: Secrets, transcript: bytes, cohort: tuple[Peer, ...], held: tuple[Held, ...], seat: Seat
) -> tuple[Body, bytes]:
    """y = q + PRG(b) +- PRG(k_ij) for every peer of U2, and the tail (weight, 1, canary) masked alike.

    It follows from what is stored, so a repeated request gets the same bytes without their being stored too.
    """
    body = update.body.copy()
    tail = np.array([update.weight, 1, messages.canary(transcript)], dtype="<u4")
    present = {each.site_id for each in held} - {seat.site_id}
    mask_key = keys.AgreementKey.load(secrets.mask_private)
    masks = [self_mask(secrets.seed, transcript, seat.site_id)]
    masks += [pair_mask(mask_key, transcript, seat.site_id, peer.site_id, peer.mask_key) for peer in cohort if peer.site_id in present]
    apply(masks, body=body, tail=tail, workers=seat.workers)
    return body, tail.tobytes()


def self_mask(seed: bytes, transcript: bytes, site_id: str) -> Mask:
    """The mask that a site shares with nobody; b opens it."""
    return Mask(keys.derive(seed, transcript=transcript, label=b"FSA1 self mask", ids=(site_id,)))


def pair_mask(mask_key: keys.AgreementKey, transcript: bytes, site_id: str, peer_id: str, peer_public: bytes) -> Mask:
    """The mask of two sites: the one whose name sorts first adds it, the other takes it away."""
    ids = (site_id, peer_id) if site_id < peer_id else (peer_id, site_id)
    key = keys.derive(_agreed(mask_key, peer_public, peer_id), transcript=transcript, label=b"FSA1 pair mask", ids=ids)
    return Mask(key, negative=site_id > peer_id)


def _channel_key(channel: keys.AgreementKey, peer: Peer, transcript: bytes, *, sender: str, receiver: str) -> bytes:
    secret = _agreed(channel, peer.share_key, peer.site_id)
    return keys.derive(secret, transcript=transcript, label=b"FSA1 share", ids=(sender, receiver))


def _agreed(key: keys.AgreementKey, public: bytes, peer_id: str) -> bytes:
    secret = key.agree(public)
    if secret is None:
        raise MessageFormat(f"the public key of '{peer_id}' has small order.", fix="The coordinator should leave that site out.")
    return secret


def _names(sites: list[str]) -> str:
    return ", ".join(f"'{site}'" for site in sites)


def _held(site_id: str, plaintext: bytes) -> Held:
    return Held(site_id=site_id, seed_share=plaintext[: field.ELEMENT_SIZE], key_share=plaintext[field.ELEMENT_SIZE :])

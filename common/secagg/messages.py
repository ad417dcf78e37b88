# SPDX-License-Identifier: Apache-2.0
"""The messages of FSA1, their signatures, and the transcripts that they build.

    step      down: coordinator to site               up: site to coordinator
    1 KEYS    Header (and the global model)           Keys: fresh public keys, commitment to the update
    2 SHARE   Cohort: everybody's signed Keys = U1    Shares: b and s, shared out, sealed for each peer
    3 MASK    Deliveries: what peers in U2 sealed     Masked: the masked update (vector) and tail
    4 CONFIRM Survivors: whose vector arrived = U3    Confirmation: T3, signed
    5 UNMASK  Quorum: the signed confirmations        Opened: one share for each site of U2
    6 ABANDON Nothing                                 Nothing, signed: this attempt is given up

Each message is control bytes, and for the model and the masked update one flat vector beside them, bound by its digest. Control bytes
begin with "FSA1", the protocol version and the word size of the ring, so that a newer or a bandwidth-mode message is known for what it
is before anything else is read. Both directions are signed over version, round tag, step and body, under different labels; up also over
the site's name. A signature thus cannot be carried to another round, step, direction or speaker.

Transcripts: rt binds plan, roster, session, round, attempt, model and layout; T1 = H(rt, U1), T2 = H(T1, U2), T3 = H(T2, U3). Masks
and share channels are keyed by them, so parties who were told different things hold keys that do not match.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Annotated, Final

from common import canonical
from common.errors import MessageFormat, MessageTooLarge, UnknownVersion
from common.secagg import codec
from common.secagg.codec import Bytes16, Bytes32, Bytes64
from common.secagg.keys import SigningKey, signature_holds
from common.secagg.terms import Kind

MAGIC: Final = b"FSA1"
NO_HEAD: Final = bytes(32)


class Step(IntEnum):
    KEYS = 1
    SHARE = 2
    MASK = 3
    CONFIRM = 4
    UNMASK = 5
    ABANDON = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTag:
    """What a round is about. `rt` is its name in every later message."""

    version: int
    ring_bits: int
    plan: Bytes32
    roster: Bytes32
    session: Bytes16
    round: int
    attempt: int
    model: Bytes32
    layout: Bytes32

    @property
    def rt(self) -> bytes:
        return _name_of(self)


@lru_cache(maxsize=64)
def _name_of(tag: RoundTag) -> bytes:
    return canonical.digest(MAGIC, codec.write(tag))


@dataclass(frozen=True, slots=True, kw_only=True)
class Down:
    """Coordinator to site."""

    magic: Annotated[bytes, 4]
    version: int
    ring_bits: int
    step: Step
    rt: Bytes32
    body: bytes
    signature: Bytes64


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """Site to coordinator."""

    magic: Annotated[bytes, 4]
    version: int
    ring_bits: int
    step: Step
    rt: Bytes32
    site_id: str
    body: bytes
    signature: Bytes64


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What a site said, passed on to its peers: version, round and step are those of the message around it."""

    site_id: str
    body: bytes
    signature: Bytes64


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """1 down. `abandons` are signatures that give the earlier attempt up, needed by a site that has masked for it."""

    tag: RoundTag
    kind: Kind
    abandons: tuple[Signed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerHead:
    """The audit head that a peer last showed: rewriting one's history then needs everybody's help."""

    site_id: str
    ledger_head: Bytes32
    audit_head: Bytes32


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """Where a site's records stand; zeros until it keeps them. At most 16 peers are echoed."""

    ledger: Bytes32 = NO_HEAD
    audit: Bytes32 = NO_HEAD
    peers: tuple[PeerHead, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """1 up: X25519 keys for masks and for shares, H(q || salt), and where this site's records stand."""

    kind: Kind
    mask_key: Bytes32
    share_key: Bytes32
    commitment: Bytes32
    heads: Heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """2 down: U1, sorted by site."""

    members: tuple[Signed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """2 up: a commitment to b, and for each peer in the order of U1 its sealed shares of b and s."""

    commitment: Bytes32
    sealed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one peer sealed for this site."""

    site_id: str
    sealed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """3 down: from every other site of U2, sorted. U2 is these and the receiver."""

    items: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """3 up: T2, the masked weight and canaries, and the digest of the masked vector beside it."""

    transcript: Bytes32
    tail: Annotated[bytes, 12]
    vector: Bytes32


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivors:
    """4 down: U3, sorted."""

    site_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """4 up: T3."""

    transcript: Bytes32


@dataclass(frozen=True, slots=True, kw_only=True)
class Quorum:
    """5 down: confirmations as their sites signed them."""

    confirmations: tuple[Signed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """5 up: for each site of U2, in order: its share of b if it survived, of s if it did not. Never both."""

    shares: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """6, both ways: the envelope says it all."""


def t1(rt: bytes, cohort: Cohort) -> bytes:
    return canonical.digest(b"FSA1 T1", rt, codec.write(cohort))


def t2(transcript: bytes, site_ids: tuple[str, ...]) -> bytes:
    return canonical.digest(b"FSA1 T2", transcript, codec.write(site_ids))


def t3(transcript: bytes, site_ids: tuple[str, ...]) -> bytes:
    return canonical.digest(b"FSA1 T3", transcript, codec.write(site_ids))


def seed_commitment(transcript: bytes, seed: bytes) -> bytes:
    """H(T1, b): lets the coordinator tell a right b from a wrong one."""
    return canonical.digest(b"FSA1 b", transcript, seed)


def vector_digest(vector: memoryview) -> bytes:
    return canonical.digest(b"FSA1 vector", vector)


def canary(transcript: bytes) -> int:
    """The low 32 bits of H(T2): a word of every masked tail whose sum is known beforehand."""
    return int.from_bytes(canonical.digest(b"FSA1 canary", transcript)[-4:], "big")


def down(signer: SigningKey, tag: RoundTag, step: Step, body: object) -> bytes:
    """A signed message to a site."""
    raw, rt = codec.write(body), tag.rt
    signature = signer.sign(_down_digest(tag.version, tag.ring_bits, rt, step, raw))
    return codec.write(Down(magic=MAGIC, version=tag.version, ring_bits=tag.ring_bits, step=step, rt=rt, body=raw, signature=signature))


def up(signer: SigningKey, tag: RoundTag, step: Step, site_id: str, body: object) -> bytes:
    """A signed message to the coordinator."""
    raw, rt = codec.write(body), tag.rt
    signature = signer.sign(up_digest(tag, step, site_id, raw))
    return codec.write(
        Up(magic=MAGIC, version=tag.version, ring_bits=tag.ring_bits, step=step, rt=rt, site_id=site_id, body=raw, signature=signature)
    )


def read_up(control: bytes, *, versions: frozenset[int], ring_bits: int, limit: int) -> Up:
    """Raises: MessageTooLarge, MessageFormat, UnknownVersion."""
    check_size(control, limit=limit)
    check_magic(control)
    check_version(control, versions=versions, words=frozenset({ring_bits}))
    return codec.read(Up, control, what="a message from a site")


def coordinator_signed(message: Down, public: bytes) -> bool:
    expected = _down_digest(message.version, message.ring_bits, message.rt, message.step, message.body)
    return signature_holds(public, message.signature, expected)


def site_signed(said: Signed | Up, tag: RoundTag, step: Step, public: bytes) -> bool:
    return signature_holds(public, said.signature, up_digest(tag, step, said.site_id, said.body))


def up_digest(tag: RoundTag, step: Step, site_id: str, body: bytes) -> bytes:
    """What a site signs."""
    return canonical.digest(
        b"FSA1 up", _u64(tag.version), _u64(tag.ring_bits), tag.rt, _u64(step), site_id.encode(), canonical.digest(body)
    )


def _down_digest(version: int, ring_bits: int, rt: bytes, step: Step, body: bytes) -> bytes:
    return canonical.digest(b"FSA1 down", _u64(version), _u64(ring_bits), rt, _u64(step), canonical.digest(body))


def check_size(control: bytes, *, limit: int) -> None:
    if len(control) > limit:
        raise MessageTooLarge(f"a message has {len(control)} control bytes, expected at most {limit}.", fix="Check the sender's plan.")


def check_magic(control: bytes) -> None:
    if control[:4] != MAGIC or len(control) < 20:
        raise MessageFormat("a message does not begin as FSA1 messages do.", fix="Check that the sender is a fedward of this plan.")


def check_version(control: bytes, *, versions: frozenset[int], words: frozenset[int]) -> None:
    """Before anything else is read: what follows the version may be laid out in ways that are not known here."""
    version, bits = int.from_bytes(control[4:12], "big"), int.from_bytes(control[12:20], "big")
    if version not in versions or bits not in words:
        raise UnknownVersion(
            f"a message is FSA1 version {version} with {bits}-bit words, spoken here: {sorted(versions)} with {sorted(words)}-bit words.",
            fix="Bring both ends to the same version of fedward and the same plan.",
        )


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")

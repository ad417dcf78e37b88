# SPDX-License-Identifier: Apache-2.0
"""What a site says of peers whose shares are no good, and whom a cohort's complaints leave out of its next attempt.

A site that cannot open what a peer sealed for it refuses MASK, before anything of its update has left. Beside the refusal goes a
complaint: the peer's name and the digest of what came as its, signed. Only the two ends of a share channel can tell whether it opens, so
of accuser and accused one is at fault, and a third party cannot see which. What a third party sees is this. Of a cohort of n fewer than
n/3 are at fault (the assumption under everything here), so

    n/3 voices or more      against one site: one of them at least is honest, so the accused is at fault and goes alone
    fewer, against all      accuser and accused go together, each site in one such pair: of every pair one at least is at fault

and either way fewer than a third of those who stay are at fault, and one fewer than before. Who lies about a peer thus pays with its own
place, and takes one with it at the most; to leave out the accusers alone would let a site that deals badly to few, and then falls silent,
stop every attempt. With t above 2n/3 + 1, as a large minimum cohort makes it, n - t + 1 voices could all be liars'; so n/3 is what counts.

A complaint counts if what it quotes is what its accused signed to have sealed (`common.secagg.coordinator`), so that a coordinator that
alters shares on their way, to have a site left out, is found by whoever compares the two.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from common import canonical
from common.errors import MessageFormat, PeerSignature, RoundTagMismatch
from common.secagg import codec
from common.secagg.codec import Bytes32, Bytes64
from common.secagg.keys import SigningKey, signature_holds
from common.secagg.messages import MAGIC, Deliveries, Down, RoundTag

LARGEST: Final = 2**16
"""Bytes of a complaint: more than 400 of the longest names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accused:
    """A peer, and the SHA-256 of what came as sealed by it."""

    site_id: str
    sealed: Bytes32


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """Site to coordinator, beside a refusal. Signed under a label of its own: it is no reply to any step."""

    magic: Annotated[bytes, 4]
    version: int
    ring_bits: int
    rt: Bytes32
    site_id: str
    accused: tuple[Accused, ...]
    signature: Bytes64


def write(signer: SigningKey, site_id: str, request: bytes, accused: Collection[str]) -> bytes:
    """A complaint about these senders of `request`, a step MASK that was found good but for what they sealed."""
    down = codec.read(Down, request)
    items = codec.read(Deliveries, down.body).items
    named = tuple(Accused(site_id=item.site_id, sealed=digest(item.sealed)) for item in items if item.site_id in accused)
    signed = _digest(down.version, down.ring_bits, down.rt, site_id, named)
    return codec.write(
        Complaint(
            magic=MAGIC,
            version=down.version,
            ring_bits=down.ring_bits,
            rt=down.rt,
            site_id=site_id,
            accused=named,
            signature=signer.sign(signed),
        )
    )


def read(content: bytes, tag: RoundTag, site_id: str, identity: bytes) -> dict[str, bytes]:
    """Whom a complaint of this attempt is about, with the digest of what it quotes.

    Raises: MessageFormat, RoundTagMismatch, PeerSignature.
    """
    said = codec.read(Complaint, content, what="a complaint")
    if (said.magic, said.version, said.ring_bits, said.rt, said.site_id) != (MAGIC, tag.version, tag.ring_bits, tag.rt, site_id):
        raise RoundTagMismatch(f"a complaint that came as that of '{site_id[:64]}' is not its, or of another round.")
    if not signature_holds(identity, said.signature, _digest(said.version, said.ring_bits, said.rt, site_id, said.accused)):
        raise PeerSignature(f"a complaint is not signed by '{site_id[:64]}'.", fix="Something in between altered it.")
    found = {each.site_id: each.sealed for each in said.accused}
    if not found or len(found) < len(said.accused):
        raise MessageFormat(f"a complaint of '{site_id[:64]}' names nobody, or somebody twice.")
    return found


def digest(sealed: bytes) -> bytes:
    """How a complaint quotes what came."""
    return hashlib.sha256(sealed).digest()


def judge(complaints: Mapping[str, Collection[str]], *, cohort: int) -> dict[str, tuple[str, ...]]:
    """Whom the next attempt goes without, each with those whose word stands against it.

    `complaints` has for each accuser whom it accuses; `cohort` counts those who were left out before too, since leaving out makes nobody's
    voice weigh more.

    >>> judge({"a": {"r"}, "b": {"r"}, "c": {"r"}, "r": {"a"}}, cohort=7)
    {'r': ('a', 'b', 'c')}
    >>> judge({"a": {"r"}, "b": {"r"}}, cohort=7)
    {'r': ('a',), 'a': ('r',)}
    """
    accusers: dict[str, list[str]] = defaultdict(list)
    for accuser in sorted(complaints):
        for accused in complaints[accuser]:
            accusers[accused].append(accuser)
    needed = -(-cohort // 3)
    if alone := {accused: tuple(by) for accused, by in sorted(accusers.items()) if len(by) >= needed}:
        return alone
    out = dict[str, tuple[str, ...]]()
    for accused, by in sorted(accusers.items(), key=lambda item: (-len(item[1]), item[0])):
        free = [accuser for accuser in by if accuser not in out]
        if accused not in out and free:
            out |= {accused: (free[0],), free[0]: (accused,)}
    return out


def _digest(version: int, ring_bits: int, rt: bytes, site_id: str, accused: tuple[Accused, ...]) -> bytes:
    numbers = version.to_bytes(8, "big"), ring_bits.to_bytes(8, "big")
    return canonical.digest(b"FSA1 complaint", *numbers, rt, site_id.encode(), codec.write(accused))

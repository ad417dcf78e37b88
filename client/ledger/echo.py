# SPDX-License-Identifier: Apache-2.0
"""What this site shows its peers of its ledger, and what they show it back: a disk that is rolled back whole does not remember, they do.

With its keys for each round a site announces a token of its ledger's last line, and echoes the tokens that it last saw of up to 16 peers
(`common.secagg.messages.Heads`). A site that is shown a token of its own must find that line in its ledger, or it has lost something.

    token = hash[:16] || (branch, line) sealed || MAC          32 bytes

To peers a token is noise that changes: how many lines a ledger has would tell how often a hospital trains elsewhere, or how many patients
withdrew. The MAC is by a key that only this site has, so a peer can repeat a token but make none up, and a rogue one cannot stop another
site by claiming to remember something. Both keys come from the identity key's seed; after a new identity key the old tokens are strangers.

Not caught: a rollback that no peer of the next round has seen beyond. Whoever changes this program can ignore what peers say, too.
"""

import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from client.ledger.chain import Chain, Position
from client.ledger.witness import Witness
from common.secagg.keys import SigningKey
from common.secagg.messages import NO_HEAD, Heads, PeerHead

HASH_BYTES: Final = 16
ECHOED: Final = 16
REMEMBERED: Final = 1024
"""Peers whose tokens are kept; those not met for longest fall out."""

Sample = Callable[[Sequence[PeerHead], int], list[PeerHead]]
Remembered = Mapping[str, PeerHead]
_SAMPLE: Final[Sample] = secrets.SystemRandom().sample


@dataclass(frozen=True, slots=True)
class TokenKey:
    """What makes and opens this site's tokens."""

    _key: bytes

    @classmethod
    def of(cls, signer: SigningKey) -> "TokenKey":
        return cls(hmac.digest(signer.seed, b"fedward ledger token 1", sha256))

    def seal(self, position: Position) -> bytes:
        """The token of a position."""
        head = position.head[:HASH_BYTES]
        place = position.branch.to_bytes(4, "big") + position.seq.to_bytes(4, "big")
        covered = head + _xor(place, self._pad(head))
        return covered + self._mac(covered)

    def open(self, token: bytes) -> Position | None:
        """The position of a token of this site's, `head` cut short; None for anything else."""
        covered, mac = token[:-8], token[-8:]
        if not hmac.compare_digest(mac, self._mac(covered)):
            return None
        head = covered[:HASH_BYTES]
        place = _xor(covered[HASH_BYTES:], self._pad(head))
        return Position(branch=int.from_bytes(place[:4], "big"), seq=int.from_bytes(place[4:], "big"), head=head)

    def _pad(self, head: bytes) -> bytes:
        return hmac.digest(self._key, b"pad" + head, sha256)[:8]

    def _mac(self, covered: bytes) -> bytes:
        return hmac.digest(self._key, b"mac" + covered, sha256)[:8]


def announce(key: TokenKey, chain: Chain | None, peers: Remembered, *, sample: Sample = _SAMPLE) -> Heads:
    """What goes with this site's keys; a site that has spent nothing has no head. Whom it echoes is drawn anew, lest it be foreseen."""
    chosen = sample(list(peers.values()), min(ECHOED, len(peers)))
    own = NO_HEAD if chain is None else key.seal(chain.position)
    return Heads(ledger=own, peers=tuple(sorted(chosen, key=lambda peer: peer.site_id)))


def lost(key: TokenKey, chain: Chain | None, site: str, cohort: Iterable[tuple[str, Heads]]) -> Witness | None:
    """The furthest line of this site's ledger that a peer has seen and that is not there."""
    found: list[Witness] = []
    for peer, heads in cohort:
        for echoed in heads.peers:
            at = key.open(echoed.ledger_head) if echoed.site_id == site and peer != site else None
            if at is not None and (chain is None or not chain.holds(at.branch, at.seq, at.head)):
                found.append(Witness(branch=at.branch, seq=at.seq, head=at.head.hex(), peer=peer))
    return max(found, key=lambda seen: (seen.branch, seen.seq), default=None)


def remember(peers: Remembered, site: str, cohort: Iterable[tuple[str, Heads]]) -> dict[str, PeerHead]:
    """What was remembered, with what a cohort announced now."""
    kept = dict(peers)
    for peer, heads in cohort:
        if peer != site and (heads.ledger, heads.audit) != (NO_HEAD, NO_HEAD):
            kept.pop(peer, None)
            kept[peer] = PeerHead(site_id=peer, ledger_head=heads.ledger, audit_head=heads.audit)
    return dict(list(kept.items())[-REMEMBERED:])


def save(peers: Remembered) -> bytes:
    return json.dumps({name: [peer.ledger_head.hex(), peer.audit_head.hex()] for name, peer in peers.items()}).encode()


def load(content: bytes) -> dict[str, PeerHead]:
    """Raises: ValueError, KeyError, TypeError for bytes that `save` did not write."""
    table = json.loads(content)
    return {
        name: PeerHead(site_id=name, ledger_head=bytes.fromhex(ledger), audit_head=bytes.fromhex(audit))
        for name, (ledger, audit) in table.items()
    }


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))

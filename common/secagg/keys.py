# SPDX-License-Identifier: Apache-2.0
"""Identities, fresh keys, derived keys and sealed shares: every use of a public-key library in the protocol.

Ed25519 (RFC 8032) names a site or the coordinator for a year. X25519 (RFC 7748) agrees on secrets that live for one round: a key for
the masks and a key for the share channel, both fresh, so that a key stolen tomorrow opens nothing said today. HKDF-SHA256 (RFC 5869)
turns an agreed secret into a key; its salt is a transcript digest, which is what makes two sites that were told different stories end
up with different keys. AES-256-GCM seals shares, one key per direction.

Labels and identifiers are length-prefixed before they enter a key or a signature: no two contexts share a spelling.
"""

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.canonical import length_prefixed

_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(point)
    for point in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
"""The u-coordinates of order 1, 2, 4 and 8 (https://cr.yp.to/ecdh.html#validate): whoever agrees with one agrees on zero."""
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key, from its 32-byte seed. Its repr shows the public half only."""

    seed: bytes = field(repr=False)

    @property
    def public(self) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(message)


def signature_holds(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `public` signed `message`; a malformed key or signature is one that does not hold."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def agreement_public(private: bytes) -> bytes:
    """The X25519 public key of 32 private bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def has_small_order(public: bytes) -> bool:
    """Whether the secret agreed with this X25519 public key is known to everybody."""
    return public[:31] + bytes([public[31] & 0x7F]) in _SMALL_ORDER


@dataclass(frozen=True, slots=True)
class AgreementKey:
    """An X25519 private key, loaded once for many peers."""

    _loaded: X25519PrivateKey = field(repr=False)

    @classmethod
    def load(cls, private: bytes) -> "AgreementKey":
        return cls(X25519PrivateKey.from_private_bytes(private))

    def agree(self, peer_public: bytes) -> bytes | None:
        """The secret of two parties; None for a public key of small order, whose secret anyone knows."""
        try:
            return self._loaded.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError:
            return None


def derive(secret: bytes, *, transcript: bytes, label: bytes, ids: tuple[str, ...]) -> bytes:
    """32 bytes for one use: HKDF-SHA256, salt = transcript digest, info = label and ids, length-prefixed."""
    info = length_prefixed(label, *(site_id.encode() for site_id in ids))
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=transcript, info=info).derive(secret)


def seal(key: bytes, plaintext: bytes, *, nonce: bytes, transcript: bytes) -> bytes:
    """nonce || AES-256-GCM ciphertext and tag, bound to the transcript."""
    return nonce + AESGCM(key).encrypt(nonce, plaintext, transcript)


def unseal(key: bytes, sealed: bytes, *, transcript: bytes) -> bytes | None:
    """What `seal` sealed, or None if it was altered, meant for another or made in another round."""
    if len(sealed) < NONCE_SIZE + TAG_SIZE:
        return None
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], transcript)
    except InvalidTag:
        return None

# SPDX-License-Identifier: Apache-2.0
"""The key by which Flower's SuperLink knows a mailbox: ECDSA on P-384, in the form that OpenSSH writes.

    node.key    -----BEGIN OPENSSH PRIVATE KEY-----      what `flower-supernode --auth-supernode-private-key` reads
    node.pub    ecdsa-sha2-nistp384 AAAA... north        what `flwr supernode register` reads

It opens the transport and nothing else: who a site is, and what it may be asked, hangs on its Ed25519 identity, which no mailbox holds. A
thief of this key can connect in the mailbox's place, read sealed messages and drop them, and no more.

Flower reads no other form than OpenSSH's at either of its two doors (flower_supernode.py and register.py, flwr 1.41), so a public key is
accepted here only in that form and on that curve.
"""

import re
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import RosterKey, SecretFile
from common.keyfile import public_path, write_new

KEY_FILE: Final = "node.key"
PUBLIC_FILE: Final = "node.pub"
_CURVE: Final = ec.SECP384R1
_PUBLIC: Final = re.compile(r"(ecdsa-sha2-nistp384 [A-Za-z0-9+/]{150,250}={0,2})( [A-Za-z0-9._@-]{1,80})?\n?", re.ASCII)
_LARGEST_FILE: Final = 4096
_UNREADABLE: Final = (ValueError, UnsupportedAlgorithm, NotImplementedError)
"""What the library raises for bytes that are no key, or one of a form that it does not read."""


def create(path: Path, *, name: str) -> str:
    """Make a key: the secret half at `path` (0600), the public half beside it, remarked with the site's name. Gives the public half.

    Raises: SecretFile where either is there already or cannot be made, DiskFull. Then there is neither.
    """
    key = ec.generate_private_key(_CURVE())
    form = serialization.PrivateFormat.OpenSSH
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    public = _public_of(key)
    write_new(path, secret, mode=0o600)
    try:
        write_new(public_path(path), f"{public} {name}\n", mode=0o644)
    except SecretFile:
        path.unlink()
        raise
    return public


def public_half(path: Path) -> str:
    """The public half of a secret key's file. Raises: SecretFile."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, *_UNREADABLE):
        raise SecretFile(f"'{path}' holds no key that Flower could read.", fix="Make a new one: fedward site init --mailbox.") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, _CURVE):
        raise SecretFile(f"'{path}' is not a P-384 key.", fix="Make a new one: fedward site init --mailbox.")
    return _public_of(key)


def read_public(path: Path) -> str:
    """A mailbox's public key from its file, without the remark. Raises: RosterKey."""
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_FILE).decode("ascii", errors="replace")
    except OSError as error:
        raise RosterKey(f"'{path}' cannot be read ({error.strerror}).", fix=f"Name the mailbox's {PUBLIC_FILE}.") from None
    return check_public(text)


def check_public(text: str) -> str:
    """The key in one line of OpenSSH's, in its one spelling. Raises: RosterKey for anything but a point on P-384."""
    found = _PUBLIC.fullmatch(text)
    try:
        if not found:
            raise ValueError("another form")
        key = serialization.load_ssh_public_key(found[1].encode())
    except _UNREADABLE:
        key = None
    if not found or not isinstance(key, ec.EllipticCurvePublicKey) or _line_of(key) != found[1]:
        raise RosterKey("the mailbox's public key is not a P-384 key as OpenSSH writes it.", fix=f"Give the mailbox's {PUBLIC_FILE}.")
    return found[1]


def as_pem(public: str) -> bytes:
    """The same key in the form in which a SuperLink keeps and compares it. `public` is what `check_public` gave."""
    key = serialization.load_ssh_public_key(public.encode())
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public_of(key: ec.EllipticCurvePrivateKey) -> str:
    return _line_of(key.public_key())


def _line_of(key: ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()

# SPDX-License-Identifier: Apache-2.0
"""Who somebody is in a federation, as three files in a folder of theirs.

    identity.key    the private half of an Ed25519 key, 64 hex digits, readable by its owner alone
    roster.txt      who takes part, signed by the consortium's root
    root.pub        the consortium's root keys, one of 64 hex digits a line

Site and coordinator keep them alike, and each checks the roster's signature whenever it opens the folder. The private half of the root
is in none of them. What this does not do: protect a key from whoever administers the machine.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common import roster
from common.durable import OWNER_ONLY, read_secret, write_atomically
from common.errors import DataNotFound, SecretFile
from common.roster import Roots, Roster
from common.secagg.keys import SigningKey

KEY_FILE: Final = "identity.key"
ROSTER_FILE: Final = "roster.txt"
ROOT_FILE: Final = "root.pub"
_KEY_SIZE: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A key of one's own and the roster that names it."""

    signer: SigningKey
    roster: Roster


def load(folder: Path) -> Credentials:
    """Raises: SecretFile, DataNotFound, RosterError."""
    return Credentials(signer=_signer(folder / KEY_FILE), roster=load_roster(folder))


def load_roster(folder: Path) -> Roster:
    """Raises: DataNotFound, RosterError."""
    try:
        signed, roots = (folder / ROSTER_FILE).read_bytes(), (folder / ROOT_FILE).read_text(encoding="ascii")
    except OSError as error:
        raise DataNotFound(
            f"'{error.filename}' cannot be read: {error.strerror}.", fix="Put the consortium's roster.txt and root.pub into that folder."
        ) from error
    return roster.verify(signed, roots=Roots(keys=frozenset(bytes.fromhex(line) for line in roots.split())))


def save(folder: Path, *, signer: SigningKey, signed_roster: bytes, roots: Roots) -> None:
    """Raises: DiskFull."""
    write_atomically(folder / KEY_FILE, signer.seed.hex().encode() + b"\n", fsync=True, mode=OWNER_ONLY)
    write_atomically(folder / ROSTER_FILE, signed_roster, fsync=True)
    write_atomically(folder / ROOT_FILE, "".join(f"{key.hex()}\n" for key in sorted(roots.keys)).encode(), fsync=True)


def _signer(path: Path) -> SigningKey:
    try:
        seed = bytes.fromhex(read_secret(path).decode("ascii").strip())
    except ValueError:
        seed = b""
    if len(seed) != _KEY_SIZE:
        raise SecretFile(f"secret file '{path}' is not a key of {2 * _KEY_SIZE} hex digits.", fix="Restore it, or enrol again.")
    return SigningKey(seed)

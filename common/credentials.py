# SPDX-License-Identifier: Apache-2.0
"""Who somebody is in a federation, as files in a folder of theirs.

    identity.key    a key of one's own (`common.keyfile`), readable by its owner alone
    roster          who takes part, signed by the consortium's roots
    roots           the root keys, and how many must have signed

Site and coordinator keep them alike, and each verifies the roster whenever it opens the folder. No private half of a root lies here.
What this does not do: protect a key from whoever administers the machine.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from common import keyfile, roster
from common.durable import write_atomically
from common.errors import RosterNotFound
from common.keyfile import Role
from common.roster import Roots, Roster
from common.secagg.keys import SigningKey

KEY_FILE: Final = "identity.key"
ROSTER_FILE: Final = "roster"
ROOTS_FILE: Final = "roots"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A key of one's own and the roster that names it."""

    signer: SigningKey
    roster: Roster


def load(folder: Path, role: Role) -> Credentials:
    """Raises: SecretFile, RosterError."""
    return Credentials(signer=keyfile.load(folder / KEY_FILE, role), roster=load_roster(folder))


def load_roster(folder: Path) -> Roster:
    """Raises: RosterError."""
    try:
        signed, roots = (folder / ROSTER_FILE).read_bytes(), (folder / ROOTS_FILE).read_bytes()
    except OSError as error:
        raise RosterNotFound(
            f"'{error.filename}' cannot be read: {error.strerror}.", fix="Put the consortium's roster and roots into that folder."
        ) from error
    return _verified(signed, roots)


@lru_cache(maxsize=256)
def _verified(signed: bytes, roots: bytes) -> Roster:
    """The same bytes hold or fail the same; files are read anew each time."""
    return roster.verify(signed, roots=roster.parse_roots(roots))


def save(folder: Path, role: Role, *, signer: SigningKey, signed_roster: bytes, roots: Roots) -> None:
    """Raises: SecretFile where there is a key already, DiskFull."""
    keyfile.create(folder / KEY_FILE, role, entropy=lambda _: signer.seed)
    write_atomically(folder / ROSTER_FILE, signed_roster, fsync=False)
    write_atomically(folder / ROOTS_FILE, roster.render_roots(roots), fsync=False)

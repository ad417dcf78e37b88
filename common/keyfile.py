# SPDX-License-Identifier: Apache-2.0
"""Signing keys on disk: a secret half that its owner alone can read, and a public half to give away.

    root.key   fedward-key 1                      root.pub   fedward-public-key 1 root 9a0b...
               role root
               public 9a0b...
               seed 77de...

A key has one role. The root signs rosters and stays offline; the coordinator signs what it says to sites; a site signs what it says to
the coordinator. A key of one role is refused where another is asked for, so that nobody signs a roster with the key of the machine that
rosters protect against. The secret half is made with mode 0600, is never overwritten, and is not read if others could have read it.

Coordinator, site and custodian load their keys here, since none of them may import another. What this does not do: encrypt the file. A
root key belongs on a medium that lies in a drawer.
"""

import os
import re
import stat
from pathlib import Path
from typing import Final, Literal

from common.errors import DiskFull, RosterKey, RosterNotFound, SecretFile
from common.secagg.keys import SigningKey
from common.secagg.shamir import Entropy

Role = Literal["root", "coordinator", "site"]

_TITLE: Final = "fedward-key 1"
_PUBLIC_TITLE: Final = "fedward-public-key 1"
_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_LARGEST_FILE: Final = 1024


def create(path: Path, role: Role, *, entropy: Entropy = os.urandom) -> SigningKey:
    """Make a key: the secret half at `path` (0600), the public half beside it with the ending `.pub`.

    Raises: SecretFile where either is there already or cannot be made, DiskFull. Then there is neither.
    """
    key, beside = SigningKey(entropy(32)), public_path(path)
    write_new(path, f"{_TITLE}\nrole {role}\npublic {key.public.hex()}\nseed {key.seed.hex()}\n", mode=0o600)
    try:
        write_new(beside, f"{_PUBLIC_TITLE} {role} {key.public.hex()}\n", mode=0o644)
    except (SecretFile, DiskFull):
        path.unlink()
        raise
    return key


def public_path(path: Path) -> Path:
    """Where the public half of a key lies: north.key, north.pub."""
    return path.with_suffix(".pub") if path.suffix == ".key" else path.with_name(path.name + ".pub")


def load(path: Path, role: Role) -> SigningKey:
    """The key in a file.

    Raises: SecretFile where others can read it, or it is a link, another's, damaged, or of another role.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _refusal(
            path, f"cannot be opened ({error.strerror})", "Name the file itself, not a link, and look whether it is there."
        ) from None
    try:
        _check_private(path, os.fstat(descriptor))
        return _parse(path, os.read(descriptor, _LARGEST_FILE), role)
    finally:
        os.close(descriptor)


def public_key(given: str, role: Role) -> bytes:
    """A public key as somebody gave it: 64 hexadecimal digits, or a `.pub` file of the right role.

    Raises: RosterKey for anything else, RosterNotFound where there is no such file.
    """
    if _HEX_KEY.fullmatch(given):
        return bytes.fromhex(given)
    try:
        with Path(given).open("rb") as file:
            text = file.read(_LARGEST_FILE).decode("ascii", errors="replace")
    except OSError as error:
        raise RosterNotFound(
            f"'{given}' is neither 64 hexadecimal digits nor a file that can be read ({error.strerror}).",
            fix="Give the public key's file, which ends in .pub, or its digits.",
        ) from None
    if text.startswith(_TITLE):
        raise RosterKey(
            f"'{given}' is a secret key.", fix=f"Give the public half: '{public_path(Path(given))}'. The secret half goes nowhere."
        )
    found = re.fullmatch(rf"{_PUBLIC_TITLE} (root|coordinator|site) ([0-9a-f]{{64}})\n", text)
    if not found:
        raise RosterKey(f"'{given}' holds no public key.", fix="Ask for the file again: it ends in .pub and has one line.")
    if found[1] != role:
        raise RosterKey(f"'{given}' is the public key of a {found[1]}, a {role}'s is needed.", fix=f"Ask for the {role}'s file.")
    return bytes.fromhex(found[2])


def _parse(path: Path, data: bytes, role: Role) -> SigningKey:
    found = re.fullmatch(rf"{_TITLE}\nrole (root|coordinator|site)\npublic ([0-9a-f]{{64}})\nseed ([0-9a-f]{{64}})\n".encode(), data)
    if not found or SigningKey(bytes.fromhex(found[3].decode())).public.hex().encode() != found[2]:
        raise _refusal(
            path, "is damaged, or no key of fedward's", "Restore it from its backup; where there is none, its owner needs a new key."
        )
    if found[1].decode() != role:
        raise _refusal(path, f"is a {found[1].decode()}'s key, a {role}'s is needed", f"Name the {role}'s key.")
    return SigningKey(bytes.fromhex(found[3].decode()))


def write_new(path: Path, text: str, *, mode: int) -> None:
    """A key's file, whole and on the disk, where there is none. Raises: SecretFile where there is one, DiskFull."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError:
        raise _refusal(path, "exists already, and a key is never overwritten", "Choose another name.") from None
    except OSError as error:
        raise _refusal(path, f"cannot be made ({error.strerror})", "Look at the folder: is it there, and may you write in it?") from None
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        path.unlink()
        raise DiskFull(f"key file '{path}' could not be written ({error.strerror}); no key was made.", fix="Free some space.") from None


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(path, "is not a regular file", "Name the key's file.")
    if status.st_mode & 0o077:
        fix = (
            f"Run: chmod 600 '{path}'. On a stick that keeps no permissions, mount it with umask=077. If others were about, make a new key."
        )
        raise _refusal(path, f"has mode {stat.S_IMODE(status.st_mode):04o}, 0600 expected", fix)
    if status.st_uid != os.geteuid():
        raise _refusal(path, f"belongs to user {status.st_uid}, not {os.geteuid()}", "Run as its owner, or restore the owner.")


def _refusal(path: Path, found: str, fix: str) -> SecretFile:
    return SecretFile(f"key file '{path}' {found}.", fix=fix)

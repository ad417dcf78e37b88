# SPDX-License-Identifier: Apache-2.0
"""A hospital's beginning: the folders and keys of its two processes, and the request to be enrolled.

    home       of the site process: site.toml, policy.toml, identity.key, patient.key        its own user, 0700, no network
    mailbox    of the carrier: mailbox.toml, node.key; later ca.crt                          another user, 0700

Every key is made here and stays here; what is given away is the request, a text of a dozen lines (common/enrolment.py). Whatever is there
already is left as it is, so that a second run mends what a first one could not finish and never costs a key.

Two users, because the mailbox is on the network and the site process reads pixels: who takes the first must not hold the second's
identity. The home keeps a copy of the mailbox's public key, so that the request can be written without looking into the other folder.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client import policy
from client.home import PATIENT_KEY_FILE, SITE_FILE, read_site_file
from client.imaging import identity
from client.membership import rosters as membership
from client.membership import rotation
from client.policy import POLICY_FILE
from common import credentials, enrolment, keyfile, transport_key
from common.durable import OWNER_ONLY, write_atomically
from common.enrolment import Kind, Leave, Request
from common.errors import DiskFull, EnrolmentRefused, RosterTaken
from common.roster import check_name
from common.secagg.keys import SigningKey

MAILBOX_FILE: Final = "mailbox.toml"
AUTHORITY_FILE: Final = "ca.crt"
SOCKET: Final = "/run/fedward/site.sock"

_SITE: Final = """\
# What this site is. Read by the site process alone; nothing of it leaves but the name.

[site]
name = "{name}"

[data]
namespace = "{name}"        # whose patients these are: the same for every export of the same patients, for ever
dataset = "main"
# root = "/data/images"     # the folder of images to prepare from, mounted read-only
# labels = "/data/labels.csv"

[training]
# device = "cuda"           # this GPU or nothing; "cpu": never one. Without the line: a GPU where PyTorch sees one, else the processor

[ledger]
# head = "/other/mount/ledger.head"   # where the ledger's seal is written: best a mount that is not restored with this one

[serve]
socket = "{socket}"         # where the mailbox reaches this process: a folder 0750 of a group that the two users share
# group = "fedward-door"    # that group, where it is not the folder's own
"""
_MAILBOX: Final = """\
# Where the mailbox connects to, and where it brings what it gets. It holds no key of the site's and no patient's data.

[superlink]
address = "{address}"       # as the coordinator says: name and port
root_certificates = "{authority}"   # the authority that signed the coordinator's certificate; ask the coordinator for it

[site]
socket = "{socket}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A file of a beginning, what it is for, and whether it was made now or was there."""

    path: Path
    what: str
    new: bool


def begin_site(home: Path, *, name: str, socket: str = SOCKET) -> list[Made]:
    """Everything that a site process needs before it is enrolled, where it is missing.

    Raises: RosterFormat for a name that no roster can hold, RosterTaken for a home of another site, SecretFile, DiskFull.
    """
    check_name(name)
    if (home / SITE_FILE).exists() and (known := name_of(home)) != name:
        raise RosterTaken(f"'{home}' is the home of site '{known}'.", fix="Choose another folder, or that name.")
    _make_folder(home)
    return [
        _once(home / credentials.KEY_FILE, "the site's identity", lambda path: keyfile.create(path, "site")),
        _once(home / PATIENT_KEY_FILE, "turns patients' numbers into keys", identity.load_or_create),
        _once(home / SITE_FILE, "what this site is: edit [data]", _writer(_SITE.format(name=name, socket=socket))),
        _once(home / POLICY_FILE, "what it allows: read it, edit it", _writer(policy.TEMPLATE)),
    ]


def begin_mailbox(folder: Path, *, name: str, address: str, socket: str = SOCKET) -> list[Made]:
    """Everything that a mailbox needs but the coordinator's authority, where it is missing. Raises: RosterFormat, SecretFile, DiskFull."""
    check_name(name)
    _make_folder(folder)
    text = _MAILBOX.format(address=address, authority=AUTHORITY_FILE, socket=socket)
    return [
        _once(
            folder / transport_key.KEY_FILE,
            "by which the coordinator's SuperLink knows it",
            lambda path: transport_key.create(path, name=name),
        ),
        _once(folder / MAILBOX_FILE, "where it connects to: edit it", _writer(text)),
    ]


@contextmanager
def for_its_owner_alone() -> Iterator[None]:
    """What is written meanwhile, public halves of keys too, nobody else can read."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def name_of(home: Path) -> str:
    """The site's name. Raises: DataNotFound, PlanError."""
    return read_site_file(home).site.name


def note_mailbox(home: Path, public: str) -> None:
    """Keep the mailbox's public key where the request is written."""
    write_atomically(home / transport_key.PUBLIC_FILE, f"{public}\n".encode(), fsync=True, mode=OWNER_ONLY)


def kind_of(home: Path) -> Kind:
    """What this site can ask for, as the roster in force here has it. Raises: RosterError, SecretFile."""
    held = membership.in_force(home)
    member = held.find(name_of(home)) if held else None
    if member is None:
        return "join"
    return "renew" if member.public_key == keyfile.load(home / credentials.KEY_FILE, "site").public else "recover"


def request(home: Path, kind: Kind, *, now: int, weight: int = 1, days: int = 365) -> tuple[Request, bytes]:
    """What to hand to the custodian, signed. A rotation makes the next key, if there is none yet.

    Raises: EnrolmentRefused for a join without the mailbox's key; SecretFile, RosterKey, DataNotFound, DiskFull.
    """
    previous, key = _keys(home, rotates=kind == "rotate")
    file = home / transport_key.PUBLIC_FILE
    mailbox = transport_key.read_public(file) if file.exists() else None
    if mailbox is None and kind == "join":
        raise EnrolmentRefused(
            f"'{home}' does not know its mailbox's public key.",
            fix="Make one, or name the file: fedward site enrol --mailbox-key node.pub.",
        )
    name = name_of(home)
    asked = Request(kind=kind, site=name, key=key.public, mailbox=mailbox, weight=weight, days=days, made=now)
    return asked, enrolment.sign(asked, key, previous=previous)


def statement_of_leaving(home: Path, *, now: int) -> bytes:
    """Raises: SecretFile, DataNotFound."""
    key = keyfile.load(home / credentials.KEY_FILE, "site")
    return enrolment.sign_leave(Leave(site=name_of(home), key=key.public, made=now), key)


def _keys(home: Path, *, rotates: bool) -> tuple[SigningKey | None, SigningKey]:
    if rotates:
        return rotation.begin(home)
    return None, keyfile.load(home / credentials.KEY_FILE, "site")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise DiskFull(
            f"'{folder}' cannot be made ({error.strerror}).", fix="Choose a folder that is yours, or run as its owner."
        ) from None


def _once(path: Path, what: str, make: Callable[[Path], object]) -> Made:
    """A link in a file's place counts as the file: whether it may be one, its reader decides."""
    there = os.path.lexists(path)
    if not there:
        make(path)
    return Made(path=path, what=what, new=not there)


def _writer(text: str) -> Callable[[Path], None]:
    return lambda path: write_atomically(path, text.encode(), fsync=True, mode=OWNER_ONLY)

# SPDX-License-Identifier: Apache-2.0
"""From a site's request to an entry in the draft: what the custodian may take on the strength of a file, and what takes a telephone.

    join      a name that nobody has, a key that nobody has
    renew     the same key, for longer, or with a new key for the mailbox
    rotate    another key; the one that the roster names has consented
    recover   another key, without consent: the old one is lost or stolen. Only the telephone says that this is still the same hospital

Whatever the file says, the six words are read over the telephone before a root signs: a proof shows that whoever asks holds the key, not
who it is. The mailbox's key goes to nodes/, for the coordinator; it is no part of the roster, since it opens the transport and no more.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common import enrolment, transport_key
from common.durable import write_atomically
from common.enrolment import Leave, Request
from common.errors import EnrolmentRefused, NodeKey, RosterNotFound, RosterTaken, UnknownPeer
from common.roster import Member, Roster
from server.membership.roster_folder import RosterFolder, read

NODES_FOLDER: Final = "nodes"
_DAY_S: Final = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """A draft with a site in it, and where its mailbox's key was put."""

    draft: Roster
    member: Member
    node_key: Path | None


def read_request(file: Path, *, now: int) -> Request:
    """Raises: EnrolmentRefused, RosterNotFound, RosterKey."""
    if not file.is_file():
        raise RosterNotFound(
            f"'{file}' is no file of a request.", fix="Name what fedward site enrol wrote, such as north.request; or give a name and a key."
        )
    return enrolment.read(read(file), now=now)


def check(request: Request, base: Roster) -> None:
    """Whether this roster's next draft may say what a site asks for. Raises: RosterTaken, UnknownPeer, EnrolmentRefused."""
    member = base.find(request.site)
    if request.kind == "join":
        if member is not None:
            state, key = "revoked" if member.revoked else "there", "this" if member.public_key == request.key else "another"
            raise RosterTaken(
                f"a site '{request.site}' is {state} in roster epoch {base.epoch} already, under {key} key.",
                fix="Choose another name; or, if this is that hospital: fedward site enrol or recover, with its roster in place.",
            )
        return
    if member is None:
        raise UnknownPeer(
            f"site '{request.site}' is not in roster epoch {base.epoch}; it asks to {request.kind}.", fix="Let it join first."
        )
    if (complaint := _complaint(request, member)) is not None:
        raise EnrolmentRefused(
            f"the request of site '{request.site}' {complaint}.", fix="Telephone the site: what does it want, and with which key?"
        )


def enrol(folder: RosterFolder, request: Request, *, now: int) -> Enrolled:
    """Draft the roster with what a site asks for, and put its mailbox's key where the coordinator finds it.

    Raises: as `check`; RosterKey for a key of somebody else's, NodeKey for a mailbox's, RosterNotFound, DiskFull.
    """
    check(request, folder.newest())
    node_key = folder.path / NODES_FOLDER / f"{request.site}.pub"
    if request.mailbox is not None:
        _check_mailbox(request, node_key)
    member = Member(
        site_id=request.site, public_key=request.key, not_before=now, not_after=now + request.days * _DAY_S, weight=request.weight
    )
    draft = folder.add(member, replace=request.kind != "join", now=now)
    if request.mailbox is not None:
        node_key.parent.mkdir(exist_ok=True)
        write_atomically(node_key, f"{request.mailbox} {request.site}\n".encode(), fsync=True)
    return Enrolled(draft=draft, member=member, node_key=node_key if request.mailbox else None)


def read_leave(file: Path, base: Roster, *, now: int) -> Leave:
    """A statement by which a site of this roster goes. Raises: EnrolmentRefused, UnknownPeer, RosterNotFound."""
    leave = enrolment.read_leave(read(file), now=now)
    member = base.find(leave.site)
    if member is None:
        raise UnknownPeer(f"site '{leave.site}' is not in roster epoch {base.epoch}.", fix="Check the name: fedward roster check.")
    if member.public_key != leave.key:
        raise EnrolmentRefused(
            f"the statement of site '{leave.site}' is signed by another key than the roster's.", fix="Ask the site by telephone."
        )
    return leave


def _complaint(request: Request, member: Member) -> str | None:
    same = request.key == member.public_key
    if request.kind != "recover" and member.revoked:
        return f"asks to {request.kind}, and it is revoked"
    if request.kind == "renew" and not same:
        return "asks for more time under another key than the roster's"
    if request.kind == "rotate" and request.previous != member.public_key:
        return "carries the consent of another key than the roster's"
    return "names the key that the roster has for it already" if request.kind != "renew" and same else None


def _check_mailbox(request: Request, node_key: Path) -> None:
    for file in sorted(node_key.parent.glob("*.pub")):
        if file != node_key and transport_key.read_public(file) == request.mailbox:
            raise NodeKey(
                f"the mailbox's key of site '{request.site}' is that of '{file.stem}' too.",
                fix="Each mailbox makes a key of its own: ask the site.",
            )

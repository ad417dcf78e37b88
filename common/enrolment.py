# SPDX-License-Identifier: Apache-2.0
"""What a hospital hands to the custodian of the roster: one small text file, signed by the key that it asks for.

    fedward-enrolment 1
    kind join                       a new site; or renew, rotate, recover
    site north
    key 9a0b...                     the Ed25519 identity that the roster is to name
    previous -                      rotate: the identity that it replaces, which consents below
    mailbox ecdsa-sha2-nistp384 AAAA...     by which the SuperLink knows the mailbox; - where it stays as it is
    weight 1                        the public band: how much its update counts
    days 365                        how long the entry is wished to hold
    made 2026-11-27T09:00:00Z
    proof 77de...                   by `key` over all of the above: whoever asks holds the secret half
    consent -                       by `previous` over the same

It is no secret and needs no safe way: the six words of `key` (common/fingerprint.py, 96 bits) are read over the telephone, on a number
that was known before, and `proof` ties everything else to that key. So a file whose key was exchanged has other words, and one in which
anything else was exchanged, the mailbox's key say, has a proof that does not hold. The same words stand in every roster, and every other
hospital sees them when it approves the site.

A request is good for thirty days, so that an old one in somebody's mail does not turn up again after a rotation. A rotation carries the
consent of the key that it replaces; one that was lost or stolen cannot give it, so `recover` goes by the telephone alone, and says so.

`fedward-leave 1` is the same for a site that goes: its name, its key, when, and a proof.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, cast, get_args

from common import canonical, roster, transport_key
from common.errors import EnrolmentRefused
from common.instant import instant, seconds
from common.roster import GRACE_S, MAX_WEIGHT
from common.secagg.keys import SigningKey, signature_holds

Kind = Literal["join", "renew", "rotate", "recover"]

VALID_S: Final = 30 * 24 * 3600
LARGEST_FILE: Final = 4096
LONGEST_DAYS: Final = 3660
TITLE: Final = "fedward-enrolment 1"
LEAVE_TITLE: Final = "fedward-leave 1"
_ABSENT: Final = "-"
_BODY: Final = ("kind", "site", "key", "previous", "mailbox", "weight", "days", "made")
_LEAVE_BODY: Final = ("site", "key", "made")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a site asks the roster to say of it. Keys are 32 bytes, `mailbox` is OpenSSH's spelling; `made` is in Unix seconds."""

    kind: Kind
    site: str
    key: bytes
    made: int
    previous: bytes | None = None
    mailbox: str | None = None
    weight: int = 1
    days: int = 365


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """A site's word that it goes."""

    site: str
    key: bytes
    made: int


def sign(request: Request, key: SigningKey, *, previous: SigningKey | None = None) -> bytes:
    """The file. The keys must be those that the request names."""
    asked = replace(request, key=key.public, previous=previous.public if previous else None)
    message = _message(TITLE, _body(asked))
    consent = previous.sign(message).hex() if previous else _ABSENT
    return f"{_body(asked)}proof {key.sign(message).hex()}\nconsent {consent}\n".encode()


def read(data: bytes, *, now: int) -> Request:
    """A request whose proof and consent hold and which is not too old; `now` is Unix seconds.

    Raises: EnrolmentRefused, RosterKey.
    """
    values = _values(data, TITLE, (*_BODY, "proof", "consent"), "request")
    try:
        request = _parse(values)
        body = _body(request)
        proof, consent = _bytes(values["proof"], 64), _bytes(values["consent"], 64)
    except (ValueError, OverflowError):
        raise _malformed("request") from None
    if f"{body}proof {proof.hex() if proof else _ABSENT}\nconsent {consent.hex() if consent else _ABSENT}\n".encode() != data:
        raise _malformed("request")
    message = _message(TITLE, body)
    if proof is None or not signature_holds(request.key, proof, message):
        raise EnrolmentRefused(
            f"the request of site '{request.site}' is not signed by the key that it asks for.",
            fix="It was altered on the way: have the site send its file again, as it is.",
        )
    if request.previous is not None and not (consent and signature_holds(request.previous, consent, message)):
        raise EnrolmentRefused(
            f"the request of site '{request.site}' lacks the consent of the key that it replaces.",
            fix="The site makes it with both keys: fedward site rotate. Where the old key is lost: fedward site recover.",
        )
    _check_age(request.made, now, f"the request of site '{request.site}'", "Have the site write a new one: fedward site enrol.")
    return request


def sign_leave(leave: Leave, key: SigningKey) -> bytes:
    """The statement's file."""
    body = _leave_body(replace(leave, key=key.public))
    return f"{body}proof {key.sign(_message(LEAVE_TITLE, body)).hex()}\n".encode()


def read_leave(data: bytes, *, now: int) -> Leave:
    """A statement whose proof holds: whether the key is the site's, only a roster knows. Raises: EnrolmentRefused."""
    values = _values(data, LEAVE_TITLE, (*_LEAVE_BODY, "proof"), "statement")
    try:
        leave = Leave(site=values["site"], key=_key(values["key"]), made=seconds(values["made"]))
        proof = _bytes(values["proof"], 64)
    except (ValueError, OverflowError):
        raise _malformed("statement") from None
    body = _leave_body(leave)
    if proof is None or not roster.is_name(leave.site) or f"{body}proof {proof.hex()}\n".encode() != data:
        raise _malformed("statement")
    if not signature_holds(leave.key, proof, _message(LEAVE_TITLE, body)):
        raise EnrolmentRefused(f"the statement of site '{leave.site}' is not signed by its key.", fix="Ask the site by telephone.")
    _check_age(leave.made, now, f"the statement of site '{leave.site}'", "Ask the site by telephone.")
    return leave


def _parse(values: dict[str, str]) -> Request:
    """Raises: ValueError."""
    if values["kind"] not in get_args(Kind) or not roster.is_name(values["site"]):
        raise ValueError("no kind, or no name")
    previous = _bytes(values["previous"], 32)
    if (values["kind"] == "rotate") != (previous is not None):
        raise ValueError("a rotation, and nothing else, replaces a key by its own consent")
    mailbox = None if values["mailbox"] == _ABSENT else transport_key.check_public(values["mailbox"])
    return Request(
        kind=cast(Kind, values["kind"]),
        site=values["site"],
        key=_key(values["key"]),
        previous=previous,
        mailbox=mailbox,
        weight=_number(values["weight"], MAX_WEIGHT),
        days=_number(values["days"], LONGEST_DAYS),
        made=seconds(values["made"]),
    )


def _body(request: Request) -> str:
    lines = {
        "kind": request.kind,
        "site": request.site,
        "key": request.key.hex(),
        "previous": request.previous.hex() if request.previous else _ABSENT,
        "mailbox": request.mailbox or _ABSENT,
        "weight": str(request.weight),
        "days": str(request.days),
        "made": instant(request.made),
    }
    return f"{TITLE}\n" + "".join(f"{name} {lines[name]}\n" for name in _BODY)


def _leave_body(leave: Leave) -> str:
    return f"{LEAVE_TITLE}\nsite {leave.site}\nkey {leave.key.hex()}\nmade {instant(leave.made)}\n"


def _message(title: str, body: str) -> bytes:
    return canonical.digest(title.encode(), body.encode())


def _values(data: bytes, title: str, names: Sequence[str], what: str) -> dict[str, str]:
    """The lines of a file by their names, which come in this order and no other."""
    lines = data[: LARGEST_FILE + 1].decode("ascii", errors="replace").splitlines()
    found = [line.partition(" ") for line in lines[1:]]
    if len(data) > LARGEST_FILE or lines[:1] != [title] or [name for name, _, _ in found] != list(names):
        raise _malformed(what)
    return {name: value for name, _, value in found}


def _key(text: str) -> bytes:
    found = _bytes(text, 32)
    if found is None:
        raise ValueError("a key is missing")
    return found


def _bytes(text: str, size: int) -> bytes | None:
    if text == _ABSENT:
        return None
    if len(text) != 2 * size:
        raise ValueError("another length")
    return bytes.fromhex(text)


def _number(text: str, most: int) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise ValueError("out of range")
    return int(text)


def _check_age(made: int, now: int, what: str, fix: str) -> None:
    if not now - VALID_S - GRACE_S <= made <= now + GRACE_S:
        raise EnrolmentRefused(f"{what} is of {instant(made)}, the clock here says {instant(now)}; it is good for thirty days.", fix=fix)


def _malformed(what: str) -> EnrolmentRefused:
    return EnrolmentRefused(f"the {what} is not in its canonical form.", fix="Use the file as the site wrote it; it is not edited by hand.")

# SPDX-License-Identifier: Apache-2.0
"""Who takes part, as this site sees it: which roster is in force here, which one waits, and who decides.

    a roster -> signed by the pinned roots? newer? my name, my key? -> what it changes -> policy: in force at once | incoming/, for a person

A roster that enough root keys signed is the consortium's; whether it is this hospital's too is decided here. By the strict defaults it
takes revocations and renewals at once and asks its operator about everybody who is new (`[roster]` in policy.toml). Epochs only grow.

While a newer roster waits for the operator, rounds go on under the one in force, so that one hospital's holidays hold up nobody's work: a
hospital that is not approved here is merely not in this site's cohorts. With one exception. If the one that waits takes trust from
somebody whom the one in force trusts (revoked, removed, another key, another coordinator), this site takes no part in anything until it is
decided on (RosterPending): it has seen that the consortium distrusts a party, and must neither share a round with it nor believe it. A
revocation alone never waits, unless the hospital's own policy says "ask".

A site believes nobody about its own key: a roster that gives its name another key than it holds is refused whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from client import policy
from client.home import read_site_file
from client.membership import rotation
from client.membership.approval import pinned_roots
from client.policy import RosterRules
from common import credentials, keyfile, roster
from common.durable import OWNER_ONLY, folder_locked, write_atomically
from common.errors import RosterError, RosterKey, RosterPending
from common.roster import Changes, Roster

INCOMING_FOLDER: Final = "incoming"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A roster that could come into force here, against the one that is. `asks`: why a person must decide; empty, if nobody need."""

    data: bytes
    roster: Roster
    held: Roster | None
    changes: Changes
    asks: tuple[str, ...]

    @property
    def is_news(self) -> bool:
        return self.held is None or self.held.epoch < self.roster.epoch


def in_force(home: Path) -> Roster | None:
    """The roster that rounds are held to here; None before the first. Raises: RosterError."""
    return credentials.load_roster(home) if (home / credentials.ROSTER_FILE).exists() else None


def waiting(home: Path) -> Proposal | None:
    """The newer roster that waits for this site's operator. Raises: RosterError."""
    file = home / INCOMING_FOLDER / credentials.ROSTER_FILE
    if not file.exists():
        return None
    found = _compared(home, file.read_bytes())
    return found if found.is_news else None


def check_in_force(home: Path) -> None:
    """Whether this site may take part in rounds under its roster. Raises: RosterPending, RosterError."""
    found = waiting(home)
    if found is not None and rests(home, found):
        raise RosterPending(
            f"roster epoch {found.roster.epoch} takes trust from {_whom(found.changes)}, and is not approved here; "
            f"no round is answered under epoch {found.held.epoch if found.held else 0}.",
            fix="Look at it and decide: fedward site approve.",
        )


def rests(home: Path, newer: Proposal) -> bool:
    """Whether a roster that waits takes trust from anybody; a new key of this site's own is one that it asked for."""
    own = read_site_file(home).site.name
    others = tuple(site for site in newer.changes.rekeyed if site != own)
    return replace(newer.changes, rekeyed=others).takes_trust


def examine(home: Path, data: bytes, *, now: int) -> Proposal:
    """A roster that may be approved here; nothing is changed. `now` is Unix seconds.

    Raises: RosterFormat, RosterSignature, RosterChanged for one that goes back, RosterExpired, RosterKey for one that gives this site's
    name another key.
    """
    found = _compared(home, data)
    roster.check_valid(found.roster, now=now)
    roster.check_successor(found.roster, held=found.held)
    if (other := _readable(home)) is not None:
        roster.check_successor(found.roster, held=other.roster)
    _check_own_key(home, found.roster)
    return found


def take_in(home: Path, data: bytes, *, now: int) -> Proposal:
    """A roster that arrived: in force at once where policy says so, else put beside for the operator. Raises: as `examine`; DiskFull."""
    with folder_locked(home):  # a command and messages may come at once: nothing older takes a newer one's place
        found = examine(home, data, now=now)
        if found.is_news and found.asks:
            folder = home / INCOMING_FOLDER
            folder.mkdir(mode=0o700, exist_ok=True)
            write_atomically(folder / credentials.ROSTER_FILE, data, fsync=True, mode=OWNER_ONLY)
        elif found.is_news:
            _put_in_force(home, found)
    return found


def adopt(home: Path, data: bytes, *, now: int) -> Proposal:
    """Put a roster in force, by policy or because a person said yes; a new key of this site's own that it names comes into use.

    May be repeated after a crash. Raises: as `examine`; DiskFull, and what the ledger raises.
    """
    with folder_locked(home):  # a command and messages may come at once: nothing older takes a newer one's place
        found = examine(home, data, now=now)
        _put_in_force(home, found)
    return found


def _put_in_force(home: Path, found: Proposal) -> None:
    mine = found.roster.find(read_site_file(home).site.name)
    new = rotation.waiting_key(home)
    if mine is not None and new is not None and mine.public_key == new.public:
        rotation.finish(home)
    write_atomically(home / credentials.ROSTER_FILE, found.data, fsync=True, mode=OWNER_ONLY)
    if _readable(home) is None:
        (home / INCOMING_FOLDER / credentials.ROSTER_FILE).unlink(missing_ok=True)


def _readable(home: Path) -> Proposal | None:
    """The one that waits; one that is damaged is no reason to refuse its successor, and none to keep it."""
    try:
        return waiting(home)
    except RosterError:
        return None


def _compared(home: Path, data: bytes) -> Proposal:
    new, held = roster.verify(data, roots=pinned_roots(home)), in_force(home)
    everybody = Changes(added=tuple(member.site_id for member in new.members))
    changes = roster.changes(held, new) if held else everybody
    name = read_site_file(home).site.name
    asks = tuple(_asks(_rules(home), held, new, changes, name)) if held else ("it is the first roster here",)
    return Proposal(data=data, roster=new, held=held, changes=changes, asks=asks)


def _asks(rules: RosterRules, held: Roster, new: Roster, changes: Changes, name: str) -> Iterator[str]:
    """Every reason why a person must look."""
    if changes.coordinator_changed:
        yield "the coordinator has another key"
    newcomers = (*changes.added, *changes.reinstated)
    if newcomers and rules.additions == "ask":
        yield f"new: {', '.join(newcomers)}"
    others = tuple(site for site in dict.fromkeys((*changes.rekeyed, *changes.reweighted)) if site != name or site in changes.reweighted)
    if others and rules.changes == "ask":
        yield f"another key or weight: {', '.join(others)}"
    gone = (*changes.revoked, *changes.removed)
    if gone and rules.revocations == "ask":
        yield f"revoked or removed: {', '.join(gone)}"
    if rules.renewals == "ask" and (changes.renewed or new.not_after != held.not_after):
        yield "it is valid for longer, or its entries are"
    if (known := _known(held, new, name)) < rules.known_peers:
        yield f"{known} of its other sites were trusted here before, {rules.known_peers} are asked for"


def _known(held: Roster, new: Roster, name: str) -> int:
    """How many of the new roster's other sites are trusted under the same key in the one in force."""
    trusted = {(member.site_id, member.public_key) for member in held.members if not member.revoked}
    return sum((member.site_id, member.public_key) in trusted for member in new.members if not member.revoked and member.site_id != name)


def _rules(home: Path) -> RosterRules:
    return policy.load(home).roster if (home / policy.POLICY_FILE).exists() else RosterRules()


def _check_own_key(home: Path, new: Roster) -> None:
    name = read_site_file(home).site.name
    member = new.find(name)
    if member is None or member.revoked:
        return
    own = {keyfile.load(home / credentials.KEY_FILE, "site").public}
    own |= {key.public for key in (rotation.waiting_key(home),) if key is not None}
    if member.public_key not in own:
        raise RosterKey(
            f"roster epoch {new.epoch} gives site '{name}' a key that is not held here.",
            fix="Somebody else may have been enrolled under this name: telephone the custodian, compare the words of fedward site enrol.",
        )


def _whom(changes: Changes) -> str:
    sites = sorted({*changes.revoked, *changes.removed, *changes.rekeyed})
    return ", ".join([*(f"'{site}'" for site in sites), *(["the coordinator's old key"] if changes.coordinator_changed else [])])

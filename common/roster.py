# SPDX-License-Identifier: Apache-2.0
"""The roster: who takes part, in one file signed by the consortium's offline root.

It maps each site to its Ed25519 key, names the coordinator's key, and says until when it holds. Everyone checks every signature of a
round against it, so a coordinator cannot invent a hospital; the coordinator's own machine holds no root key. Enough root keys must have
signed (k of m plain signatures; one of one unless the plan says otherwise). Which root keys count is not in the file: it comes from the
plan that the site approved, or from a small file of roots that its operator compared by telephone once and keeps.

The file is text, so that a data-protection officer can read what changed, and still canonical: it parses only if writing the parsed
value gives the same bytes again. Versions are ordered by `epoch`, never by a clock; a lower epoch is refused, and so is another file of
the same epoch. The clock decides only validity, with a day of grace for clocks that are off.

    fedward-roster 1
    epoch 7
    valid 2026-11-01T00:00:00Z 2026-12-01T00:00:00Z
    coordinator 1f3c...
    site north 9a0b... 2026-06-01T00:00:00Z 2027-06-01T00:00:00Z active 1
    site south 77de... 2026-06-01T00:00:00Z 2027-06-01T00:00:00Z revoked 1
    signature 5b21... 04ff...
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common import canonical
from common.errors import MessageTooLarge, RosterChanged, RosterExpired, RosterFormat, RosterSignature, UnknownPeer

GRACE_S: Final = 24 * 3600
MAX_WEIGHT: Final = 2**16
LONGEST_VALIDITY_S: Final = 30 * 24 * 3600
"""A roster is signed anew every month, so that a revocation reaches even those who were offline within thirty days."""
_TITLE: Final = "fedward-roster 1"
_ROOTS_TITLE: Final = "fedward-roots 1"
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
NAME_PATTERN: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
_NAME: Final = re.compile(NAME_PATTERN, re.ASCII)
LARGEST_FILE: Final = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One site. `weight` is its declared public band, an integer up to 2^16: how much its update counts. Times are Unix seconds."""

    site_id: str
    public_key: bytes
    not_before: int
    not_after: int
    revoked: bool = False
    weight: int = 1


@dataclass(frozen=True, kw_only=True)
class Roster:
    """Who takes part. Members are sorted by name."""

    epoch: int
    not_before: int
    not_after: int
    coordinator: bytes
    members: tuple[Member, ...]

    @cached_property
    def digest(self) -> bytes:
        """What a round's tag binds: the signed bytes, without the signatures."""
        return canonical.digest(b"fedward roster 1", render(self))

    def find(self, site_id: str) -> Member | None:
        return self._by_name.get(site_id)

    @cached_property
    def _by_name(self) -> dict[str, Member]:
        return {member.site_id: member for member in self.members}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A root key's signature."""

    root: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """The consortium's root keys, as the plan pins them, and how many must have signed."""

    keys: frozenset[bytes]
    needed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What an operator approves when a roster replaces another: site names, each kind of change for itself."""

    added: tuple[str, ...] = ()
    reinstated: tuple[str, ...] = ()
    rekeyed: tuple[str, ...] = ()
    reweighted: tuple[str, ...] = ()
    renewed: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    coordinator_changed: bool = False

    @property
    def takes_trust(self) -> bool:
        """Whether somebody whom the old roster trusts is not to be trusted any more, or not under that key."""
        return bool(self.revoked or self.removed or self.rekeyed or self.coordinator_changed)


def render(roster: Roster) -> bytes:
    """The bytes that root keys sign. Raises: RosterFormat for a roster that could not be read back."""
    _validate(roster)
    lines = [
        _TITLE,
        f"epoch {roster.epoch}",
        f"valid {_time(roster.not_before)} {_time(roster.not_after)}",
        f"coordinator {roster.coordinator.hex()}",
        *(_render_member(member) for member in roster.members),
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def parse(data: bytes) -> tuple[Roster, tuple[Signature, ...]]:
    """A roster and its signatures, still unverified: only `verify` makes a roster worth anything.

    Raises: RosterFormat for anything but the canonical form, MessageTooLarge above 4 MiB.
    """
    if len(data) > LARGEST_FILE:
        raise MessageTooLarge(f"the roster has {len(data)} bytes, expected at most {LARGEST_FILE}.", fix="Fetch it again.")
    try:
        lines = data.decode("ascii").splitlines()
        signed = [line for line in lines if not line.startswith("signature ")]
        signatures = tuple(_parse_signature(line) for line in lines[len(signed) :])
        roster = _parse_body(signed)
    except (ValueError, IndexError, OverflowError):
        raise _malformed("it does not parse") from None
    if render_signed(roster, signatures) != data:
        raise _malformed("it is not in canonical form")
    return roster, signatures


def render_signed(roster: Roster, signatures: Iterable[Signature]) -> bytes:
    """The whole file; signatures sorted by root key, one for each."""
    by_root = {signature.root: signature for signature in signatures}
    lines = [f"signature {root.hex()} {by_root[root].value.hex()}\n" for root in sorted(by_root)]
    return render(roster) + "".join(lines).encode()


def sign(data: bytes, *, root_seed: bytes) -> bytes:
    """The file with one more signature. `root_seed` is the offline root's 32-byte Ed25519 seed."""
    roster, signatures = parse(data)
    key = Ed25519PrivateKey.from_private_bytes(root_seed)
    mine = Signature(root=key.public_key().public_bytes_raw(), value=key.sign(_signed_message(roster)))
    return render_signed(roster, (*signatures, mine))


def verify(data: bytes, *, roots: Roots) -> Roster:
    """The roster in a file that enough root keys signed.

    Raises: RosterFormat, MessageTooLarge, RosterSignature.
    """
    roster, _ = parse(data)
    valid = signed_by(data, roots=roots)
    if len(valid) < roots.needed:
        raise RosterSignature(
            f"roster epoch {roster.epoch} carries {len(valid)} valid root signatures, expected {roots.needed} of {len(roots.keys)}.",
            fix="Fetch the roster again; if it repeats, telephone the consortium's custodian.",
        )
    return roster


def signed_by(data: bytes, *, roots: Roots) -> frozenset[bytes]:
    """Which of the roots signed a file; what does not hold, or is of others, does not count. Raises: RosterFormat, MessageTooLarge."""
    roster, signatures = parse(data)
    message = _signed_message(roster)
    return frozenset(signature.root for signature in signatures if signature.root in roots.keys and _holds(signature, message))


def render_roots(roots: Roots) -> bytes:
    """The root keys as a file. Raises: RosterFormat for a number that these keys can never reach, or that none need reach."""
    if not 1 <= roots.needed <= len(roots.keys) or any(len(key) != 32 for key in roots.keys):
        raise RosterFormat(
            f"{roots.needed} of {len(roots.keys)} root signatures cannot be asked for.",
            fix="Ask for at least one, and at most one of each root key.",
        )
    lines = [_ROOTS_TITLE, f"needed {roots.needed}", *(f"root {key.hex()}" for key in sorted(roots.keys))]
    return "".join(f"{line}\n" for line in lines).encode()


def parse_roots(data: bytes) -> Roots:
    """The root keys in a file. Raises: RosterFormat for anything but the canonical form."""
    try:
        title, needed, *keys = data.decode("ascii").splitlines()
        roots = Roots(
            keys=frozenset(bytes.fromhex(_words(key, "root", 1)[0]) for key in keys),
            needed=int(_words(needed, "needed", 1)[0]),
        )
    except ValueError:
        raise _malformed_roots() from None
    if title != _ROOTS_TITLE or render_roots(roots) != data:
        raise _malformed_roots()
    return roots


def check_successor(new: Roster, *, held: Roster | None, minimum_epoch: int = 0) -> None:
    """Refuse to go back. Raises: RosterChanged for a lower epoch than the plan's or the held one's, or a second file of one epoch."""
    floor = max(minimum_epoch, held.epoch if held else 0)
    if new.epoch < floor:
        raise RosterChanged(f"roster epoch {new.epoch} is older than epoch {floor}, which is known here.", fix="Fetch the current roster.")
    if held and new.epoch == held.epoch and new.digest != held.digest:
        raise RosterChanged(
            f"two rosters of epoch {new.epoch} differ; only one can be the consortium's.",
            fix="Do not take part; tell the consortium's custodian, who must issue a new epoch.",
        )


def check_valid(roster: Roster, *, now: int) -> None:
    """Raises: RosterExpired outside the roster's validity, a day of grace included."""
    if not roster.not_before - GRACE_S <= now <= roster.not_after + GRACE_S:
        raise RosterExpired(
            f"roster epoch {roster.epoch} is valid {_time(roster.not_before)} to {_time(roster.not_after)}, the clock says {_time(now)}.",
            fix="Fetch the current roster, and check this machine's clock.",
        )


def active_member(roster: Roster, site_id: str, *, now: int) -> Member:
    """A member that may take part now. Raises: UnknownPeer if absent or revoked, RosterExpired outside its validity."""
    member = roster.find(site_id)
    if member is None or member.revoked:
        state = "revoked" if member else "not a member"
        raise UnknownPeer(f"site '{site_id[:64]}' is {state} in roster epoch {roster.epoch}.", fix="Enrol it first.")
    if not member.not_before - GRACE_S <= now <= member.not_after + GRACE_S:
        raise RosterExpired(
            f"site '{site_id}' is valid {_time(member.not_before)} to {_time(member.not_after)}, the clock here says {_time(now)}.",
            fix="Renew the site's entry in the roster.",
        )
    return member


def changes(old: Roster, new: Roster) -> Changes:
    """What differs, by site name, for the person who approves it."""
    before = {member.site_id: member for member in old.members}
    after = {member.site_id: member for member in new.members}
    both = [(before[name], after[name]) for name in sorted(before.keys() & after.keys())]

    def where(differs: Callable[[Member, Member], bool]) -> tuple[str, ...]:
        return tuple(was.site_id for was, now in both if differs(was, now))

    return Changes(
        added=tuple(sorted(after.keys() - before.keys())),
        reinstated=where(lambda was, now: was.revoked and not now.revoked),
        rekeyed=where(lambda was, now: was.public_key != now.public_key),
        reweighted=where(lambda was, now: was.weight != now.weight),
        renewed=where(lambda was, now: (was.not_before, was.not_after) != (now.not_before, now.not_after)),
        revoked=where(lambda was, now: now.revoked and not was.revoked),
        removed=tuple(sorted(before.keys() - after.keys())),
        coordinator_changed=old.coordinator != new.coordinator,
    )


def is_name(text: str) -> bool:
    """Whether a roster can hold it as a site's name."""
    return _NAME.fullmatch(text) is not None


def check_name(site_id: str) -> None:
    """Raises: RosterFormat for a name that no roster can hold."""
    if not is_name(site_id):
        raise RosterFormat(
            f"'{site_id[:64]}' cannot be a site's name.",
            fix="Use up to 64 lower-case letters, digits, dots, hyphens and underscores, a letter or digit first.",
        )


def with_member(roster: Roster, member: Member) -> Roster:
    """The next epoch, with a site added or its entry replaced; unsigned."""
    others = (other for other in roster.members if other.site_id != member.site_id)
    members = tuple(sorted((*others, member), key=lambda each: each.site_id))
    return replace(roster, epoch=roster.epoch + 1, members=members)


def next_epoch(roster: Roster) -> Roster:
    """The same roster under the next epoch; unsigned."""
    return replace(roster, epoch=roster.epoch + 1)


def renewed(roster: Roster, *, now: int) -> Roster:
    """The same roster for the longest time from `now` (Unix seconds); of the same epoch, unsigned."""
    return replace(roster, not_before=now, not_after=now + LONGEST_VALIDITY_S)


def with_revoked(roster: Roster, site_id: str) -> Roster:
    """The next epoch, with a site revoked; unsigned. Raises: UnknownPeer."""
    member = roster.find(site_id)
    if member is None:
        raise UnknownPeer(f"site '{site_id[:64]}' is not in roster epoch {roster.epoch}.", fix="Check the name: fedward roster check.")
    return with_member(roster, replace(member, revoked=True))


def _validate(roster: Roster) -> None:
    names = [member.site_id for member in roster.members]
    keys = [roster.coordinator, *(member.public_key for member in roster.members)]
    if names != sorted(set(names)):
        raise _malformed("its sites are not sorted, or one is named twice")
    if len(set(keys)) < len(keys):
        raise _malformed("two parties share one key")
    if not all(map(is_name, names)):
        raise _malformed("a site's name is not lower-case letters, digits, dots, hyphens and underscores")
    if not all(1 <= member.weight <= MAX_WEIGHT for member in roster.members):
        raise _malformed(f"a site's weight is not in 1..{MAX_WEIGHT}")
    if any(len(key) != 32 for key in keys) or not 0 <= roster.epoch < 2**63:
        raise _malformed("a key is not 32 bytes, or the epoch is out of range")


def _render_member(member: Member) -> str:
    state = "revoked" if member.revoked else "active"
    validity = f"{_time(member.not_before)} {_time(member.not_after)}"
    return f"site {member.site_id} {member.public_key.hex()} {validity} {state} {member.weight}"


def _parse_body(lines: list[str]) -> Roster:
    title, epoch, valid, coordinator, *sites = lines
    if title != _TITLE:
        raise _malformed(f"its first line is not '{_TITLE}'")
    return Roster(
        epoch=int(_words(epoch, "epoch", 1)[0]),
        not_before=_seconds(_words(valid, "valid", 2)[0]),
        not_after=_seconds(_words(valid, "valid", 2)[1]),
        coordinator=bytes.fromhex(_words(coordinator, "coordinator", 1)[0]),
        members=tuple(_parse_member(line) for line in sites),
    )


def _parse_member(line: str) -> Member:
    site_id, key, not_before, not_after, state, weight = _words(line, "site", 6)
    return Member(
        site_id=site_id,
        public_key=bytes.fromhex(key),
        not_before=_seconds(not_before),
        not_after=_seconds(not_after),
        revoked={"active": False, "revoked": True}.get(state, False),
        weight=int(weight),
    )


def _parse_signature(line: str) -> Signature:
    root, value = _words(line, "signature", 2)
    return Signature(root=bytes.fromhex(root), value=bytes.fromhex(value))


def _words(line: str, name: str, count: int) -> list[str]:
    first, *rest = line.split(" ")
    if first != name or len(rest) != count:
        raise _malformed(f"a line should read '{name}' and {count} words")
    return rest


def _signed_message(roster: Roster) -> bytes:
    return canonical.digest(b"fedward roster signature 1", render(roster))


def _holds(signature: Signature, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(signature.root).verify(signature.value, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(_TIME)


def _seconds(text: str) -> int:
    return int(datetime.strptime(text, _TIME).replace(tzinfo=UTC).timestamp())


def _malformed(complaint: str) -> RosterFormat:
    return RosterFormat(f"the roster is refused: {complaint}.", fix="Use the consortium's file as it is; edit only with fedward roster.")


def _malformed_roots() -> RosterFormat:
    return RosterFormat("the file of root keys is not in its canonical form.", fix="Use the file that fedward roster init wrote, as it is.")

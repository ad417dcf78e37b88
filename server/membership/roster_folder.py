# SPDX-License-Identifier: Apache-2.0
"""The folder in which a custodian keeps the roster: what is signed, what waits to be signed, and whose signatures count.

    roster         signed by enough roots; what coordinator and sites are given
    roster.draft   the next one, waiting for signatures
    roots          the root keys, and how many must sign

Every edit is a new epoch, so that two files of one epoch never differ, not even when a draft that one root has signed is edited again.
A draft that gathers enough signatures becomes the roster, in one rename. Root keys may be named from anywhere: they need not lie here,
and on the coordinator's machine they must not.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from common import roster
from common.durable import write_atomically
from common.errors import RosterKey, RosterNotFound, RosterSignature, RosterTaken
from common.roster import Member, Roots, Roster
from common.secagg.keys import SigningKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a roster's signing is."""

    roster: Roster
    signed_by: frozenset[bytes]
    needed: int

    @property
    def complete(self) -> bool:
        return len(self.signed_by) >= self.needed


@dataclass(frozen=True, slots=True)
class RosterFolder:
    """One consortium's roster on disk. Nothing is believed because it lies here: the signed roster is verified whenever it is read."""

    path: Path

    @property
    def held_file(self) -> Path:
        return self.path / "roster"

    @property
    def draft_file(self) -> Path:
        return self.path / "roster.draft"

    @property
    def roots_file(self) -> Path:
        return self.path / "roots"

    def found(self, roots: Roots, *, coordinator: bytes, now: int) -> Roster:
        """Begin: a draft without sites. Raises: RosterTaken, RosterFormat, RosterKey."""
        self.check_free()
        if coordinator in roots.keys:
            raise RosterKey("the coordinator's key is one of the roots.", fix="Make the coordinator a key of its own.")
        first = roster.renewed(Roster(epoch=1, not_before=now, not_after=now, coordinator=coordinator, members=()), now=now)
        body, keys = roster.render(first), roster.render_roots(roots)
        write_atomically(self.roots_file, keys, fsync=True)
        write_atomically(self.draft_file, body, fsync=True)
        return first

    def make(self) -> None:
        """The empty folder. Raises: RosterTaken where a file stands in its place or it cannot be made."""
        self.check_free()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RosterTaken(f"folder '{self.path}' cannot be made ({error.strerror}).", fix="Choose another folder.") from None

    def check_free(self) -> None:
        """Raises: RosterTaken where a consortium's files lie already."""
        for file in (self.held_file, self.draft_file, self.roots_file):
            if file.exists():
                raise RosterTaken(
                    f"'{self.path}' holds a roster already ('{file.name}').", fix="Choose another folder; nothing is overwritten."
                )

    def roots(self) -> Roots:
        return roster.parse_roots(read(self.roots_file))

    def held(self) -> Roster | None:
        """The signed roster, verified; None before the first is signed."""
        return roster.verify(read(self.held_file), roots=self.roots()) if self.held_file.exists() else None

    def draft(self) -> bytes | None:
        """The draft's file; None where there is none, or where it was signed and merely not yet cleared away."""
        if not self.draft_file.exists():
            return None
        data, held = read(self.draft_file), self.held()
        drafted, _ = roster.parse(data)
        return None if held and drafted.digest == held.digest else data

    def newest(self) -> Roster:
        """What the next edit builds on: the draft if there is one, else the signed roster. Raises: RosterNotFound."""
        draft, held = self.draft(), self.held()
        if draft is not None:
            return roster.parse(draft)[0]
        if held is None:
            raise self._nothing_here()
        return held

    def add(self, member: Member, *, replace: bool, now: int) -> Roster:
        """Draft a roster with one more site, or with another entry for it. Raises: RosterTaken, RosterFormat, RosterKey, RosterNotFound."""
        base = self.newest()
        roster.check_name(member.site_id)
        self._check_owner(base, member)
        if base.find(member.site_id) and not replace:
            raise RosterTaken(
                f"site '{member.site_id}' is in roster epoch {base.epoch} already.",
                fix="Give --replace if this is its new key or its renewal; else choose another name.",
            )
        return self._propose(roster.renewed(roster.with_member(base, member), now=now))

    def _check_owner(self, base: Roster, member: Member) -> None:
        """Raises: RosterKey where another party has this key."""
        owners = {base.coordinator: "the coordinator", **dict.fromkeys(self.roots().keys, "a root")}
        owners |= {other.public_key: f"site '{other.site_id}'" for other in base.members if other.site_id != member.site_id}
        if owner := owners.get(member.public_key):
            raise RosterKey(
                f"the key given for site '{member.site_id}' is that of {owner}.",
                fix="Each party has a key of its own: ask the site for its .pub file.",
            )

    def revoke(self, site_id: str, *, now: int) -> Roster:
        """Draft a roster without trust in a site. Raises: UnknownPeer, RosterNotFound."""
        return self._propose(roster.renewed(roster.with_revoked(self.newest(), site_id), now=now))

    def with_coordinator(self, key: bytes, *, now: int) -> Roster:
        """Draft a roster with another key of the coordinator's. Raises: RosterKey, RosterFormat, RosterNotFound."""
        base = self.newest()
        if key == base.coordinator or key in self.roots().keys or any(key == member.public_key for member in base.members):
            raise RosterKey("the key given is the coordinator's already, or another party's.", fix="Give the public half of its new key.")
        return self._propose(roster.renewed(replace(roster.next_epoch(base), coordinator=key), now=now))

    def renewal(self, *, now: int) -> bytes:
        """The signed roster for another month, to be signed: the same members, coordinator and weights. A draft that waits is none of it.

        Raises: RosterNotFound; RosterTaken where a draft waits, which somebody wrote who needs no key to write it.
        """
        held, draft = self.held(), self.draft()
        if draft is not None:
            raise RosterTaken(
                f"'{self.draft_file}' (epoch {roster.parse(draft)[0].epoch}) waits for signatures; to renew means to sign what is signed.",
                fix=f"Read it: fedward roster check '{self.draft_file}'. Then sign it without --renew, which lasts as long; or remove the"
                " file, if nobody wants it, and renew again.",
            )
        if held is None:
            raise self._nothing_here()
        return roster.render(roster.renewed(roster.next_epoch(held), now=now))

    def sign(self, draft: bytes, key: SigningKey, *, now: int) -> Progress:
        """Put one root's signature under a draft, these very bytes; with enough of them it becomes the roster.

        Raises: RosterSignature for a key that is no root, RosterChanged, RosterExpired, RosterFormat.
        """
        roots, (drafted, _) = self.roots(), roster.parse(draft)
        if key.public not in roots.keys:
            raise RosterSignature(
                "the key given is none of this consortium's roots.", fix=f"Sign with a key that '{self.roots_file}' names."
            )
        roster.check_successor(drafted, held=self.held())
        roster.check_valid(drafted, now=now)
        signed = roster.sign(draft, root_seed=key.seed)
        progress = progress_of(signed, roots)
        write_atomically(self.held_file if progress.complete else self.draft_file, signed, fsync=True)
        if progress.complete:
            self.draft_file.unlink(missing_ok=True)
        return progress

    def _nothing_here(self) -> RosterNotFound:
        return RosterNotFound(f"'{self.path}' holds no roster.", fix=f"Begin one: fedward roster init '{self.path}'.")

    def _propose(self, drafted: Roster) -> Roster:
        write_atomically(self.draft_file, roster.render(drafted), fsync=True)
        return drafted


def progress_of(data: bytes, roots: Roots) -> Progress:
    """Raises: RosterFormat, MessageTooLarge."""
    return Progress(roster=roster.parse(data)[0], signed_by=roster.signed_by(data, roots=roots), needed=roots.needed)


def read(file: Path) -> bytes:
    """Raises: RosterNotFound."""
    try:
        with file.open("rb") as opened:
            return opened.read(roster.LARGEST_FILE + 1)
    except OSError as error:
        raise RosterNotFound(
            f"'{file}' cannot be read ({error.strerror}).", fix="Name a folder that fedward roster init made, or a roster's file."
        ) from None

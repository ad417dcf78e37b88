# SPDX-License-Identifier: Apache-2.0
"""From bundles to parties: whose log is whole, signed by the key that a roster gives its owner, and about the same rosters and plans.

    bundles -> manifests, files, chains, signatures -> rosters that the roots signed -> keys -> Witness (a log that may be listened to)

A log that is broken is believed up to the line before the break: what stands there is still signed, and others may need it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from common import plan, roster
from common.audit import evidence
from common.audit.bundle import ROOTS, Bundle
from common.audit.chain import Chain, lines_of
from common.audit.entries import Entry, Fact, Opened, PlanFollowed, Rekeyed, Role, RosterAdopted
from common.audit.findings import Findings
from common.audit.log import LOG_FILE
from common.errors import AuditTampered, BundleFormat, FedwardError, PlanError, RosterError
from common.plan import Plan
from common.roster import Roots, Roster

T = TypeVar("T", bound=Fact)


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """One party and its log, as far as it holds."""

    name: str
    role: Role
    bundle: Bundle
    entries: tuple[Entry, ...]
    chain: Chain

    def facts(self, kind: type[T]) -> Iterator[tuple[int, T]]:
        """Line (from 0) and fact, of one kind."""
        for entry in self.entries:
            if isinstance(entry.fact, kind):
                yield entry.seq, entry.fact


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What the logs name by hash, as far as somebody has it."""

    roots: Roots | None
    rosters: Mapping[str, Roster]
    plans: Mapping[str, Plan]


def witnesses(paths: Sequence[Path], found: Findings) -> list[Witness]:
    """Open what was given; a party that comes twice counts once."""
    listed: dict[tuple[str, str], Witness] = {}
    for path in paths:
        try:
            each = _witness(Bundle(path), found)
        except BundleFormat as error:
            found.add("F_BUNDLE", path.name, error.message)
            continue
        known = listed.get((each.role, each.name))
        if known is not None and known.chain.digests != each.chain.digests:
            found.add("F_HEAD", each.name, f"two bundles of '{each.name}' have different logs.")
        listed.setdefault((each.role, each.name), each)
    return [listed[key] for key in sorted(listed)]


def archive(parties: Sequence[Witness], trusted: Roots | None, found: Findings) -> Archive:
    """Rosters and plans of all bundles together. Without roots of one's own, those of the bundles, if all have the same."""
    roots = trusted or _common_roots(parties, found)
    rosters: dict[str, Roster] = {}
    plans: dict[str, Plan] = {}
    for party in parties:
        for name, content in _files(party, found):
            kind, _, named = name.removeprefix(f"{evidence.FOLDER}/").partition("-")
            if kind == "plan":
                _take_plan(party, named.removesuffix(".toml"), content, plans, found)
            elif kind == "roster" and roots is not None:
                _take_roster(party, named, content, roots, rosters, found)
    return Archive(roots=roots, rosters=rosters, plans=plans)


def check_keys(party: Witness, kept: Archive, found: Findings) -> None:
    """Every key that signs in a log must be its owner's in a roster that the roots signed; rosters only go forward."""
    allowed = {_key_of(party, each) for each in kept.rosters.values()}
    for line, key in [*((n, f.key) for n, f in party.facts(Opened)), *((n, f.key) for n, f in party.facts(Rekeyed))]:
        if key not in allowed:
            found.add("F_KEY", party.name, f"no roster here gives the key {key[:16]} to '{party.name}'.", line=line)
    if party.chain.key != party.bundle.manifest.key:
        found.add("F_KEY", party.name, f"the bundle of '{party.name}' is signed by another key than its log.")
    epoch = 0
    for line, fact in party.facts(RosterAdopted):
        if fact.roster not in kept.rosters:
            found.add("F_ROSTER", party.name, f"roster epoch {fact.epoch} of '{party.name}' is in no bundle, or not signed.", line=line)
        elif fact.epoch < epoch or kept.rosters[fact.roster].epoch != fact.epoch:
            found.add("F_ROSTER", party.name, f"'{party.name}' went from roster epoch {epoch} to epoch {fact.epoch}.", line=line)
        epoch = max(epoch, fact.epoch)
    for line, followed in party.facts(PlanFollowed):
        if followed.plan not in kept.plans:
            found.add("F_PLAN", party.name, f"plan {followed.plan[:12]} is in no bundle.", line=line)


def _witness(bundle: Bundle, found: Findings) -> Witness:
    manifest = bundle.manifest
    for name in bundle.names:
        try:
            bundle.check(name)
        except BundleFormat as error:
            found.add("F_BUNDLE", manifest.name, error.message)
    if not bundle.has(LOG_FILE):
        raise BundleFormat(f"'{bundle.path}' holds no {LOG_FILE}.", fix="Ask for it again.")
    chain = Chain(name=f"the log of '{manifest.name}'")
    entries: list[Entry] = []
    for line in lines_of(bundle.read(LOG_FILE)):
        try:
            entries += chain.check_signatures([line])
        except AuditTampered as error:
            found.add("F_CHAIN", manifest.name, error.message, line=len(entries))
            break
    if not entries:
        raise BundleFormat(f"'{bundle.path}': its log does not begin.", fix="Ask for it again.")
    if (len(entries), chain.head.hex()) != (manifest.lines, manifest.head):
        text = f"the log of '{manifest.name}' holds to line {len(entries)}; its owner signed {manifest.lines} lines, or another last one."
        found.add("F_HEAD", manifest.name, text)
    opened = chain.opened
    if opened is None or (opened.role, opened.name) != (manifest.role, manifest.name):
        found.add("F_HEAD", manifest.name, f"the log in the bundle of '{manifest.name}' is another party's.", line=0)
    return Witness(name=manifest.name, role=manifest.role, bundle=bundle, entries=tuple(entries), chain=chain)


def _files(party: Witness, found: Findings) -> Iterable[tuple[str, bytes]]:
    for name in party.bundle.names:
        if name.startswith((f"{evidence.FOLDER}/plan-", f"{evidence.FOLDER}/roster-")):
            try:
                yield name, party.bundle.read(name)
            except BundleFormat as error:
                found.add("F_BUNDLE", party.name, error.message)


def _take_plan(party: Witness, named: str, content: bytes, plans: dict[str, Plan], found: Findings) -> None:
    try:
        read = plan.parse(content.decode(), name="a plan")
    except (PlanError, UnicodeDecodeError):
        found.add("F_PLAN", party.name, f"plan {named[:12]} of '{party.name}' does not parse.")
        return
    if plan.digest_of(read) != named:
        found.add("F_PLAN", party.name, f"plan {named[:12]} of '{party.name}' is another plan.")
        return
    plans[named] = read


def _take_roster(party: Witness, named: str, content: bytes, roots: Roots, rosters: dict[str, Roster], found: Findings) -> None:
    try:
        read = roster.verify(content, roots=roots)
    except FedwardError as error:
        found.add("F_ROSTER", party.name, f"roster {named[:12]} of '{party.name}': {error.message}")
        return
    if read.digest.hex() != named:
        found.add("F_ROSTER", party.name, f"roster {named[:12]} of '{party.name}' is another roster.")
        return
    rosters[named] = read


def _common_roots(parties: Sequence[Witness], found: Findings) -> Roots | None:
    read: dict[str, Roots] = {}
    for party in parties:
        try:
            if party.bundle.has(ROOTS):
                read[party.name] = roster.parse_roots(party.bundle.read(ROOTS))
        except (RosterError, BundleFormat) as error:
            found.add("F_ROSTER", party.name, f"the roots of '{party.name}': {error.message}")
    if len(set(read.values())) > 1:
        found.add("F_ROSTER", ", ".join(read), "the parties name different root keys; give the right ones with --roots.")
    return next(iter(read.values()), None)


def _key_of(party: Witness, enrolled: Roster) -> str:
    if party.role == "coordinator":
        return enrolled.coordinator.hex()
    member = enrolled.find(party.name)
    return member.public_key.hex() if member else ""

# SPDX-License-Identifier: Apache-2.0
"""`fedward site approve`: what the consortium asks is shown to a person of this hospital, in plain words, and waits for a yes.

Root keys once, with the words that the custodian reads over the telephone; then each roster that the policy does not take by itself, as
the difference to the one in force; then a plan, as the page that `client/membership/reading.py` writes. With --look nothing is approved,
with --yes nothing is asked. A plan that is against policy.toml cannot be approved by saying yes.
"""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from client.ledger.cli import HERE, AsJson, HomeOption
from client.membership import approval, news, reading
from client.membership import rosters as membership
from client.membership.approval import SignedPlan
from client.membership.forecast import Cost
from client.membership.rosters import Proposal
from client.telling import tell
from common import credentials, roster
from common.durable import OWNER_ONLY, write_atomically
from common.errors import PlanNotApproved, PolicyRefused, RosterNotFound, RosterTaken
from common.fingerprint import Fingerprint
from common.instant import instant
from common.plan import digest_of
from common.roster import Roots, Roster

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, for scripts; read before.")]


def approve(
    plan: Annotated[
        Path | None, typer.Argument(help="A signed plan; its signatures lie beside it (ct.toml, ct.sig). Default: what arrived.")
    ] = None,
    roster_file: Annotated[Path | None, typer.Option("--roster", help="A roster's file, where it did not arrive by itself.")] = None,
    roots: Annotated[Path | None, typer.Option(help="Once, at the beginning: the consortium's root keys, to be pinned.")] = None,
    look: Annotated[bool, typer.Option("--look", help="Only show; approve nothing.")] = False,
    yes: Yes = False,
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """Show what the consortium asks of this hospital, in plain words, and approve it: root keys, a roster, a plan, in this order.

    PLAN is a signed plan, with its signatures beside it: ct.toml, ct.sig. Without arguments: whatever the coordinator has sent and nobody
    here has decided on. Nothing is trained but the plan approved here, and nobody is worked with but the sites of the roster approved here.
    """
    if as_json and not (yes or look):
        raise typer.BadParameter("--json cannot ask; give --yes too, or --look to see and approve nothing.")
    asking = _Asking(home=home, yes=yes, look=look, as_json=as_json)
    if roots is not None:
        asking.pin(roots)
    for data in _rosters(home, roster_file, plan):
        asking.about_roster(data)
    for given in _plans(home, roster_file, roots, plan):
        asking.about_plan(given)
    asking.close()


class _Asking:
    """One session of questions; what was decided is told at its end."""

    def __init__(self, *, home: Path, yes: bool, look: bool, as_json: bool) -> None:
        self._home, self._yes, self._look, self._as_json = home, yes, look, as_json
        self._told: dict[str, Any] = {}

    def pin(self, file: Path) -> None:
        found = roster.parse_roots(_bytes(file))
        place = self._home / credentials.ROOTS_FILE
        if place.exists() and place.read_bytes() != roster.render_roots(found):
            raise RosterTaken(
                f"'{place}' pins other root keys than '{file}'.",
                fix="A consortium keeps its roots. If it truly has new ones, every site removes the old file by hand, after telephoning.",
            )
        self._show("the consortium's root keys, read to you by its custodian, on a number that you knew before:", *_roots(found))
        if self._agreed("Are these the words?"):
            write_atomically(place, roster.render_roots(found), fsync=True, mode=OWNER_ONLY)
            self._told["roots"] = [Fingerprint.of(key).words for key in sorted(found.keys)]

    def about_roster(self, data: bytes) -> None:
        found = membership.examine(self._home, data, now=_now())
        if not found.is_news:
            self._show(f"roster epoch {found.roster.epoch} is in force here already")
        else:
            self._show(*_changes(found))
            if self._agreed(f"Work with these sites, as of epoch {found.roster.epoch}?"):
                membership.adopt(self._home, data, now=_now())
                self._show(f"epoch {found.roster.epoch} is in force here")
        held = membership.in_force(self._home)
        self._told |= {"roster": {"epoch": found.roster.epoch, "asks": list(found.asks), "in_force": held.epoch if held else None}}

    def about_plan(self, given: SignedPlan) -> None:
        found, said = approval.read_signed(self._home, given)
        facts = reading.read(self._home, found, said)
        self._show(*reading.in_words(facts))
        self._told |= {"plan": reading.as_json(facts), "approved": False}
        if facts.objections and not self._look:
            raise PolicyRefused(
                f"plan '{found.name}' is against this site's policy: {'; '.join(facts.objections)}.",
                fix="Decline it, or change policy.toml after weighing why it says so; nothing was approved.",
            )
        if self._agreed(f"Approve plan '{found.name}' for site '{facts.site}'?"):
            approval.approve(self._home, given, now=_now())
            news.forget_plan(self._home, digest_of(found))
            self._told["approved"] = True
            prepared = facts.cost is None or isinstance(facts.cost, Cost)
            after = "start its service (fedward site serve)" if prepared else "prepare the data: fedward site snapshot --plan PLAN"
            self._show(f"approved: '{found.name}' is what this site trains. Next: {after}")

    def close(self) -> None:
        if self._as_json:
            tell(self._told, as_json=True)
        elif not self._told:
            self._show("nothing waits for a decision")

    def _show(self, *lines: str) -> None:
        if not self._as_json:
            tell({}, *lines, as_json=False)

    def _agreed(self, question: str) -> bool:
        if self._look:
            return False
        if not self._yes:
            typer.confirm(question, abort=True)
        return True


def _rosters(home: Path, file: Path | None, plan: Path | None) -> list[bytes]:
    """The roster to ask about: the one named; else, where nothing is named, the one that waits."""
    if file is not None:
        return [_bytes(file)]
    waits = None if plan is not None else membership.waiting(home)
    return [waits.data] if waits else []


def _plans(home: Path, roster_file: Path | None, roots: Path | None, file: Path | None) -> list[SignedPlan]:
    if file is not None:
        return [SignedPlan(text=_bytes(file), endorsement=_endorsement(file))]
    waits = None if roster_file or roots else news.waiting_plan(home)
    return [waits] if waits else []


def _endorsement(plan: Path) -> bytes:
    file = plan.with_suffix(".sig")
    if not file.is_file():
        raise PlanNotApproved(
            f"'{file}' is not there: no root key has signed plan '{plan}'.",
            fix="Get both files from the custodian: fedward plan sign writes it.",
        )
    return file.read_bytes()


def _bytes(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(roster.LARGEST_FILE + 1)
    except OSError as error:
        raise RosterNotFound(f"'{file}' cannot be read ({error.strerror}).", fix="Name the file that the custodian sent.") from None


def _changes(found: Proposal) -> list[str]:
    """A roster against the one in force, for the person who decides."""
    new, changes = found.roster, found.changes
    before = f"epoch {found.held.epoch}" if found.held else "none"
    lines = [f"roster epoch {new.epoch} (now {before}), signed, valid until {instant(new.not_after)[:10]}"]
    kinds = (
        ("joins", changes.added),
        ("is trusted again", changes.reinstated),
        ("has another key", changes.rekeyed),
        ("has another weight", changes.reweighted),
        ("is valid for another time", changes.renewed),
        ("IS REVOKED", changes.revoked),
        ("is not in it any more", changes.removed),
    )
    for told, sites in kinds:
        lines += [f"  {site} {told}{_words_of(new, site)}" for site in sites]
    if changes.coordinator_changed or found.held is None:
        lines.append(f"  the coordinator: {Fingerprint.of(new.coordinator).words}")
    return [*lines, *(f"  asked about, since: {reason}" for reason in found.asks)]


def _words_of(new: Roster, site: str) -> str:
    member = new.find(site)
    return f"   {Fingerprint.of(member.public_key).words}" if member else ""


def _roots(found: Roots) -> list[str]:
    return [*(f"  {Fingerprint.of(key).words}" for key in sorted(found.keys)), f"  {found.needed} of them must sign"]


def _now() -> int:
    return int(time.time())

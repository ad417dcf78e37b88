# SPDX-License-Identifier: Apache-2.0
"""`fedward site init | enrol | approve | rotate | recover | pause | resume | leave`: how a hospital comes in, stays in, and goes.

The commands are the door: they read the clock and files, show, ask, and print. What is decided stands in the modules that they call. No
key's secret half is ever printed or copied, and nothing is approved without having been shown, except with --yes, for scripts.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from client import approval, enrolment, membership, news, pause, reading, rotation
from client.approval import SignedPlan
from client.enrolment import Made
from client.forecast import Cost
from client.ledger.cli import HERE, AsJson, HomeOption
from client.membership import Proposal
from client.telling import tell
from common import credentials, roster, transport_key
from common.durable import OWNER_ONLY, write_atomically
from common.enrolment import LONGEST_DAYS, Kind
from common.errors import PlanNotApproved, PolicyRefused, RosterNotFound, RosterTaken
from common.fingerprint import Fingerprint
from common.instant import instant
from common.plan import digest_of
from common.roster import MAX_WEIGHT, Roots, Roster

SITE_USER: Final = "fedward-site"
MAILBOX_USER: Final = "fedward-mailbox"

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, for scripts; read before.")]
Days = Annotated[int, typer.Option(min=1, max=LONGEST_DAYS, help="For how long the entry in the roster is wished.")]
Weight = Annotated[
    int, typer.Option(min=1, max=MAX_WEIGHT, help="How much this site's update counts: a public band, 1 for everybody as a rule.")
]
Out = Annotated[Path | None, typer.Option(help="The request's file. Default: SITE.request in this folder.")]


def init(
    name: Annotated[str, typer.Option(help="The site's name in the roster: lower-case letters, digits, dots, hyphens, underscores.")],
    home: Annotated[
        Path | None, typer.Option("--home", "-H", envvar="FEDWARD_SITE", help="The site process's home folder, to make.")
    ] = None,
    mailbox: Annotated[Path | None, typer.Option(help="The mailbox's folder, to make; best on the same machine, of another user.")] = None,
    coordinator: Annotated[str, typer.Option(help="Where the mailbox connects to, NAME:PORT.")] = "coordinator.example:443",
    socket: Annotated[str, typer.Option(help="Where the two processes meet.")] = enrolment.SOCKET,
    as_json: AsJson = False,
) -> None:
    """Make this site's folders, keys and settings. What is there is left as it is: no key is ever overwritten.

    The keys are made on this machine and stay on it. Next: fedward site enrol.
    """
    if home is None and mailbox is None:
        raise typer.BadParameter("give --home, --mailbox, or both.")
    os.umask(0o077)
    made: list[Made] = []
    if home is not None:
        made += enrolment.begin_site(home, name=name, socket=socket)
    if mailbox is not None:
        made += enrolment.begin_mailbox(mailbox, name=name, address=coordinator, socket=socket)
    if home is not None and mailbox is not None:
        enrolment.note_mailbox(home, transport_key.public_half(mailbox / transport_key.KEY_FILE))
    tell(
        {"site": name, "files": [{"file": str(each.path), "made": each.new} for each in made]},
        *(f"{'made ' if each.new else 'there'}  {each.path}  ({each.what})" for each in made),
        *_owners(home, mailbox),
        f"Next: fedward site enrol --home '{home}'"
        if home
        else "Next: give node.pub to whoever runs: fedward site enrol --mailbox-key node.pub",
        as_json=as_json,
    )


def enrol(
    home: HomeOption = HERE,
    mailbox_key: Annotated[Path | None, typer.Option(help="The mailbox's node.pub, where it was made elsewhere, or anew.")] = None,
    weight: Weight = 1,
    days: Days = 365,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Write the request to be enrolled: one small file, no secret in it, to be sent to the consortium's custodian by any way.

    The six words are what counts: read them to the custodian by telephone. A site that is in the roster asks for more time, or for
    its mailbox's new key, in the same way.
    """
    os.umask(0o077)
    if mailbox_key is not None:
        enrolment.note_mailbox(home, transport_key.read_public(mailbox_key))
    _hand_out(home, enrolment.kind_of(home), out, weight=weight, days=days, as_json=as_json)


def rotate(home: HomeOption = HERE, weight: Weight = 1, days: Days = 365, out: Out = None, as_json: AsJson = False) -> None:
    """Ask for a new identity key; the present one works until a roster names the new one, and consents to it.

    Nothing else is to be done: when that roster is in force here, ledger and approval pass to the new key.
    """
    os.umask(0o077)
    _hand_out(home, "rotate", out, weight=weight, days=days, as_json=as_json)


def recover(
    reason: Annotated[str, typer.Option(help="What happened, and who decided: it stays in the ledger. No patient's name or number.")],
    stolen: Annotated[bool, typer.Option("--stolen", help="The key is still here, and in wrong hands.")] = False,
    never_opened: Annotated[bool, typer.Option("--never-opened", help="No ledger was ever opened at this site.")] = False,
    home: HomeOption = HERE,
    weight: Weight = 1,
    days: Days = 365,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Go on after the identity key was lost or stolen: a new key, and a request. What was spent stays spent, under the new key.

    Telephone the custodian first: the old key is to be revoked. The plan is to be approved again. A site that had left comes back by
    this, too (--stolen: its old key is not to be used again).
    """
    os.umask(0o077)
    rotation.recover(home, reason=reason, stolen=stolen, never_opened=never_opened)
    pause.come_back(home)
    _hand_out(home, "recover", out, weight=weight, days=days, as_json=as_json)


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

    Without arguments: whatever the coordinator has sent and nobody here has decided on. Nothing is trained but the plan approved here, and
    nobody is worked with but the sites of the roster approved here.
    """
    if as_json and not (yes or look):
        raise typer.BadParameter("--json cannot ask; give --yes too, or --look to see and approve nothing.")
    os.umask(0o077)
    asking = _Asking(home=home, yes=yes, look=look, as_json=as_json)
    if roots is not None:
        asking.pin(roots)
    for data in _rosters(home, roster_file, plan):
        asking.about_roster(data)
    for given in _plans(home, roster_file, roots, plan):
        asking.about_plan(given)
    asking.close()


def pause_site(home: HomeOption = HERE, as_json: AsJson = False) -> None:
    """Take no part in rounds from the next message on, until fedward site resume. Rounds under way go on without this site."""
    changed = pause.pause(home)
    tell(
        {"paused": True, "changed": changed},
        "paused" if changed else "was paused already",
        "Go on with: fedward site resume",
        as_json=as_json,
    )


def resume_site(home: HomeOption = HERE, as_json: AsJson = False) -> None:
    """Take part again."""
    changed = pause.resume(home)
    tell({"paused": False, "changed": changed}, "takes part again" if changed else "was not paused", as_json=as_json)


def leave(
    yes: Yes = False,
    out: Annotated[Path | None, typer.Option(help="The statement's file. Default: SITE.leave in this folder.")] = None,
    home: HomeOption = HERE,
    as_json: AsJson = False,
) -> None:
    """Leave the federation for good: no further round, and a signed statement for the custodian, who revokes this site.

    Ledger and audit log stay here, as records. What was learnt from this site's patients before stays in the model, within its promise.
    """
    if as_json and not yes:
        raise typer.BadParameter("--json cannot ask; give --yes too.")
    if not yes:
        typer.confirm("Leave the federation? To take part again later, the site must be enrolled anew.", abort=True)
    name = enrolment.name_of(home)
    statement = (home / pause.LEFT_FILE).read_bytes() if pause.has_left(home) else enrolment.statement_of_leaving(home, now=_now())
    write_atomically(home / pause.LEFT_FILE, statement, fsync=True, mode=OWNER_ONLY)
    file = out or Path(f"{name}.leave")
    write_atomically(file, statement, fsync=True)
    tell(
        {"left": True, "statement": str(file)},
        f"'{name}' has left: no round is answered from now on",
        f"Send '{file}' to the custodian, who types: fedward roster revoke '{file.name}'",
        f"Keep '{home}' as a record, ledger and audit log above all; stop the two services.",
        as_json=as_json,
    )


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


def _hand_out(home: Path, kind: Kind, out: Path | None, *, weight: int, days: int, as_json: bool) -> None:
    """Write a request and say what to do with it."""
    asked, content = enrolment.request(home, kind, now=_now(), weight=weight, days=days)
    file, name = out or Path(f"{asked.site}.request"), Fingerprint.of(asked.key)
    write_atomically(file, content, fsync=True)
    tell(
        {"site": asked.site, "kind": kind, "request": str(file), "key": asked.key.hex(), "words": name.words, "hex": name.hex},
        f"wrote '{file}': send it to the consortium's custodian, by any way; it holds no secret",
        f"fingerprint {name.words}",
        f"            {name.hex}",
        "Read these words to the custodian by telephone when you are called, or call a number that you knew before.",
        *(["The plan is to be approved again: fedward site approve PLAN, once the new roster is in force."] if kind == "recover" else []),
        "Next, with the files that the custodian sends back: fedward site approve --roots roots --roster roster",
        as_json=as_json,
    )


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


def _owners(home: Path | None, mailbox: Path | None) -> list[str]:
    """Whom to give the folders to: exactly what to type."""
    lines = []
    if home is not None and os.geteuid() == 0:
        lines.append(f"  chown -R {SITE_USER}: '{home.resolve()}'")
    if mailbox is not None:
        lines.append(f"  chown -R {MAILBOX_USER}: '{mailbox.resolve()}'")
    return ["The two processes are two users. As root, give each its folder:", *lines] if lines else []


def _now() -> int:
    return int(time.time())


COMMANDS: Final[Mapping[str, Callable[..., None]]] = {
    "init": init,
    "enrol": enrol,
    "approve": approve,
    "rotate": rotate,
    "recover": recover,
    "pause": pause_site,
    "resume": resume_site,
    "leave": leave,
}
"""What `client/cli.py` mounts."""

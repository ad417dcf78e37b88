# SPDX-License-Identifier: Apache-2.0
"""`fedward site init | enrol | approve | rotate | recover | pause | resume | leave`: how a hospital comes in, stays in, and goes.

The commands are the door: they read the clock and files, show, ask, and print. What is decided stands in the modules that they call. No
key's secret half is ever printed or copied, and nothing is approved without having been shown, except with --yes, for scripts.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from client.audit import SiteAudit
from client.home import read_site_file
from client.ledger.cli import HERE, AsJson, HomeOption
from client.membership import enrolment, pause, rotation
from client.membership.approve_cli import Yes, approve
from client.membership.enrolment import Made
from client.telling import tell
from common import transport_key
from common.audit.entries import Departed, Paused, Resumed
from common.durable import OWNER_ONLY, write_atomically
from common.enrolment import LONGEST_DAYS, Kind
from common.errors import FedwardError
from common.fingerprint import Fingerprint
from common.roster import MAX_WEIGHT

SITE_USER: Final = "fedward-site"
MAILBOX_USER: Final = "fedward-mailbox"

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
    made: list[Made] = []
    with enrolment.for_its_owner_alone():
        made += enrolment.begin_site(home, name=name, socket=socket) if home else []
        made += enrolment.begin_mailbox(mailbox, name=name, address=coordinator, socket=socket) if mailbox else []
    if home is not None and mailbox is not None:
        enrolment.note_mailbox(home, transport_key.public_half(mailbox / transport_key.KEY_FILE))
    tell(
        {"site": name, "files": [{"file": str(each.path), "made": each.new} for each in made]},
        *(f"{'made ' if each.new else 'there'}  {each.path}  ({each.what})" for each in made),
        *_still_missing(mailbox),
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
    if mailbox_key is not None:
        enrolment.note_mailbox(home, transport_key.read_public(mailbox_key))
    _hand_out(home, enrolment.kind_of(home), out, weight=weight, days=days, as_json=as_json)


def rotate(home: HomeOption = HERE, weight: Weight = 1, days: Days = 365, out: Out = None, as_json: AsJson = False) -> None:
    """Ask for a new identity key; the present one works until a roster names the new one, and consents to it.

    Nothing else is to be done: when that roster is in force here, ledger and approval pass to the new key.
    """
    with enrolment.for_its_owner_alone():
        rotation.begin(home)
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
    with enrolment.for_its_owner_alone():
        rotation.recover(home, reason=reason, stolen=stolen, never_opened=never_opened)
    pause.come_back(home)
    _hand_out(home, "recover", out, weight=weight, days=days, as_json=as_json)


def pause_site(home: HomeOption = HERE, as_json: AsJson = False) -> None:
    """Take no part in rounds from the next message on, until fedward site resume. Rounds under way go on without this site."""
    changed = pause.pause(home)
    if changed:
        _write_down(home, Paused())
    tell(
        {"paused": True, "changed": changed},
        "paused" if changed else "was paused already",
        "Go on with: fedward site resume",
        as_json=as_json,
    )


def resume_site(home: HomeOption = HERE, as_json: AsJson = False) -> None:
    """Take part again."""
    changed = pause.resume(home)
    if changed:
        _write_down(home, Resumed())
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
    again = pause.has_left(home)
    statement = (home / pause.LEFT_FILE).read_bytes() if again else enrolment.statement_of_leaving(home, now=_now())
    write_atomically(home / pause.LEFT_FILE, statement, fsync=True, mode=OWNER_ONLY)
    if not again:
        _write_down(home, Departed())
    file = out or Path(f"{name}.leave")
    write_atomically(file, statement, fsync=True)
    tell(
        {"left": True, "statement": str(file)},
        f"'{name}' has left: no round is answered from now on",
        f"Send '{file}' to the custodian, who types: fedward roster revoke '{file.name}'",
        f"Keep '{home}' as a record, ledger and audit log above all; stop the two services.",
        as_json=as_json,
    )


def _write_down(home: Path, fact: Paused | Resumed | Departed) -> None:
    """In the audit log. The operator's switch is not held up by a log that cannot be written."""
    with suppress(FedwardError):
        SiteAudit(home, read_site_file(home)).say(fact)


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


def _still_missing(mailbox: Path | None) -> list[str]:
    if mailbox is None or (authority := mailbox / enrolment.AUTHORITY_FILE).exists():
        return []
    return [f"wanted {authority}  (from the coordinator: by it the mailbox knows whom it talks to)"]


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

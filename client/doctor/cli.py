# SPDX-License-Identifier: Apache-2.0
"""`fedward site doctor`: everything that has to be right on a hospital's machine, looked at in one go, and what to type where it is not."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from client.doctor import agreed, link, machine, permissions
from client.doctor.agreed import Ground
from client.doctor.findings import Finding, State, gather, look, ok, refusal
from client.doctor.standing import owner_of
from client.ledger.cli import AsJson
from client.mailbox import settings
from client.telling import tell
from common.errors import FedwardError

_STYLE: Final = {State.OK: "green", State.LOOK: "yellow", State.WRONG: "bold red"}

_SITE: Final[tuple[tuple[str, Callable[[Ground], Iterator[Finding]]], ...]] = (
    ("identity", agreed.identity),
    ("roster", agreed.roster_held),
    ("policy", agreed.limits),
    ("plan", agreed.plan_in_force),
    ("ledger", agreed.spent),
    ("audit", agreed.written_down),
    ("data", machine.images),
    ("encryption", machine.encryption),
    ("disk", machine.disk),
    ("gpu", machine.processor),
)

HomeOption = Annotated[Path | None, typer.Option("--home", "-H", envvar="FEDWARD_SITE", help="The site's home folder.")]
MailboxOption = Annotated[Path | None, typer.Option("--mailbox", "-M", help="The mailbox's folder; only with it is the network tried.")]
LockOption = Annotated[
    Path, typer.Option("--lock", show_default="share/fedward/locked.txt beside Python", help="The locked list to compare with.")
]


def doctor(
    home: HomeOption = None,
    mailbox: MailboxOption = None,
    lock: LockOption = machine.LOCK,
    as_json: AsJson = False,
) -> None:
    """Look at everything that has to be right here, and say what to do. Changes nothing; says nothing about patients.

    As root, with both folders, it looks at each with the eyes of the user who owns it:

    \b
        sudo fedward site doctor --home HOME --mailbox MAILBOX

    Exit code 1 if anything is wrong; what is only to be looked at does not count.
    """
    if home is None and mailbox is None:
        raise typer.BadParameter("give --home, --mailbox or, as root, both.")
    findings = list(_examine(home, mailbox, lock))
    bad = [each for each in findings if each.state is State.WRONG]
    if as_json:
        tell({"ok": not bad, "findings": [asdict(each) for each in findings]}, as_json=True)
    else:
        _show(findings)
    raise typer.Exit(1 if bad else 0)


def _examine(home: Path | None, mailbox: Path | None, lock: Path) -> Iterator[Finding]:
    if home is not None:
        yield from gather("permissions", permissions.home, home) if home.is_dir() else ()
        with owner_of(home):
            yield from list(permissions.installation()) or _site(home)
    yield from gather("versions", machine.versions, lock)
    if mailbox is not None:
        with owner_of(mailbox):
            yield from list(permissions.installation()) or _mailbox(mailbox)
    if home is not None and mailbox is not None:
        yield from gather("separation", lambda folder: permissions.separation(folder, mailbox), home)


def _site(home: Path) -> Iterator[Finding]:
    try:
        ground = agreed.ground_of(home)
    except (FedwardError, OSError) as error:
        yield refusal("home", error)
        return
    yield ok("home", f"site '{ground.file.site.name}'")
    for check, look_at in _SITE:
        yield from gather(check, look_at, ground)


def _mailbox(folder: Path) -> Iterator[Finding]:
    try:
        found = settings.read(folder)
    except (FedwardError, OSError) as error:
        yield refusal("mailbox", error)
        return
    yield ok("mailbox", f"carries to {found.address}")
    yield from gather("permissions", permissions.mailbox_secret, found.key)
    yield from gather("socket", permissions.door, found.socket)
    secure = link.link_of(found)
    if secure is None:
        yield look(
            "reach", "mailbox.toml says insecure = true: a trial on this machine, without TLS.", "Take that line out before patients."
        )
        return
    yield from gather("authority", link.authority, secure)
    yield from gather("reach", link.way, secure)


def _show(findings: list[Finding]) -> None:
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for each in findings:
        console.print(f"{each.state.upper():<6}", end="", style=_STYLE[each.state])
        console.print(f"{each.check:<12} {each.found}", markup=False)
        if each.fix:
            console.print(f"{'':<18} -> {each.fix}", markup=False, style="bold")
    bad, uneasy = (sum(each.state is state for each in findings) for state in (State.WRONG, State.LOOK))
    console.print(f"\n{len(findings)} findings: {bad} wrong, {uneasy} to look at")

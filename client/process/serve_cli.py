# SPDX-License-Identifier: Apache-2.0
"""`fedward site serve` and `fedward site status`: run the site process, and see where it stands."""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from client.home import read_site_file
from client.ledger.cli import HERE, AsJson, HomeOption
from client.membership import news, pause
from client.process import place, status
from client.process.events import Form, Log
from client.process.serve import LOCK_FILE, Serving
from client.process.serve import serve as serve_site
from client.process.status import Status
from client.telling import tell
from common.instant import instant

GRACE_S: Final = 30.0

LogFormat = Annotated[Form, typer.Option("--log-format", help="One line an event, for people or for machines.")]


def serve(
    home: HomeOption = HERE,
    socket: Annotated[Path | None, typer.Option(help="Where to answer; else as site.toml says, else door/site.sock in the home.")] = None,
    log_format: LogFormat = "text",
    grace: Annotated[float, typer.Option(min=0, help="Seconds that a step may still take when the process is told to stop.")] = GRACE_S,
) -> None:
    """Run the site process: it trains, and answers the mailbox at a socket. It needs no network; give it none.

    It trains the plan that was approved here (fedward site approve) and starts for no other. Its home is 0700 and its own; the socket's
    folder is 0750, of a group that the mailbox's user shares. Stop it with SIGTERM. Nothing is lost when it is killed.
    """
    where = socket or home / read_site_file(home).serve.socket
    serve_site(Serving(home=home, socket=where, log=Log(who="site", form=log_format), grace_s=grace), version=version("fedward"))


def show_status(home: HomeOption = HERE, as_json: AsJson = False) -> None:
    """Where this site stands: what it is doing, what was refused and why, what patients have spent, and what to do next."""
    file = read_site_file(home)
    found, running = status.read(home), place.is_taken(home, LOCK_FILE)
    step, undecided = next_step(home, found, running=running), news.undecided(home)
    tell(
        {
            "running": running,
            "paused": pause.is_paused(home),
            "undecided": undecided,
            "next": step,
            **(status.as_json(found) if found else {"site": file.site.name}),
        },
        f"site {file.site.name}: {_in_words(home, found, running=running)}",
        *(_facts(found) if found else []),
        *(f"  undecided {waits}" for waits in undecided),
        f"Next: {step}",
        as_json=as_json,
    )


def next_step(home: Path, found: Status | None, *, running: bool) -> str:
    """What the operator should do now, in one line."""
    if pause.has_left(home):
        return "nothing; this site has left. To take part again, enrol it anew."
    if pause.is_paused(home):
        return "fedward site resume, when you want to take part again."
    if news.undecided(home):
        return "something waits for your decision: fedward site approve."
    if not running and found is None:
        return "fedward site approve PLAN, if that is not done; then: fedward site serve."
    if not running:
        return "fedward site serve (or your service manager), it is not running."
    if found is not None and found.refused and found.refused[-1].at >= (found.heard or 0):
        return f"see {found.refused[-1].code} in the documentation; its words are in error.log in the site's home."
    if found is None or found.heard is None:
        return "start the mailbox, if it does not run: fedward site join. Then wait for the coordinator."
    return "nothing; the coordinator asks when it needs this site."


def _in_words(home: Path, found: Status | None, *, running: bool) -> str:
    if pause.has_left(home):
        return "left the federation"
    paused = "paused by its operator; " if pause.is_paused(home) else ""
    if not running:
        return f"{paused}not running"
    if found is None:
        return f"{paused}starting"
    doing = "training" if found.state == "training" else found.state
    number = f" round {found.round}" if found.state in ("training", "answering") and found.round is not None else ""
    return f"{paused}{doing}{number} since {instant(found.since)}"


def _facts(found: Status) -> list[str | Table]:
    lines: list[str | Table] = [
        f"  plan      {found.plan_name} ({found.plan[:16]})",
        f"  roster    epoch {found.roster_epoch}",
        f"  rounds    {found.answered} messages answered; last of round {found.round}" if found.heard else "  rounds    none yet",
    ]
    for spent in found.spent:
        lines.append(f"  spent     epsilon {spent.epsilon:.3f} of {spent.cap:g} per {spent.unit} (delta {spent.delta:g})")
    for refused in found.refused[-3:]:
        ago = max(0, int(time.time()) - refused.at)
        lines.append(f"  refused   {refused.code} {refused.type} {_ago(ago)} ago")
    return lines


def _ago(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


app = typer.Typer()
app.command()(serve)


@app.callback()
def _alone() -> None:
    """So that the command keeps its name where it is the only one."""

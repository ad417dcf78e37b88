# SPDX-License-Identifier: Apache-2.0
"""`fedward site join`: becomes the mailbox's own process, so that what talks to the network has never loaded what trains."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from client.process.events import Form


def join(
    mailbox: Annotated[Path, typer.Option("--mailbox", "-M", envvar="FEDWARD_MAILBOX", help="The mailbox's folder.")],
    log_format: Annotated[Form, typer.Option("--log-format", help="One line an event, for people or for machines.")] = "text",
) -> None:
    """Run the mailbox: it carries sealed messages between the coordinator and this hospital's site process, outbound and over TLS only.

    It holds no image, no identity key and no ledger, and runs nobody's code. Let it run as a user of its own, whose folder is 0700, in the
    group that may open the site's socket. It waits for a coordinator or a site process that is away, for as long as it takes. Stop it with
    SIGTERM: it signs off, and may come back at once. What it carried, and what had to be sent again, is in stats.json in its folder.
    """
    # -P: nothing is imported from the folder in which this was typed, unless that is our own.
    here = Path(__file__).parents[2] == Path.cwd()
    command = [sys.executable, *([] if here else ["-P"]), "-m", "client.mailbox", "--mailbox", str(mailbox), "--log-format", log_format]
    os.execv(sys.executable, command)  # noqa: S606 - our own interpreter and module; nothing is left of this process


app = typer.Typer()
app.command()(join)


@app.callback()
def _alone() -> None:
    """So that the command keeps its name where it is the only one."""

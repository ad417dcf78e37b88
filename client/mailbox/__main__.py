# SPDX-License-Identifier: Apache-2.0
"""`python -m client.mailbox`, which is what `fedward site join` becomes: a process that has never loaded what trains."""

import os
import sys
from pathlib import Path
from typing import Annotated

# Flower reads these once, when it is imported: no reports to its makers, and pieces that a slow link can finish between two drops.
os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")
os.environ.setdefault("FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", str(1 << 20))

import typer

from client.mailbox import life
from client.process.events import Form, Log
from common.ending import run_to_the_end


def join(
    mailbox: Annotated[Path, typer.Option("--mailbox", "-M", envvar="FEDWARD_MAILBOX", help="The mailbox's folder.")],
    log_format: Annotated[Form, typer.Option("--log-format", help="One line an event, for people or for machines.")] = "text",
) -> None:
    """Carry messages between the coordinator and this hospital's site process."""
    life.join(mailbox, Log(who="mailbox", form=log_format))


def main() -> None:
    """Exit codes as `fedward`'s."""
    status: object = 0
    try:
        run_to_the_end(lambda: typer.run(join))
    except SystemExit as ended:
        status = ended.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    # A thread may still wait for a site that trains, or a coordinator that is away; what it carried is in the folder.
    os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    main()

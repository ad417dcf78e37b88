# SPDX-License-Identifier: Apache-2.0
"""The front door: `fedward COMMAND`. It mounts the rooms' commands; how they end is `common.ending`."""

import os

# Flower reads these once, when it is imported, and reports usage to its makers and asks for new versions unless told not to.
os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")

import typer

from client.cli import app as site
from common.ending import run_to_the_end
from server.cli import app as server
from server.roster_cli import app as roster
from simulations import cli
from simulations.audit_cli import audit
from simulations.plan_cli import plan
from simulations.rig.cli import app as rig

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hospitals train one diagnostic model together while every image stays at home.\n\n"
    "Start with: fedward simulate (ten made hospitals, a private model, a report, in a few minutes).",
)
app.command()(cli.simulate)
app.command()(cli.evaluate)
app.add_typer(plan, name="plan")
app.add_typer(roster, name="roster")
app.add_typer(audit, name="audit")
app.add_typer(server, name="server")
app.add_typer(site, name="site")
app.add_typer(rig, name="rig")


def main() -> None:
    """Entry point of the `fedward` script; exit codes as `common.ending` says."""
    run_to_the_end(lambda: app(prog_name="fedward"))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""The front door: `fedward COMMAND`. It mounts the rooms' commands; how they end is `common.ending`.

Processes that stand alone at a hospital come in by doors of their own, which load no more than they need: mailbox and import nothing that
trains, so that a machine that only carries messages or images needs no torch; the site process nothing of simulations and servers.
"""

import os
import sys
from functools import cache

# Flower reads these once, when it is imported, and reports usage to its makers and asks for new versions unless told not to.
os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")

import typer

from common.ending import run_to_the_end


@cache
def house() -> typer.Typer:
    """All commands."""
    from client.cli import app as site
    from server.cli import app as server
    from server.membership.roster_cli import app as roster
    from simulations import cli
    from simulations.audit_cli import audit
    from simulations.model_cli import model
    from simulations.plan_cli import plan
    from simulations.rig.cli import app as rig
    from simulations.tuning.command import tune

    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Hospitals train one diagnostic model together while every image stays at home.\n\n"
        "Start with: fedward simulate (ten made hospitals, a private model, a report, in a few minutes).",
    )
    for command in (cli.simulate, cli.evaluate, tune):
        app.command()(command)
    app.add_typer(plan, name="plan")
    app.add_typer(model, name="model")
    app.add_typer(roster, name="roster")
    app.add_typer(audit, name="audit")
    app.add_typer(server, name="server")
    app.add_typer(site, name="site")
    app.add_typer(rig, name="rig")
    return app


def door(words: list[str]) -> typer.Typer:
    """The one command of a process that stands alone, or the whole house."""
    if words[:2] == ["site", "join"]:
        from client.mailbox.join_cli import app
    elif words[:2] == ["site", "serve"]:
        from client.process.serve_cli import app
    elif words[:2] == ["site", "import"]:
        from client.pacs.import_cli import app
    else:
        return house()
    alone = typer.Typer(pretty_exceptions_enable=False)
    alone.add_typer(app, name="site")
    return alone


def __getattr__(name: str) -> typer.Typer:
    """`fedward.app` is the house, built when somebody asks for it."""
    if name == "app":
        return house()
    raise AttributeError(f"module 'fedward' has no attribute '{name}'")


def main() -> None:
    """Entry point of the `fedward` script; exit codes as `common.ending` says."""
    run_to_the_end(lambda: door(sys.argv[1:])(prog_name="fedward"))


if __name__ == "__main__":
    main()

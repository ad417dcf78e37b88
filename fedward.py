# SPDX-License-Identifier: Apache-2.0
"""The front door: `fedward COMMAND`. It mounts the rooms' commands; how they end is `common.ending`.

Processes that stand alone at a hospital come in by doors of their own, which load no more than they need: mailbox and import nothing that
trains, so that a machine that only carries messages or images needs no torch; the site process nothing of simulations and servers.
"""

import os
import sys
from functools import cache
from importlib import import_module, metadata
from typing import Annotated, Final

# Flower reads these once, when it is imported, and reports usage to its makers and asks for new versions unless told not to.
os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")

import typer

from common.ending import run_to_the_end

ROOMS: Final = {
    "plan": ("simulations.plan_cli:plan", "Write, check and show plans; calculate what they cost in privacy."),
    "model": ("simulations.model_cli:model", "Bring a network that was trained elsewhere; make a trained one smaller."),
    "roster": ("server.membership.roster_cli:app", "Who takes part: keys, signatures, the roster."),
    "audit": ("simulations.audit_cli:audit", "Verify what happened, from all parties' logs; attack one's own training."),
    "server": ("server.cli:app", "The coordinator's own commands: make its folder, run a plan, look at it, take the model out."),
    "site": ("client.cli:app", "A hospital's own commands: data, policy, ledger, keys, and the two processes that it runs."),
    "rig": ("simulations.rig.cli:app", "A whole federation on this machine, as it is deployed, to look at and to break."),
}
"""Groups of commands: where each is, and its sign. Some load PyTorch, which takes seconds, so a room is entered when it is asked for."""


@cache
def house(rooms: frozenset[str] = frozenset(ROOMS)) -> typer.Typer:
    """All commands; of rooms that are not among these, the signs alone."""
    from simulations import cli
    from simulations.tuning.command import tune

    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="Hospitals train one diagnostic model together while every image stays at home.\n\n"
        "Start with: fedward simulate (ten made hospitals, a private model, a report, in a few minutes).",
    )
    app.callback()(_whole)
    for command in (cli.simulate, cli.evaluate, tune):
        app.command()(command)
    for name, (place, sign) in ROOMS.items():
        module, _, attribute = place.partition(":")
        app.add_typer(getattr(import_module(module), attribute) if name in rooms else typer.Typer(help=sign), name=name)
    return app


def _say_version(wanted: bool) -> None:
    if wanted:
        of = metadata.version
        sys.stdout.write(f"fedward {of('fedward')} (flwr {of('flwr')}, torch {of('torch')}, Python {sys.version.split()[0]})\n")
        raise typer.Exit


def _whole(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is, and on what it stands.")
    ] = False,
) -> None:
    """Said by `house`."""


def door(words: list[str]) -> typer.Typer:
    """The one command of a process that stands alone, or the whole house."""
    if words[:2] == ["site", "join"]:
        from client.mailbox.join_cli import app
    elif words[:2] == ["site", "serve"]:
        from client.process.serve_cli import app
    elif words[:2] == ["site", "import"]:
        from client.pacs.import_cli import app
    else:
        return house() if "_FEDWARD_COMPLETE" in os.environ else house(frozenset(words[:1]).intersection(ROOMS))
    alone = typer.Typer(pretty_exceptions_enable=False)
    alone.add_typer(app, name="site")
    return alone


def __getattr__(name: str) -> typer.Typer:
    """`fedward.app` is the house with all its rooms, built when somebody asks for it."""
    if name == "app":
        return house()
    raise AttributeError(f"module 'fedward' has no attribute '{name}'")


def main() -> None:
    """Entry point of the `fedward` script; exit codes as `common.ending` says."""
    run_to_the_end(lambda: door(sys.argv[1:])(prog_name="fedward"))


if __name__ == "__main__":
    main()

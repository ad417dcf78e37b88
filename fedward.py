# SPDX-License-Identifier: Apache-2.0
"""The front door: `fedward COMMAND`. It mounts the rooms' commands and turns a refusal into words and an exit code.

An exception that nobody foresaw is shown by its type and place alone, since its text may hold a patient's data (`common.backtrace`).
"""

import json
import os
import sys

# Flower reads these once, when it is imported, and reports usage to its makers and asks for new versions unless told not to.
os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1")

import typer
from rich.console import Console

from client.cli import app as site
from common.backtrace import DEBUG_VARIABLE, keep_whole, outline
from common.errors import FedwardError, Unforeseen
from server.cli import app as server
from server.roster_cli import app as roster
from simulations import cli
from simulations.audit_cli import audit
from simulations.plan_cli import plan

_FULL_TEXT = f"The exception's text may hold a patient's data and is not shown; {DEBUG_VARIABLE}=FILE keeps it in a file of your own."

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


def main() -> None:
    """Entry point of the `fedward` script. Exit codes: 0 done, 1 and 3 to 5 refused (a named error), 2 wrong usage, 130 interrupted."""
    try:
        app(prog_name="fedward")
    except FedwardError as error:
        _report(error)
        sys.exit(error.exit_code)
    except Exception as error:
        keep_whole(error)
        _report(Unforeseen(f"{outline(error)}.", fix=f"This is a fault in fedward: please report this line. {_FULL_TEXT}"))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; go on with --resume\n")
        sys.exit(130)


def _report(error: FedwardError) -> None:
    """A refusal: for people on standard error and, where `--json` was asked for, as one object on standard output."""
    if "--json" in sys.argv:
        sys.stdout.write(json.dumps({"error": error.as_dict()}, indent=1) + "\n")
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"{error.code}: {error.message}", style="bold red", markup=False)
    if error.fix:
        console.print(error.fix, markup=False)


if __name__ == "__main__":
    main()

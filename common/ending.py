# SPDX-License-Identifier: Apache-2.0
"""How a command ends: a refusal becomes words and an exit code, a fault in fedward its type and place, an interruption a hint.

Exit codes: 0 done, 1 refused (a named error; some have codes of their own, `FedwardError.exit_code`), 2 wrong usage, 130 interrupted. An
exception that nobody foresaw is shown by its type and place alone, since its text may hold a patient's data (`common.backtrace`).
"""

import json
import sys
from collections.abc import Callable
from typing import Final

from rich.console import Console

from common.backtrace import DEBUG_VARIABLE, keep_whole, outline
from common.errors import FedwardError, Unforeseen

_FULL_TEXT: Final = (
    f"The exception's text may hold a patient's data and is not shown; {DEBUG_VARIABLE}=FILE keeps it in a file of your own."
)


def run_to_the_end(command: Callable[[], None]) -> None:
    """Run a command line; what it raises ends the process."""
    try:
        command()
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

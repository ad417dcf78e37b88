# SPDX-License-Identifier: Apache-2.0
"""The front door: `fedward COMMAND`. It mounts the rooms' commands and turns a refusal into words and an exit code."""

import sys

from common.errors import FedwardError


def main() -> None:
    """Entry point of the `fedward` script. Exit codes: 0 done, 1 refused (a named error), 2 wrong usage, 130 interrupted."""
    from simulations.cli import app  # imported here, so that a broken environment is reported by the handler below

    try:
        app(prog_name="fedward")
    except FedwardError as error:
        _refuse(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; a run can be continued with --resume\n")
        sys.exit(130)

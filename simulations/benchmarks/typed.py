# SPDX-License-Identifier: Apache-2.0
"""The command by which figures were made, as it may stand in a file that is handed on."""

import sys
from typing import Final

from simulations.cli import without_paths

_PATHS: Final = ("--data", "--cache", "--out", "--json")


def typed(module: str) -> str:
    """What was typed, without the machine's folders."""
    return " ".join([f"python -m {module}", *without_paths(sys.argv[1:], paths=_PATHS)])

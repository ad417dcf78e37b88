# SPDX-License-Identifier: Apache-2.0
"""`fedward` commands, as an operator types them; many in one interpreter: to start one costs seconds, and seven hospitals need fifty."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import EngineError

Command = Sequence[str | Path | int]
_PROGRAM: Final = """
import json, os, sys
import fedward
from common.errors import FedwardError
for user, command in json.load(sys.stdin):
    print("$ fedward " + " ".join(command), flush=True)
    if user is not None:
        os.setegid(user)
        os.seteuid(user)
    try:
        code = fedward.app(command, prog_name="fedward", standalone_mode=False)
    except FedwardError as error:
        sys.exit(f"{error.code}: {error}")
    if code:
        sys.exit(f"exit code {code}")
    if user is not None:
        os.seteuid(0)
        os.setegid(0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operators:
    """Who types the commands: `users`, one for each of them; and what the program is begun with, so that they can read it."""

    users: Sequence[int] = ()
    begun_with: Sequence[str] = ()


def fedward(*commands: Command, log: Path | None = None, operators: Operators | None = None) -> str:
    """Run them one after another; what they printed, each under its own line. Raises: EngineError, with the failed one's words."""
    by = operators or Operators()
    users: Sequence[int | None] = by.users or [None] * len(commands)
    text = json.dumps([[user, [str(word) for word in command]] for user, command in zip(users, commands, strict=True)])
    done = subprocess.run(  # noqa: S603 - this interpreter, on our own commands
        [*by.begun_with, sys.executable, "-c", _PROGRAM], input=text, capture_output=True, text=True, check=False
    )
    if log is not None:
        with log.open("a") as file:
            file.write(done.stdout + done.stderr)
    if done.returncode:
        last = done.stdout.rpartition("$ ")[2].splitlines()[0] if "$ " in done.stdout else "fedward"
        raise EngineError(f"'{last}' failed: {done.stderr.strip()[-2000:]}", fix="Run it by hand; the rig's folder is as it left it.")
    return done.stdout


def tool(command: Command, *, cwd: Path | None = None) -> str:
    """Another program, to its end. Raises: EngineError, with its words."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    except FileNotFoundError:
        raise EngineError(
            f"'{words[0]}' is not installed.", fix=f"On Debian: apt-get install {_PACKAGE.get(words[0], words[0])}."
        ) from None
    if done.returncode:
        raise EngineError(f"'{' '.join(words)}' failed: {(done.stderr or done.stdout).strip()[-2000:]}", fix="Run it by hand to see why.")
    return done.stdout


_PACKAGE: Final = {"ip": "iproute2", "nft": "nftables"}

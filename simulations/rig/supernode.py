# SPDX-License-Identifier: Apache-2.0
"""A stock SuperNode in a mailbox's place, by the unit that deployments use (deploy/systemd), with one's own places in it.

It is Flower's own program, unchanged: it has the mailbox's key, fetches the coordinator's bundle, and starts a process for every message,
whose ClientApp (client.app) finds the site's socket in its environment and nothing else of the site. For those processes it listens at a
port of its own loopback, where a mailbox listens nowhere.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.errors import EngineError

_DEPLOYED: Final = Path(__file__).parents[2] / "deploy" / "systemd" / "fedward-supernode.service"
_ITS_PORT: Final = "--port 9094"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """How it is started."""

    command: list[str]
    environment: Mapping[str, str]


def started(folder: Path, *, superlink: str, socket: Path, port: int) -> Started:
    """With the mailbox's folder, whose key and authority it takes. Raises: EngineError, if the unit has changed and lacks a place."""
    settings: dict[str, list[str]] = {}
    for line in _placed(folder, superlink=superlink, socket=socket, port=port).splitlines():
        key, _, value = line.partition("=")
        settings.setdefault(key, []).append(value)
    pairs = (pair.partition("=") for line in settings["Environment"] for pair in shlex.split(line))
    return Started(command=shlex.split(settings["ExecStart"][0]), environment={key: value for key, _, value in pairs})


def _placed(folder: Path, *, superlink: str, socket: Path, port: int) -> str:
    text = _DEPLOYED.read_text()
    for there, here in (
        ("/var/lib/fedward/mailbox", str(folder)),
        ("/run/fedward/site.sock", str(socket)),
        ("/opt/fedward/bin", str(Path(sys.executable).parent)),
        ("${FEDWARD_COORDINATOR}", superlink),
        (_ITS_PORT, f"--port {port}"),
    ):
        if there not in text:
            raise EngineError(f"'{there}' is not in '{_DEPLOYED}'.", fix="Bring simulations/rig/supernode.py up to date with it.")
        text = text.replace(there, here)
    return text

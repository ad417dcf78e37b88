# SPDX-License-Identifier: Apache-2.0
"""nginx before the SuperLink, by the file that deployments use (deploy/nginx), with this rig's places and ports in it.

Only those are exchanged, where its logs go, and two limits: all lines of a rig come from one address, where hospitals have one each.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from common.errors import EngineError
from simulations.rig.places import Places

_DEPLOYED: Final = Path(__file__).parents[2] / "deploy" / "nginx" / "nginx.conf"


def configure(places: Places, *, listen: tuple[str, int], superlink: int) -> Path:
    """Write the rig's own; returns its file. Raises as `placed`."""
    authority = places.coordinator / "tls" / "ca.crt"
    return placed(places.folder / "nginx", live=places.proxy / "live", authority=authority, listen=listen, superlink=superlink)


def placed(folder: Path, *, live: Path, authority: Path, listen: tuple[str, int], superlink: int) -> Path:
    """Write the deployed file with one's own places: `live` has the proxy's certificate, `authority` is the SuperLink's.

    Raises: EngineError, if the deployed one has changed so that something is not found in it.
    """
    folder.mkdir(exist_ok=True)
    host, port = listen
    text = _DEPLOYED.read_text()
    for there, here in (
        (" /tmp/", f" {folder}/"),
        ("/etc/fedward/tls/live", str(live)),
        ("/etc/fedward/superlink/ca.crt", str(authority)),
        ("listen 8443 ssl", f"listen {host}:{port} ssl"),
        ("        listen [::]:8443 ssl;\n", ""),
        ("server 127.0.0.1:8000", f"server 127.0.0.1:{superlink}"),
        ("limit_conn each 64", "limit_conn each 1024"),
        ("limit_conn uploads 24", "limit_conn uploads 1024"),
        ("error_log /dev/stderr", f"error_log {folder}/error.log"),
        ("access_log /dev/stdout", f"access_log {folder}/access.log"),
        ("worker_processes auto", "worker_processes 1"),
    ):
        if there not in text:
            raise EngineError(f"'{there.strip()}' is not in '{_DEPLOYED}'.", fix="Bring simulations/rig/front.py up to date with it.")
        text = text.replace(there, here)
    file = folder / "nginx.conf"
    file.write_text(text)
    return file


def command(configuration: Path) -> Sequence[str]:
    """How nginx is started with it."""
    return ["nginx", "-e", "stderr", "-p", str(configuration.parent), "-c", str(configuration)]

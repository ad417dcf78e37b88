# SPDX-License-Identifier: Apache-2.0
"""What a message costs on its way: a stock SuperLink, the carrier, the socket, and back.

    python -m simulations.benchmarks.transport --out FILE

Everything is real but the site, which sends back what it got: SuperLink and SuperExec with node authentication, mailboxes or stock
SuperNodes, and a gRPC server at a Unix-domain socket for each site. The time is from the coordinator's push to the last reply in its hands.
"""

import json
import os
import shutil
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tomli_w

from client import serve
from common import envelope, transport_key
from common.envelope import Envelope, Head
from common.transport_key import KEY_FILE
from server import control, tls
from server.control import Control
from simulations.benchmarks.transport_app import ASK_FILE, FOLDER_VARIABLE, TOLD_FILE

SERVER_APP: Final = "simulations.benchmarks.transport_app:app"
_LARGEST: Final = 1 << 30
_UP_S: Final = 60.0
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A SuperLink that runs now."""

    address: str
    control: Control
    authority: Path
    folder: Path


@contextmanager
def superlink(folder: Path, *, port: int | None = None) -> Iterator[Link]:
    """A stock SuperLink with TLS and node authentication, its ServerApps its own children; on the same folder it goes on where it was."""
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    secured = tls.Place(ca=folder / "ca.crt", certificate=folder / "server.crt", key=folder / "server.key")
    if not secured.ca.exists():
        tls.create(secured, names=tls.LOOPBACK, now=tls.now())
    command = [
        *(script("flower-superlink"), "--host", "127.0.0.1", "--port", str(port), "--disable-runtime-dependency-installation"),
        *("--enable-supernode-auth", "--database", str(folder / "state.db"), "--ssl-ca-certfile", str(secured.ca)),
        *("--ssl-certfile", str(secured.certificate), "--ssl-keyfile", str(secured.key)),
    ]
    environment = {**os.environ, **quiet(folder), FOLDER_VARIABLE: str(folder)}
    with running(command, folder / "superlink.log", environment):
        until(lambda: answers(port), _UP_S)
        found = Control(f"127.0.0.1:{port}", secured.ca.read_bytes())
        try:
            yield Link(address=found.address, control=found, authority=secured.ca, folder=folder)
        finally:
            found.close()


def ask(link: Link, *, nodes: int, trips: list[dict[str, Any]], timeout_s: float = 120.0) -> list[dict[str, Any]]:
    """Run the ServerApp once, and read what it was told."""
    (link.folder / TOLD_FILE).unlink(missing_ok=True)
    (link.folder / ASK_FILE).write_text(json.dumps({"nodes": nodes, "trips": trips, "timeout_s": timeout_s}))
    before = control.SERVER_APP
    vars(control)["SERVER_APP"] = SERVER_APP
    try:
        link.control.start_run()
    finally:
        vars(control)["SERVER_APP"] = before
    until((link.folder / TOLD_FILE).exists, timeout_s + 60.0)
    told: list[dict[str, Any]] = json.loads((link.folder / TOLD_FILE).read_text())
    return told


def new_mailbox(folder: Path, link: Link, *, socket: Path) -> Path:
    """A mailbox's folder, whose key the SuperLink knows."""
    folder.mkdir(mode=0o700, parents=True)
    shutil.copy(link.authority, folder / "ca.crt")
    file = {"superlink": {"address": link.address, "root_certificates": "ca.crt"}, "site": {"socket": str(socket)}}
    (folder / "mailbox.toml").write_text(tomli_w.dumps(file))
    link.control.register(folder.name, transport_key.as_pem(transport_key.create(folder / KEY_FILE, name=folder.name)))
    return folder


@contextmanager
def mailbox(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`fedward site join`, as its own process."""
    command = [sys.executable, "-m", "client.mailbox", "--mailbox", str(folder), "--log-format", "json"]
    with running(command, folder / "mailbox.log", {**os.environ, **quiet(folder)}) as process:
        yield process


@contextmanager
def supernode(folder: Path, *, address: str, port: int, environment: dict[str, str], extra: tuple[str, ...] = ()) -> Iterator[Any]:
    """A stock SuperNode with that mailbox's key."""
    command = [
        *(
            script("flower-supernode"),
            "--root-certificates",
            str(folder / "ca.crt"),
            "--superlink",
            address,
            "--auth-supernode-private-key",
            str(folder / KEY_FILE),
        ),
        *("--port", str(port), *extra),
    ]
    with running(command, folder / "supernode.log", {**os.environ, **quiet(folder), **environment}) as process:
        yield process


@contextmanager
def echo(socket: Path) -> Iterator[None]:
    """A site process that says what it was told."""

    def converse(arriving: Iterator[bytes], context: Any) -> Iterator[bytes]:
        del context
        got = envelope.read(arriving, largest_vector=_LARGEST)
        fields = {**got.head.fields, "type": "secure.reply", "site": "echo"}
        yield from envelope.pieces(
            Envelope(head=Head(message_type=got.head.message_type, fields=fields, vector=got.head.vector), data=got.data)
        )

    socket.parent.mkdir(parents=True, exist_ok=True)
    server = serve.listen(converse, socket)
    try:
        yield
    finally:
        server.stop(grace=0).wait()


@contextmanager
def running(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A child that ends with this block, and its own children with it."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=_ROOT, start_new_session=True)  # noqa: S603 - our own
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def quiet(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "FLWR_HOME": str(folder / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    }


def script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def free_port() -> int:
    with sockets.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def answers(port: int) -> bool:
    with sockets.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def until(ready: Any, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"not ready after {timeout_s:g} s")
        time.sleep(0.1)

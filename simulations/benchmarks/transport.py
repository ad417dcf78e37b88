# SPDX-License-Identifier: Apache-2.0
"""What a message costs on its way: a stock SuperLink, the carrier, the socket, and back.

    python -m simulations.benchmarks.transport --out docs/figures/transport.json

Everything is real but the site, which sends back what it got: SuperLink and SuperExec with node authentication, mailboxes or stock
SuperNodes, and a gRPC server at a Unix-domain socket for each site. The time is from the coordinator's push to the last reply in its hands.
"""

import argparse
import json
import os
import shutil
import signal
import socket as sockets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import tomli_w
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.fab import Fab

from client.process import serve
from common import envelope, transport_key
from common.envelope import Envelope, Head
from common.transport_key import KEY_FILE
from server.process import control, tls
from server.process.control import Control
from simulations.benchmarks.footprint import PeakWatch, pss_bytes, tree
from simulations.benchmarks.transport_app import ASK_FILE, FOLDER_VARIABLE, TOLD_FILE
from simulations.benchmarks.typed import typed
from simulations.rig.supernode import started

SERVER_APP: Final = "simulations.benchmarks.transport_app:app"
_LARGEST: Final = 1 << 30
_UP_S: Final = 60.0
_DOWN_S: Final = 15.0
_LOOK_S: Final = 0.5
_REST_S: Final = 3.0
_PATIENCE_S: Final = 300.0
_ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A SuperLink that runs now."""

    address: str
    control: Control
    authority: Path
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a run brings along for nodes that fetch it: by default two names, which the node's own installation answers to."""

    app: str = control.CLIENT_APP
    files: Mapping[str, bytes] = field(default_factory=dict)
    config: Mapping[str, float] = field(default_factory=dict)


NO_CODE: Final = Bundle()


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


def ask(link: Link, *, nodes: int, trips: list[dict[str, Any]], timeout_s: float = 120.0, client: Bundle = NO_CODE) -> list[dict[str, Any]]:
    """Run the ServerApp once, and read what it was told. `client` is what stock SuperNodes fetch and run."""
    (link.folder / TOLD_FILE).unlink(missing_ok=True)
    (link.folder / ASK_FILE).write_text(json.dumps({"nodes": nodes, "trips": trips, "timeout_s": timeout_s}))
    app = {"publisher": "fedward", "components": {"serverapp": SERVER_APP, "clientapp": client.app}, "config": dict(client.config)}
    project = {"project": {"name": "trips", "version": "1.0.0"}, "tool": {"flwr": {"app": app}}}
    content, _ = build_fab_from_files({"pyproject.toml": tomli_w.dumps(project).encode(), **client.files})
    link.control._client.StartRun(StartRunRequest(fab=fab_to_proto(Fab("", content, {}))))
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
def supernode(folder: Path, link: Link, *, socket: Path, program: Sequence[str] = (), **run: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A stock SuperNode with that mailbox's key and nothing else of the site but the socket. `run` is for another user to run it."""
    stock = started(folder, superlink=link.address, socket=socket, port=free_port())
    command = [*(program or stock.command[:1]), *stock.command[1:]]
    environment = {**os.environ, **quiet(folder), **stock.environment, **run.pop("environment", {})}
    with running(command, folder / "supernode.log", environment, **run) as process:
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
def running(command: list[str], log: Path, environment: Mapping[str, str], **run: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child that ends with this block, and its own children with it."""
    with log.open("ab") as file:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            command, stdout=file, stderr=file, env=environment, start_new_session=True, **{"cwd": _ROOT, **run}
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_DOWN_S)
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


CARRIERS: Final = ("mailbox", "stock SuperNode")
SMALL: Final = {"name": "1 kB", "type": "query.fsa1_share", "control": 1000, "values": 0}
LARGE: Final = {"name": "40 MB", "type": "train.fsa1", "control": 1000, "values": 10_000_000}


def measure(carrier: str, trip: Mapping[str, Any], *, sites: int, times: int) -> dict[str, Any]:
    """Seconds from push to the last reply: the first trip, which finds everything cold, and the others; and what one carrier takes."""
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        link = stack.enter_context(superlink(folder / "superlink"))
        folders, carriers = [], []
        for number in range(sites):
            socket = folder / f"site-{number}" / "site.sock"
            stack.enter_context(echo(socket))
            folders.append(new_mailbox(folder / f"node-{number}", link, socket=socket))
            carriers.append(
                stack.enter_context(mailbox(folders[-1]) if carrier == "mailbox" else supernode(folders[-1], link, socket=socket))
            )
        with PeakWatch(carriers[0].pid, every_s=_LOOK_S) as most:
            told = ask(link, nodes=sites, trips=[{**trip, "times": times + 1}], timeout_s=_PATIENCE_S)
        time.sleep(_REST_S)
        memory = {"processes": most.most_processes, "pss_mb": _mb(most.peak_bytes), "pss_mb_at_rest": _mb(pss_bytes(tree(carriers[0].pid)))}
        bad = [each for each in told if len(each["replies"]) < sites or any("error" in reply for reply in each["replies"])]
        if bad:
            raise RuntimeError(f"{carrier}, {trip['name']}: {bad[:1]}")
        first, *rest = (each["seconds"] for each in told)
        stats = [json.loads((each / "stats.json").read_text()) for each in folders] if carrier == "mailbox" else []
    found = {"carrier": carrier, "trip": trip["name"], "sites": sites, "times": times, "load": [load, os.getloadavg()[0]], "first_s": first}
    sent = {"sent": sum(each["sent"] for each in stats), "again": sum(each["again"] for each in stats)} if stats else {}
    return {**found, "median_s": statistics.median(rest), "least_s": min(rest), "most_s": max(rest), **sent, **memory}


def _mb(size: int) -> int:
    return round(size / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--times", type=int, default=10, help="trips of a small message; a quarter of it for large ones")
    parser.add_argument(
        "--carrier", nargs="*", choices=CARRIERS, default=CARRIERS, help="these alone; rows of others stay as they are in OUT"
    )
    chosen = parser.parse_args()
    before = json.loads(chosen.out.read_text())["rows"] if chosen.out.exists() else []
    rows = {(row["carrier"], row["trip"]): row for row in before}
    for carrier in chosen.carrier:
        for trip, sites, times in ((SMALL, 3, chosen.times), (LARGE, 1, max(1, chosen.times // 4))):
            rows[carrier, trip["name"]] = row = measure(carrier, trip, sites=sites, times=times)
            sys.stdout.write(f"{row}\n")
            _write(chosen.out, list(rows.values()))


def _write(out: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """After each row: the next one may fail."""
    machine = {"cores": os.cpu_count(), "python": sys.version.split()[0], "flwr": version("flwr")}
    out.write_text(json.dumps({"command": typed("simulations.benchmarks.transport"), "machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

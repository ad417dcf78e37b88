# SPDX-License-Identifier: Apache-2.0
"""`fedward site serve` as an operator starts it: a process of its own, seen from outside."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.membership.pause import PAUSED_FILE
from client.process import door, place
from client.process.serve import LOCK_FILE
from client.process.serve_cli import next_step
from client.process.status import Refused, Status
from common import wire
from common.errors import SiteAway
from common.plan import digest_of
from common.records import FIELDS, to_content, to_envelope
from fedward import app
from tests.client.hospitals import Hospitals, hospitals
from tests.client.processes import ROOT, ending, site_process, wait_for


@dataclass(frozen=True, slots=True)
class Running:
    everybody: Hospitals
    process: subprocess.Popen[bytes]
    socket: Path

    @property
    def home(self) -> Path:
        return self.everybody.first


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("hospital")
    everybody = hospitals(folder, ("north",))
    with site_process(everybody.first, socket=folder / "door" / "site.sock") as process:
        yield Running(everybody, process, folder / "door" / "site.sock")


def hello(socket: Path, everybody: Hospitals) -> object:
    question = to_envelope(wire.HELLO, wire.encode_hello(wire.Hello(plan=digest_of(everybody.plan))))
    return to_content(door.ask(socket, question, patience_s=30))[FIELDS]["site"]


def sockets_of(process: int) -> set[str]:
    """The inodes of the sockets that a process holds."""
    links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{process}/fd") if os.path.islink(entry.path)]
    return {link.removeprefix("socket:[").rstrip("]") for link in links if link.startswith("socket:")}


def inodes_in(table: str, process: int) -> set[str]:
    rows = Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]
    return {row.split()[6 if table == "unix" else 9] for row in rows}


NETWORKS = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "udplite")


def test_it_holds_no_socket_but_the_one_in_the_file_system(running: Running) -> None:
    """While it answers: nothing of TCP, UDP or raw IP, listening or connected."""
    assert hello(running.socket, running.everybody) == "north"
    held = sockets_of(running.process.pid)
    tables = [table for table in NETWORKS if Path(f"/proc/{running.process.pid}/net/{table}").exists()]
    assert {"tcp", "udp"} <= set(tables)
    for table in tables:
        assert not held & inodes_in(table, running.process.pid), table
    assert held & inodes_in("unix", running.process.pid)


def test_what_it_writes_and_remembers_is_its_owners_alone(running: Running) -> None:
    limits = Path(f"/proc/{running.process.pid}/limits").read_text()
    (core,) = [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core == ["0", "0"]
    assert "Umask:\t0077" in Path(f"/proc/{running.process.pid}/status").read_text()
    for name in ("status.json", LOCK_FILE):
        assert (running.home / name).stat().st_mode & 0o777 == 0o600


def fedward(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


def test_status_says_where_it_stands_to_people_and_to_machines(running: Running) -> None:
    told = fedward("site", "status", "--home", str(running.home))
    assert "site north: waiting since" in told
    heard = json.loads(fedward("site", "status", "--home", str(running.home), "--json"))["heard"]
    assert ("Next: start the mailbox" if heard is None else "Next: nothing; the coordinator asks") in told
    found = json.loads(fedward("site", "status", "--home", str(running.home), "--json"))
    assert (found["running"], found["state"], found["roster_epoch"]) == (True, "waiting", 1)
    assert found["plan"] == digest_of(running.everybody.plan)
    assert found["process"] == running.process.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_it_ends_when_it_is_told_to_and_says_so(tmp_path: Path, number: signal.Signals) -> None:
    home = hospitals(tmp_path, ("north",)).first
    socket = tmp_path / "door" / "site.sock"
    with site_process(home, socket=socket) as process:
        process.send_signal(number)
        assert process.wait(20) == 0
    assert not socket.exists()
    told = json.loads(fedward("site", "status", "--home", str(home), "--json"))
    assert (told["running"], told["state"]) == (False, "stopped")
    assert "it is not running" in told["next"]


@pytest.mark.slow
def test_after_a_kill_it_starts_again_on_the_same_home_and_socket(tmp_path: Path) -> None:
    everybody = hospitals(tmp_path, ("north",))
    socket = tmp_path / "door" / "site.sock"
    with site_process(everybody.first, socket=socket) as process:
        process.kill()
        process.wait(10)
    assert socket.exists()
    with site_process(everybody.first, socket=socket):
        assert hello(socket, everybody) == "north"


@pytest.mark.slow
def test_it_answers_in_a_network_namespace_with_nothing_in_it(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and util-linux's unshare, to make a network namespace")
    everybody = hospitals(tmp_path, ("north",))
    socket, log = tmp_path / "site.sock", tmp_path / "log"
    tmp_path.chmod(0o700)
    command = ["unshare", "-n", sys.executable, "-m", "fedward", "site", "serve", "--home", str(everybody.first), "--socket", str(socket)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT)
    try:
        wait_for(lambda: "started" in log.read_text() or process.poll() is not None, within_s=60)
        interfaces = Path(f"/proc/{process.pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
        assert hello(socket, everybody) == "north"
    finally:
        process.terminate()
        assert process.wait(20) == 0


TRAINS_FOR_LONG = """
import sys, time
from pathlib import Path
from client.process import serve
from client.process.events import Log
from client.site import Site
Site.secure = lambda self, request: time.sleep(600)
home, socket = map(Path, sys.argv[1:])
serve.serve(serve.Serving(home=home, socket=socket, log=Log(who="site", form="json"), grace_s=0.5), version="0")
"""


@pytest.mark.slow
def test_told_to_stop_in_the_middle_of_training_it_gives_the_step_up_and_says_so(tmp_path: Path) -> None:
    home, socket, log = hospitals(tmp_path, ("north",)).first, tmp_path / "door" / "site.sock", tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-c", TRAINS_FOR_LONG, str(home), str(socket)], stdout=file, stderr=file, cwd=ROOT)
    with ending(process), ThreadPoolExecutor(1) as thread:
        wait_for(lambda: "started" in log.read_text() or process.poll() is not None, within_s=60)
        step = to_envelope(wire.SECURE["KEYS"], wire.encode_secure_request(wire.SecureRequest(round=3, control=bytes(8))))
        asked = thread.submit(door.ask, socket, step, patience_s=60)
        wait_for(lambda: json.loads((home / "status.json").read_text())["state"] == "training", within_s=30)
        process.terminate()
        assert process.wait(20) == 0
        with pytest.raises(SiteAway):
            asked.result(30)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["started", "abandoned", "stopped"]
    assert (events[1]["type"], events[1]["round"]) == ("train.fsa1", 3)


NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("found", "running", "expected"),
    [
        (None, False, "fedward site approve PLAN"),
        (Status(site="north"), False, "it is not running"),
        (Status(site="north"), True, "start the mailbox"),
        (Status(site="north", heard=NOW), True, "nothing; the coordinator asks"),
        (Status(site="north", heard=NOW, refused=(Refused(at=NOW, code="E_DATA", type="t", round=1),)), True, "see E_DATA"),
        (Status(site="north", heard=NOW + 1, refused=(Refused(at=NOW, code="E_DATA", type="t", round=1),)), True, "nothing; the coord"),
    ],
)
def test_the_next_step_is_named(tmp_path: Path, found: Status | None, *, running: bool, expected: str) -> None:
    assert expected in next_step(tmp_path, found, running=running)


def test_a_paused_site_is_told_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / PAUSED_FILE).touch()
    assert "fedward site resume" in next_step(tmp_path, None, running=True)


def test_a_status_that_is_damaged_is_named(tmp_path: Path) -> None:
    everybody = hospitals(tmp_path, ("north",))
    (everybody.first / "status.json").write_text('{"format": 99}')
    done = CliRunner().invoke(app, ["site", "status", "--home", str(everybody.first)])
    assert "E_STATUS" in f"{getattr(done.exception, 'code', '')}"


def test_nobody_holds_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert not place.is_taken(tmp_path, "serve.lock")

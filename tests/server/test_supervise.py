# SPDX-License-Identifier: Apache-2.0
"""`fedward server start` on a real SuperLink, without a single site: what is killed comes back, and nothing outlives its supervisor."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import transport_key
from common.errors import TransportError
from common.plan import to_toml
from server.home import STOP_FILE, CoordinatorHome
from server.live.processes import PROCESSES_FILE, read_processes
from server.process.control import Control
from server.process.processes import Identity
from tests.journeys.made import made_scenario
from tests.server.coordinators import Running, a_consortium, made_coordinator, started, wait_until

pytestmark = pytest.mark.slow
BACK_WITHIN_S = 180


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    """A coordinator's folder, and the keys of two mailboxes."""
    plan = tmp_path / "plan.toml"
    plan.write_text(to_toml(made_scenario(private=False).plan))
    made = made_coordinator(tmp_path / "coordinator", plan, a_consortium(("east", "north", "west")))
    for site in ("east", "north"):
        transport_key.create(tmp_path / f"{site}.key", name=site)
        (tmp_path / f"{site}.pub").rename(made.nodes / f"{site}.pub")
    return made


@pytest.fixture
def running(home: CoordinatorHome) -> Iterator[Running]:
    with started(home) as begun:
        begun.wait_for("run_submitted")
        yield begun


def registered(home: CoordinatorHome) -> set[str]:
    """Whom the SuperLink lets in; nobody, while it does not answer."""
    control = Control(home.address, home.ca.read_bytes())
    try:
        return {node.name for node in control.nodes() if not node.gone}
    except TransportError:
        return set()
    finally:
        control.close()


def test_each_process_that_is_killed_is_back_and_a_lost_database_is_made_anew(running: Running, home: CoordinatorHome) -> None:
    """One start for all of it, because each takes seconds: the ServerApp, the SuperExec, the SuperLink, and its database."""
    first = running.app_pid()
    os.kill(first, signal.SIGKILL)
    running.wait_for("run_submitted", times=2, within_s=BACK_WITHIN_S)
    second = running.app_pid(within_s=BACK_WITHIN_S)
    assert second != first

    os.kill(running.pid_of("superexec"), signal.SIGKILL)
    running.wait_for("run_submitted", times=3, within_s=BACK_WITHIN_S)
    third = running.app_pid(within_s=BACK_WITHIN_S)
    assert third not in (first, second), "the ServerApp lived on without the SuperExec that started it"

    os.kill(running.pid_of("superlink"), signal.SIGKILL)
    running.wait_for("process_started", process="superlink", times=2, within_s=BACK_WITHIN_S)
    wait_until(lambda: registered(home) == {"east", "north"}, within_s=BACK_WITHIN_S)
    assert Identity.of(third) is not None, "a SuperLink that comes back finds its ServerApp still running"

    for path in home.superlink.glob("state.db*"):
        path.unlink()
    running.wait_for("process_started", process="superlink", times=3, within_s=BACK_WITHIN_S)
    running.wait_for("node_registered", times=4, within_s=BACK_WITHIN_S)
    assert registered(home) == {"east", "north"}
    running.wait_for("run_submitted", times=4, within_s=BACK_WITHIN_S)
    assert running.app_pid(within_s=BACK_WITHIN_S) != third


def test_told_to_stop_it_leaves_nothing_and_a_second_one_on_the_folder_is_refused(running: Running, home: CoordinatorHome) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "fedward", "server", "start", "--folder", str(home.folder)], capture_output=True, text=True, timeout=300
    )
    assert second.returncode == 5
    assert f"E_COORDINATOR_RUNNING: a coordinator runs on '{home.folder}' already (process {running.process.pid})" in second.stderr
    ours = [running.pid_of("superlink"), running.pid_of("superexec"), running.app_pid()]
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(timeout=120) == 3
    assert "E_STOPPED" in running.words()
    assert [pid for pid in ours if Identity.of(pid)] == []
    assert [each.state for each in read_processes(home.run / PROCESSES_FILE)] == ["stopped"] * 3


def test_its_operator_stops_it_by_a_command_and_the_run_has_the_last_word(running: Running, home: CoordinatorHome) -> None:
    running.app_pid()
    (home.run / STOP_FILE).touch()
    assert running.process.wait(timeout=120) == 3
    assert "E_STOPPED: the run was told to stop" in running.words()
    with started(home) as again:
        again.wait_for("run_submitted", times=2)
        assert not (home.run / STOP_FILE).exists(), "a start means going on"


def test_killed_itself_it_takes_everything_along_and_the_next_one_goes_on(running: Running, home: CoordinatorHome) -> None:
    ours = [running.pid_of("superlink"), running.pid_of("superexec"), running.app_pid()]
    running.process.kill()
    running.process.wait()
    wait_until(lambda: not any(Identity.of(pid) for pid in ours), within_s=10)
    assert [pid for pid in ours if Identity.of(pid)] == []
    with started(home) as again:
        again.wait_for("run_submitted", times=2)


def test_a_damaged_database_is_put_aside(home: CoordinatorHome) -> None:
    home.superlink.mkdir()
    (home.superlink / "state.db").write_bytes(b"SQLite format 3\0" + os.urandom(20_000))
    with started(home) as begun:
        begun.wait_for("run_submitted")
        assert [line["event"] for line in begun.lines()].count("database_put_aside") == 1
    assert (home.superlink / "damaged" / "state.db").read_bytes().startswith(b"SQLite format 3\0")


def test_a_port_that_is_taken_is_named_before_anything_is_started(home: CoordinatorHome) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", home.file.superlink.port))
        other.listen()
        with started(home) as begun:
            assert begun.process.wait(timeout=300) == 4
        assert f"E_ADDRESS_TAKEN: {home.address} cannot be listened on" in begun.words()
        assert not [line for line in begun.lines() if line["event"] == "process_started"]


def test_whoever_is_not_registered_is_not_let_in(running: Running, home: CoordinatorHome) -> None:
    """The SuperLink asks for node keys, and knows those of nodes/ alone."""
    assert registered(home) == {"east", "north"}
    command = Path(f"/proc/{running.pid_of('superlink')}/cmdline").read_text().split("\0")
    assert "--enable-supernode-auth" in command
    assert command[command.index("--host") + 1] == "127.0.0.1"
    (home.nodes / "north.pub").unlink()
    running.wait_for("node_unregistered", site="north", within_s=30)
    assert registered(home) == {"east"}

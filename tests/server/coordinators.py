# SPDX-License-Identifier: Apache-2.0
"""A coordinator's folder made with the command that operators type, and a coordinator that runs on it as a process of its own."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from common import keyfile
from common.credentials import ROOTS_FILE, ROSTER_FILE
from common.roster import render_roots
from fedward import app
from server.home import LOG_FILE, CoordinatorHome
from server.process.processes import Lock
from simulations import consortium
from simulations.consortium import Consortium


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def made_coordinator(folder: Path, plan: Path, members: Consortium) -> CoordinatorHome:
    """As `fedward server init` makes it, with a signed roster put into it."""
    keys = folder.parent / f"{folder.name}-key"
    keys.mkdir()
    keyfile.create(keys / "coordinator.key", "coordinator", entropy=lambda _: members.coordinator.seed)
    command = ["server", "init", str(folder), "--plan", str(plan), "--key", str(keys / "coordinator.key")]
    done = CliRunner().invoke(app, [*command, "--port", str(free_port()), "--live-port", "0"])
    assert done.exit_code == 0, done.output
    (folder / ROSTER_FILE).write_bytes(members.signed_roster)
    (folder / ROOTS_FILE).write_bytes(render_roots(members.roots))
    return CoordinatorHome.open(folder)


def a_consortium(sites: Sequence[str]) -> Consortium:
    return consortium.found(sites, entropy=secrets.token_bytes, now=int(time.time()) - 60)


@dataclass
class Running:
    """`fedward server start` on a folder."""

    home: CoordinatorHome
    process: subprocess.Popen[bytes]

    def lines(self) -> list[dict[str, Any]]:
        path = self.home.run / LOG_FILE
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, event: str, *, times: int = 1, within_s: float = 300, **facts: object) -> dict[str, Any]:
        """The line of the log that says so, once there are so many of them."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines() if line["event"] == event and all(line.get(name) == fact for name, fact in facts.items())]

        wait_until(lambda: len(found()) >= times or self.process.poll() is not None, within_s=within_s)
        assert len(found()) >= times, f"no {event} {facts}: {self.lines()[-20:]}; {self.words()}"
        return found()[times - 1]

    def words(self) -> str:
        return (self.home.folder / "start.log").read_text()[-2000:]

    def pid_of(self, name: str) -> int:
        """Of the SuperLink or the SuperExec."""
        return int([line for line in self.lines() if line["event"] == "process_started" and line["process"] == name][-1]["pid"])

    def app_pid(self, *, within_s: float = 300) -> int:
        """Of the ServerApp, once it has the run."""
        wait_until(lambda: Lock.holder(self.home.run / "coordinator.lock") is not None, within_s=within_s)
        holder = Lock.holder(self.home.run / "coordinator.lock")
        assert holder is not None, self.words()
        return holder.pid


def wait_until(is_true: Callable[[], bool], *, within_s: float) -> None:
    """Until it is, or for so long."""
    until = time.monotonic() + within_s
    while not is_true() and time.monotonic() < until:
        time.sleep(0.05)


@contextmanager
def started(home: CoordinatorHome, **environment: str) -> Iterator[Running]:
    """A running coordinator; whatever happens, nothing of it is left behind."""
    with (home.folder / "start.log").open("wb") as words:
        command = [sys.executable, "-m", "fedward", "server", "start", "--folder", str(home.folder)]
        process = subprocess.Popen(command, stdout=words, stderr=words, env={**os.environ, **environment})
        try:
            yield Running(home, process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=90)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

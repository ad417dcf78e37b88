# SPDX-License-Identifier: Apache-2.0
"""`fedward site join` against a real SuperLink with TLS and node keys: through kills at both ends, and a database that is lost."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from client.mailbox.life import NODE_FILE
from common import transport_key
from simulations.benchmarks import transport
from simulations.benchmarks.transport import Link
from tests.client.processes import ROOT, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")]

SMALL = {"name": "small", "type": "query.fsa1_mask", "control": 1000, "values": 0, "times": 1}
LARGE = {"name": "large", "type": "train.fsa1", "control": 1000, "values": 2_000_000, "times": 1}
BACK_WITHIN_S = 20.0
"""Flower itself lets a killed node back in after 45 to 63 s."""


class Way:
    """A SuperLink that may be ended and begun again, and a site behind a mailbox."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.port = folder, transport.free_port()
        self.socket = folder / "site" / "site.sock"
        stack.enter_context(transport.echo(self.socket))
        self.link = self.begin(stack)
        self.mailbox = transport.new_mailbox(folder / "mailbox", self.link, socket=self.socket)

    def begin(self, stack: ExitStack) -> Link:
        self.superlink = transport.superlink(self.folder / "superlink", port=self.port)
        self.link = stack.enter_context(self.superlink)
        return self.link

    def stats(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.mailbox / "stats.json").read_text())
        except FileNotFoundError:
            return {"connected": False, "process": 0}
        return found

    def is_up(self, process: subprocess.Popen[bytes]) -> bool:
        found = self.stats()
        return bool(found["connected"]) and found["process"] == process.pid

    def carries(self, trip: dict[str, Any] = SMALL) -> None:
        (told,) = transport.ask(self.link, nodes=1, trips=[trip])
        assert [reply["fields"]["site"] for reply in told["replies"]] == ["echo"], told
        assert told["replies"][0]["bytes"] == 4 * trip["values"]


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    with ExitStack() as stack:
        yield Way(tmp_path, stack)


def test_a_mailbox_that_is_killed_is_back_at_once_under_its_number(way: Way) -> None:
    with transport.mailbox(way.mailbox) as process:
        wait_for(lambda: way.is_up(process), within_s=60)
        way.carries()
        number = (way.mailbox / NODE_FILE).read_text()
        process.kill()
        process.wait(10)
    with transport.mailbox(way.mailbox) as process:
        wait_for(lambda: way.is_up(process), within_s=BACK_WITHIN_S)
        assert (way.mailbox / NODE_FILE).read_text() == number
        way.carries(LARGE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not any(node.online for node in way.link.control.nodes()), "it signed off"
    with transport.mailbox(way.mailbox) as process:
        wait_for(lambda: way.is_up(process), within_s=BACK_WITHIN_S)


def test_it_outlives_a_superlink_that_is_killed_and_one_that_forgot_everything(way: Way) -> None:
    with transport.mailbox(way.mailbox) as process, ExitStack() as second:
        wait_for(lambda: way.is_up(process), within_s=60)
        way.carries()
        way.superlink.__exit__(None, None, None)
        wait_for(lambda: not way.stats()["connected"], within_s=60)
        for path in (way.folder / "superlink").glob("state.db*"):
            path.unlink()
        way.begin(second)
        wait_for(lambda: way.stats()["code"] == "E_NODE_KEY", within_s=60)
        way.link.control.register("north", transport_key.as_pem(transport_key.read_public(way.mailbox / "node.pub")))
        wait_for(lambda: way.is_up(process), within_s=60)
        way.carries()
        assert process.poll() is None


def test_a_second_mailbox_and_an_open_folder_are_refused(way: Way) -> None:
    command = [sys.executable, "-m", "fedward", "site", "join", "--mailbox", str(way.mailbox)]
    with transport.mailbox(way.mailbox) as process:
        wait_for(lambda: way.is_up(process), within_s=60)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 5
        assert done.stderr.startswith("E_SITE_RUNNING: another mailbox works in")
    way.mailbox.chmod(0o750)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr.startswith("E_SECRET_FILE:")
    assert "chmod 0700" in done.stderr

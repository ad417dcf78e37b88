# SPDX-License-Identifier: Apache-2.0
"""The page's server: who may ask, what is answered, and that nothing can be written or lost by asking."""

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from common.errors import AddressTaken
from server.live import story
from server.live.processes import PROCESSES_FILE, Process, write_processes
from server.live.serve import serve
from server.live.status import STATUS_FILE, write_status
from tests.server.live.runs import SITES, begun, whole_round

PAGE = files("server.live") / "page"
PATHS = ("/", "/live.css", "/live.js", "/status.json", "/metrics")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_status(tmp_path / STATUS_FILE, whole_round(begun(), 1, now=1000.0, lost={"mercy": "E_PRIVACY_BUDGET"}))
    write_processes(tmp_path / PROCESSES_FILE, [Process(name="superlink", state="running", since=900.0)])
    return tmp_path


@pytest.fixture
def address(run: Path) -> Iterator[tuple[str, int]]:
    with serve(run, port=0) as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


def ask(address: tuple[str, int], path: str, *, method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection(*address, timeout=5)) as connection:
        connection.putrequest(method, path, skip_host=True)
        if host != "":
            connection.putheader("Host", host or f"{address[0]}:{address[1]}")
        connection.endheaders()
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()


def test_the_page_and_all_it_needs_come_from_here(address: tuple[str, int]) -> None:
    for path in PATHS:
        status, headers, body = ask(address, path)
        assert (status, headers["x-content-type-options"], headers["cache-control"]) == (200, "nosniff", "no-store"), path
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert body


def test_nothing_in_the_page_names_another_address() -> None:
    for name in ("index.html", "live.css", "live.js"):
        text = (PAGE / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z0-9-]+\.|@import|url\(", text), name
        assert "innerHTML" not in text, "what a site is called is text, never markup"
    assert not re.search(r" style=| on\w+=|<script>", (PAGE / "index.html").read_text(encoding="utf-8")), "the policy would refuse it"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_can_be_written(address: tuple[str, int], run: Path, method: str) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    for path in PATHS:
        assert ask(address, path, method=method)[0] == 405, path
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize(
    "path", ["/status.json/", "/..%2fstatus.json", "/%2e%2e/%2e%2e/etc/passwd", "/journal.sqlite", "/docs", "/live.py"]
)
def test_there_is_nothing_else(address: tuple[str, int], path: str) -> None:
    status, _, body = ask(address, path)
    assert status in (307, 404)
    assert b"root:" not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8800", "127.0.0.1.evil.example", "localhost.evil.example", "[::1].evil.example", "", "@"]
)
def test_another_name_that_leads_here_gets_nothing(address: tuple[str, int], host: str) -> None:
    """A page elsewhere whose name is looked up anew until it is this machine: DNS rebinding."""
    for path in PATHS:
        status, headers, body = ask(address, path, host=host)
        assert status in (400, 421), (path, host)
        assert b"lung" not in body
        assert "text/plain" in headers["content-type"]


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:9000", "[::1]:8800", "LOCALHOST:1", "10.0.0.7"])
def test_a_tunnel_under_another_port_is_let_in(address: tuple[str, int], host: str) -> None:
    assert ask(address, "/status.json", host=host)[0] == 200


def test_two_names_in_one_request_are_refused(address: tuple[str, int]) -> None:
    with closing(socket.create_connection(address, timeout=5)) as connection:
        connection.sendall(b"GET /status.json HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert connection.recv(100).split(b" ")[1] in (b"400", b"421")


def test_a_proxys_name_can_be_allowed(run: Path) -> None:
    with serve(run, port=0, names=("Monitor.Hospital.example",)) as url:
        address = (str(urlsplit(url).hostname), int(urlsplit(url).port or 0))
        assert ask(address, "/", host="monitor.hospital.example")[0] == 200
        assert ask(address, "/", host="hospital.example")[0] == 421


def test_it_listens_on_one_loopback_address_unless_told_otherwise(address: tuple[str, int]) -> None:
    assert address[0] == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", address[1]), timeout=2)


def test_an_address_that_is_taken_has_a_name(address: tuple[str, int], run: Path) -> None:
    with pytest.raises(AddressTaken, match=rf"cannot listen on 127.0.0.1 port {address[1]}"), serve(run, port=address[1]):
        pass


def test_each_request_looks_anew_and_outlives_what_it_finds(address: tuple[str, int], run: Path) -> None:
    def seen() -> dict[str, object]:
        status, _, body = ask(address, "/status.json")
        assert status == 200
        assert ask(address, "/metrics")[0] == 200
        return dict(json.loads(body))

    assert seen()["run"]
    write_status(run / STATUS_FILE, story.round_opened(whole_round(begun(), 1, now=1000.0), 2, list(SITES), 2000.0))
    assert seen()["run"]["round"] == 2  # type: ignore[index] # an object, as just seen
    (run / STATUS_FILE).write_text("{}")
    assert (seen()["run"], seen()["tone"]) == (None, "alarm")
    (run / STATUS_FILE).unlink()
    assert (seen()["run"], seen()["tone"]) == (None, "attention")


def test_no_path_of_this_machine_is_told(address: tuple[str, int], run: Path) -> None:
    for content in (None, "{}", "no json"):
        if content is not None:
            (run / STATUS_FILE).write_text(content)
        for path in ("/status.json", "/metrics"):
            assert str(run).encode() not in ask(address, path)[2]


def test_idle_connections_keep_nobody_out(address: tuple[str, int]) -> None:
    idle = [socket.create_connection(address, timeout=5) for _ in range(20)]
    try:
        assert ask(address, "/status.json")[0] == 200
    finally:
        for each in idle:
            each.close()


def test_the_port_and_the_thread_are_given_back(run: Path) -> None:
    with serve(run, port=0) as url:
        port = int(urlsplit(url).port or 0)
        assert any(thread.name == "live page" for thread in threading.enumerate())
    assert not any(thread.name == "live page" for thread in threading.enumerate())
    with serve(run, port=port) as again:
        assert again == url

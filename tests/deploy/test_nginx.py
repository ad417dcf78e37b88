# SPDX-License-Identifier: Apache-2.0
"""The proxy as it stands in deploy/nginx, in front of an upstream that writes down what reaches it: only the fleet path does."""

import http.client
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from flwr.superlink.routers.fleet.router import router

from client.doctor import link
from client.doctor.findings import State
from client.doctor.link import Link
from tests.deploy.authorities import ROOT, certified, renew

CONFIGURATION = (ROOT / "deploy" / "nginx" / "nginx.conf").read_text(encoding="utf-8")
pytestmark = pytest.mark.skipif(shutil.which("nginx") is None, reason="needs the Debian package nginx-light")
LISTED = str(re.search(r"\(\?<step>([a-z|-]+)\)", CONFIGURATION)[1]).split("|")  # type: ignore[index] # the test fails if it is not there
NAMES = (*LISTED, *re.findall(r"location = /v1/fleet/([a-z-]+) ", CONFIGURATION))
LARGE = 6 * 2**20


@dataclass(frozen=True)
class Proxied:
    """A running proxy: where it listens, what reached the upstream, and the folder of its keys."""

    port: int
    folder: Path
    reached: list[tuple[str, int]]
    process: "subprocess.Popen[bytes]"
    log: Path

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> int:
        context = ssl.create_default_context(cafile=str(self.folder / "auth" / "ca.crt"))
        with closing(http.client.HTTPSConnection("localhost", self.port, context=context, timeout=20)) as connection:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            return connection.getresponse().status


@dataclass
class Upstream:
    """Stands for the SuperLink: answers 200 to everything, and remembers paths and sizes."""

    reached: list[tuple[str, int]] = field(default_factory=list)

    @contextmanager
    def listening(self, live: Path) -> Iterator[int]:
        reached = self.reached

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                reached.append((self.path, len(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_PUT = do_DELETE = do_HEAD = do_POST  # noqa: N815 - the same

            def log_message(self, *_: object) -> None:
                """Nothing: the proxy has a log."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(live / "server.crt", live / "server.key")
        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.socket = context.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield server.server_address[1]
            finally:
                server.shutdown()
                thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def placed(folder: Path, *, port: int, upstream: int, ca: Path) -> Path:
    """The configuration with this test's places; not a word of it is otherwise changed."""
    places = {
        "/etc/fedward/superlink/ca.crt": str(ca),
        "/etc/fedward/tls": str(folder / "tls"),
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
        "listen 8443 ssl": f"listen 127.0.0.1:{port} ssl",
        "listen [::]:8443 ssl;": "",
        "/tmp/": f"{folder}/work/",
        "/dev/stdout": str(folder / "access.log"),
    }
    assert all(place in CONFIGURATION for place in places)
    text = re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], CONFIGURATION)
    (folder / "work").mkdir()
    (folder / "nginx.conf").write_text(text)
    return folder / "nginx.conf"


@contextmanager
def proxied(folder: Path, *, upstream: int, ca: Path, reached: list[tuple[str, int]]) -> Iterator[Proxied]:
    port = free_port()
    configuration = placed(folder, port=port, upstream=upstream, ca=ca)
    with (folder / "error.log").open("wb") as errors:
        process = subprocess.Popen(["nginx", "-c", str(configuration), "-e", "stderr"], stderr=errors)
    try:
        _await(port, process, folder / "error.log")
        yield Proxied(port, folder, reached, process, folder / "access.log")
    finally:
        process.terminate()
        process.wait(20)


def _await(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder, behind, upstream = tmp_path_factory.mktemp("proxy"), tmp_path_factory.mktemp("behind"), Upstream()
    certified(folder, "localhost")
    live = certified(behind, "localhost")
    with (
        upstream.listening(live) as port,
        proxied(folder, upstream=port, ca=behind / "auth" / "ca.crt", reached=upstream.reached) as found,
    ):
        yield found


@pytest.fixture(autouse=True)
def forgotten(proxy: Proxied) -> None:
    proxy.reached.clear()


def test_the_list_is_flowers_fleet_interface_without_registration() -> None:
    """Held to the installed Flower: a path that it adds or drops shows here."""
    routes = {route.path: route.methods for route in router.routes}  # type: ignore[attr-defined] # all are API routes
    assert set(map(frozenset, routes.values())) == {frozenset({"POST"})}
    assert {path.removeprefix("/v1/fleet/") for path in routes} - set(NAMES) == {"register-node", "unregister-node"}
    assert {f"/v1/fleet/{name}" for name in NAMES} <= set(routes)


@pytest.mark.parametrize("name", NAMES)
def test_the_fleet_path_passes(proxy: Proxied, name: str) -> None:
    assert proxy.ask("POST", f"/v1/fleet/{name}", b"body") == 200
    assert proxy.reached == [(f"/v1/fleet/{name}", 4)]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/v1/fleet/",
        "/v1/fleet",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/control/start-run",
        "/v1/control/list-runs",
        "/v1/runtime/acquire-task",
        "/v1/runtime/push-messages",
        "/docs",
        "/openapi.json",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/pull-messages%2f..%2f..%2fcontrol%2fstart-run",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages/x",
        "/v1/fleet/pull-messages;/v1/control/start-run",
        "/v1/fleet/pull-messages%00",
        "/v1/fleet/pull-messages%0d%0aX:%20y",
        "/V1/FLEET/PULL-MESSAGES",
        "/v1//control/start-run",
    ],
)
def test_nothing_else_gets_to_the_superlink(proxy: Proxied, path: str) -> None:
    assert proxy.ask("POST", path, b"x") in (400, 404)
    assert proxy.reached == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_no_other_method_passes(proxy: Proxied, method: str) -> None:
    assert proxy.ask(method, "/v1/fleet/pull-messages") in (400, 404, 405)
    assert proxy.reached == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run/../../fleet/pull-messages",
        "/v1/fleet/%70ull-messages",
        "//v1/fleet/pull-messages",
        "/v1/fleet/pull-messages?x=1",
    ],
)
def test_whatever_the_spelling_the_superlink_gets_the_one_from_the_list(proxy: Proxied, path: str) -> None:
    assert proxy.ask("POST", path, b"x") == 200
    assert proxy.reached == [("/v1/fleet/pull-messages", 1)]


def test_an_object_of_flowers_size_passes_and_an_endless_one_does_not(proxy: Proxied) -> None:
    assert proxy.ask("POST", "/v1/fleet/push-object", bytes(LARGE)) == 200
    assert proxy.reached == [("/v1/fleet/push-object", LARGE)]
    for size in (2**30, 2**24):
        assert proxy.ask("POST", "/v1/fleet/push-object", Expect="100-continue", **{"Content-Length": str(size)}) == 413


def test_a_stranger_cannot_fill_the_proxy_with_uploads(proxy: Proxied) -> None:
    """Each is taken in before anybody asks whose it is."""
    context = ssl.create_default_context(cafile=str(proxy.folder / "auth" / "ca.crt"))
    with ExitStack() as held:
        lines = [
            held.enter_context(
                context.wrap_socket(
                    held.enter_context(socket.create_connection(("localhost", proxy.port), timeout=5)), server_hostname="localhost"
                )
            )
            for _ in range(26)
        ]
        for line in lines:
            line.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n" + bytes(1000))
        answers, until = [], time.monotonic() + 5
        while len(answers) < 2 and time.monotonic() < until:
            for line in lines:
                line.setblocking(False)
                with suppress(ssl.SSLWantReadError):
                    answers.append(line.recv(12))
            time.sleep(0.05)
        assert answers == [b"HTTP/1.1 503"] * 2
        assert proxy.ask("POST", "/v1/fleet/pull-messages", b"x") == 200
    assert proxy.reached == [("/v1/fleet/pull-messages", 1)]


@pytest.mark.parametrize("name", ["push-messages", "pull-messages"])
def test_what_announces_is_small_or_goes_no_further(proxy: Proxied, name: str) -> None:
    """A SuperLink keeps what is announced to it; a whole message has 128 kB at the most."""
    assert proxy.ask("POST", f"/v1/fleet/{name}", bytes(2**18)) == 200
    assert proxy.ask("POST", f"/v1/fleet/{name}", Expect="100-continue", **{"Content-Length": str(2**21)}) == 413


def test_an_upload_that_dies_never_reaches_the_superlink(proxy: Proxied) -> None:
    context = ssl.create_default_context(cafile=str(proxy.folder / "auth" / "ca.crt"))
    with (
        socket.create_connection(("localhost", proxy.port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
    assert proxy.ask("POST", "/v1/fleet/pull-messages", b"x") == 200
    assert proxy.reached == [("/v1/fleet/pull-messages", 1)]


def test_two_lengths_are_refused(proxy: Proxied) -> None:
    """A request that two parsers could read differently is not passed on."""
    context = ssl.create_default_context(cafile=str(proxy.folder / "auth" / "ca.crt"))
    with (
        socket.create_connection(("localhost", proxy.port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as secure,
    ):
        secure.sendall(
            b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\nPOST /v1/control/start-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        )
        assert secure.recv(100).startswith(b"HTTP/1.1 400")
    assert proxy.reached == []


def test_older_tls_is_refused(proxy: Proxied) -> None:
    context = ssl.create_default_context(cafile=str(proxy.folder / "auth" / "ca.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("localhost", proxy.port), timeout=5) as raw, pytest.raises(ssl.SSLError):
        context.wrap_socket(raw, server_hostname="localhost")


def test_the_doctor_is_content_with_it(proxy: Proxied) -> None:
    context = ssl.create_default_context(cafile=str(proxy.folder / "auth" / "ca.crt"))
    found = {each.check: each for each in link.way(Link(host="localhost", port=proxy.port, tls=context))}
    assert {check: each.state for check, each in found.items()} == dict.fromkeys(("reach", "certificate", "clock"), State.OK)
    assert proxy.reached == []


def test_the_log_names_no_address_and_no_header(proxy: Proxied) -> None:
    proxy.ask("POST", "/v1/fleet/get-run?patient=secret", b"x", **{"User-Agent": "telltale"})
    until = time.monotonic() + 20
    while "/v1/fleet/get-run" not in (text := proxy.log.read_text()) and time.monotonic() < until:
        time.sleep(0.05)  # a line is written after the answer
    assert "/v1/fleet/get-run" in text
    assert not [word for word in ("127.0.0.1", "telltale", "secret") if word in text]


def test_a_certificate_renewed_under_way_is_shown_after_a_reload(proxy: Proxied) -> None:
    def serial() -> str:
        return str(ssl.get_server_certificate(("localhost", proxy.port)))

    before = serial()
    renew(proxy.folder, "localhost")
    assert serial() == before
    subprocess.run(["nginx", "-c", str(proxy.folder / "nginx.conf"), "-e", "stderr", "-s", "reload"], check=True, capture_output=True)
    until = time.monotonic() + 60
    while serial() == before and time.monotonic() < until:
        time.sleep(0.1)
    assert serial() != before, (proxy.folder / "error.log").read_text()
    assert proxy.ask("POST", "/v1/fleet/pull-messages", b"x") == 200


def test_an_upstream_that_is_not_the_superlink_gets_nothing(tmp_path: Path) -> None:
    """Another certificate on that port: the proxy answers 502 itself."""
    upstream = Upstream()
    folder, behind, stranger = tmp_path / "proxy", tmp_path / "behind", tmp_path / "stranger"
    for each in (folder, behind, stranger):
        certified(each, "localhost")
    with (
        upstream.listening(stranger / "tls" / "live") as port,
        proxied(folder, upstream=port, ca=behind / "auth" / "ca.crt", reached=upstream.reached) as found,
    ):
        assert found.ask("POST", "/v1/fleet/pull-messages", b"x") == 502
    assert upstream.reached == []

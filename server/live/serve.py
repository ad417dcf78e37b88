# SPDX-License-Identifier: Apache-2.0
"""The page and the metrics over HTTP, from a thread of the supervisor: GET alone, nothing to write, nothing secret.

    /               the page                /metrics        Prometheus
    /live.css, .js  what it needs           /status.json    what it shows, made anew for each request

It reads the run folder and depends on no other program, so it stays up while the coordinator is started again. It listens on a loopback
address unless told otherwise; there is no login, so whoever wants it further away puts a proxy with one in front (docs/monitoring.md).

Against a web page elsewhere that has this address looked up anew until it leads here (DNS rebinding), a request must name an address of
numbers, localhost, or a name that was allowed. The page loads nothing from anywhere else, which its Content-Security-Policy also forbids.
"""

import ipaddress
import json
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Final

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import AddressTaken
from server.live.look import look
from server.live.metrics import registry
from server.live.view import view

HOST: Final = "127.0.0.1"
PORT: Final = 8800
_CONNECTIONS: Final = 64
_PATIENCE_S: Final = 10.0
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/live.css": ("live.css", "text/css; charset=utf-8"),
    "/live.js": ("live.js", "text/javascript; charset=utf-8"),
}
_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]]+))(?::[0-9]{1,5})?")
"""What a Host header may look like (RFC 9112, 3.2): a name or a number, and perhaps a port, which a tunnel may change."""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


@contextmanager
def serve(run: Path, *, host: str = HOST, port: int = PORT, names: Collection[str] = ()) -> Iterator[str]:
    """Serve a run folder while the context lasts; gives the page's address. Port 0 is any free one.

    Raises: AddressTaken, where nothing can listen there.
    """
    listening = _listen(host, port)
    config = uvicorn.Config(
        application(run, names=(host, *names)),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=partial(server.run, sockets=[listening]), name="live page", daemon=True)
    thread.start()
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(_PATIENCE_S)
        listening.close()


def application(run: Path, *, names: Collection[str] = ()) -> ASGIApp:
    """The whole site of a run folder, for hosts that are numbers, localhost, or in `names`."""
    metrics = registry(partial(look, run))

    async def status(request: Request) -> Response:
        del request
        return Response(json.dumps(view(look(run)), allow_nan=False), media_type="application/json")

    async def scrape(request: Request) -> Response:
        del request
        return Response(generate_latest(metrics), headers={"content-type": CONTENT_TYPE_LATEST})

    routes = [Route(path, _file(*found)) for path, found in _FILES.items()]
    inner = Starlette(routes=[*routes, Route("/status.json", status), Route("/metrics", scrape)])
    return _Guard(inner, frozenset(name.lower() for name in names))


class _Guard:
    """Who may ask, and what every answer says to the browser."""

    def __init__(self, inner: ASGIApp, names: frozenset[str]) -> None:
        self._inner, self._names = inner, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        hosts = [value.decode("latin-1") for name, value in scope.get("headers", ()) if name == b"host"]
        if len(hosts) == 1 and self._knows(hosts[0]):
            await self._inner(scope, receive, with_headers)
        else:
            await PlainTextResponse("421: this is not the address of a fedward page\n", status_code=421)(scope, receive, with_headers)

    def _knows(self, host: str) -> bool:
        found = _HOST.fullmatch(host.lower())
        name = (found[1] or found[2]) if found else ""
        return name == "localhost" or name in self._names or _is_number(name)


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _file(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = (files("server.live") / "page" / name).read_bytes()

    async def answer(request: Request) -> Response:
        del request
        return Response(content, media_type=media_type)

    return answer


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise AddressTaken(
            f"the live page cannot listen on {host} port {port}: {error.strerror}.",
            fix="Choose another port under [live] in coordinator.toml, or 0 for no page.",
        ) from error
    return listening

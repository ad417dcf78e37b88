# SPDX-License-Identifier: Apache-2.0
"""Archives that lie, on loopback: a DICOMweb service whose every answer the test writes, and a DICOM port that says what it likes."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.client.pacs.importing import Instance

BOUNDARY = "f00d"
Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, with the words that an answer is made of."""

    protocol_version = "HTTP/1.1"

    @property
    def query(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

    def whole(self, status: int, content: bytes, **headers: str) -> None:
        self.head(status, Content_Length=str(len(content)), **headers)
        self.wfile.write(content)

    def related(self, body: bytes, **headers: str) -> None:
        """A multipart answer whose body the caller puts together."""
        self.whole(200, body, Content_Type=f'multipart/related; type="application/dicom"; boundary={BOUNDARY}', **headers)

    def for_ever(self, piece: bytes, *, content_type: str) -> None:
        """Until the other side has had enough."""
        self.head(200, Content_Type=content_type)
        while True:
            self.wfile.write(piece)

    def do_GET(self) -> None:
        with suppress(OSError):
            self.server.archive.answer(self)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
        """Nothing."""


def part(content: bytes) -> bytes:
    return b"--" + BOUNDARY.encode() + b"\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n"


def closed(*parts: bytes) -> bytes:
    return b"".join(part(each) for each in parts) + b"--" + BOUNDARY.encode() + b"--"


def element(value: str, vr: str = "UI") -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}


@dataclass
class LyingWeb:
    """Lists the instances that it is given, and answers each request for one with `sends`; `lists` may answer the listings instead."""

    instances: list[Instance]
    sends: Answer
    lists: Answer | None = None
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, request: Request) -> None:
        path = urlsplit(request.path).path
        self.asked.append(request.path)
        if "/instances/" in path:
            self.sends(request)
        elif self.lists is not None:
            self.lists(request)
        else:
            self.list(request)

    def list(self, request: Request) -> None:
        path = urlsplit(request.path).path
        found = [
            each for each in self.instances if path in ("/studies", f"/studies/{each.study}/series") or f"/series/{each.series}/" in path
        ]
        name = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}[path.rpartition("/")[2]]
        values = [{"0020000D": each.study, "0020000E": each.series, "00080018": each.uid} for each in found]
        rows = {each[name]: {name: element(each[name]), "00080016": element("1.2.840.10008.5.1.4.1.1.2")} for each in values}
        start = int(request.query["offset"])
        request.whole(200, json.dumps(list(rows.values())[start : start + int(request.query["limit"])]).encode())


@contextmanager
def lying_web(*instances: Instance, sends: Answer, lists: Answer | None = None) -> Iterator[LyingWeb]:
    archive = LyingWeb(instances=list(instances), sends=sends, lists=lists)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    server.archive = archive  # type: ignore[attr-defined]
    archive.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def raw_port(speak: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port that says `speak` to each caller."""
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            try:
                line, _ = server.accept()
            except TimeoutError:
                continue
            with line, suppress(OSError):
                line.settimeout(5)
                speak(line)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            ending.set()
            thread.join()

# SPDX-License-Identifier: Apache-2.0
"""Certificates as deploy/pki makes them, and a listener on loopback that shows one."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path

ROOT = Path(__file__).parents[2]
TLS = ROOT / "deploy" / "pki" / "tls.sh"
HOST = "localhost"


def tls(*words: str | Path, fails: int = 0) -> str:
    """Run the script. What it says, on both streams."""
    done = subprocess.run([TLS, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def certified(folder: Path, *hosts: str) -> Path:
    """An authority and a certificate in use, below `folder`: auth/ca.crt, tls/live/server.crt."""
    hosts = hosts or (HOST,)
    tls("authority", folder / "auth")
    renew(folder, *hosts)
    return folder / "tls" / "live"


def renew(folder: Path, *hosts: str) -> None:
    tls("request", folder / "tls", *hosts)
    tls("sign", folder / "auth", folder / "tls" / "next" / "server.csr")
    tls("install", folder / "tls", folder / "tls" / "next" / "server.crt", folder / "auth" / "ca.crt", hosts[0])


@contextmanager
def listening(live: Path, *, ahead_s: float = 0, highest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, date: bool = True) -> Iterator[int]:
    """A TLS listener that answers any request with its clock, which is ahead by so much. Gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(live / "server.crt", live / "server.key")
    context.maximum_version = highest
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        closing = threading.Event()

        def serve() -> None:
            while not closing.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                connection.settimeout(5)
                try:
                    with context.wrap_socket(connection, server_side=True) as secure:
                        secure.recv(4096)
                        when = f"Date: {formatdate(time.time() + ahead_s, usegmt=True)}\r\n" if date else ""
                        secure.sendall(f"HTTP/1.1 404 Not Found\r\n{when}Content-Length: 0\r\n\r\n".encode())
                except OSError:
                    connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            closing.set()
            thread.join()

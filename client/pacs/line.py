# SPDX-License-Identifier: Apache-2.0
"""The line to a DICOMweb archive, under one watch: what httpx leaves to its peer and we do not.

httpx waits so many seconds for the next bytes, whatever they are. So one letter of a header now and then, or "102 Processing" for ever, is
an answer that never comes and never fails; so are the crumbs between the pieces of a body. Here every byte that comes is counted, and
held to a slowest pace and a largest sum: until an answer begins, and then until it ends.
"""

import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final

import httpcore
import httpx

from client.pacs.failure import Failed, Reason
from client.pacs.pace import Patience

_LONGEST_HEAD: Final = 1 << 20
_FRAMING: Final = 2
"""Bytes on the line for each byte that they bring, at most; servers that send in chunks stay far below."""
_STRETCHES: Final = 2
"""An archive may think for as long as --timeout before its answer, and once more before the body."""

Came = Callable[[int], None]


class Line:
    """What one answer has brought. `asked` before each request, `answered` when its head is there."""

    def __init__(self, timeout_s: float) -> None:
        self._stretch_s = _STRETCHES * timeout_s
        self.asked()

    def asked(self) -> None:
        self._patience, self._left = Patience(self._stretch_s), _LONGEST_HEAD

    def answered(self, largest: int) -> None:
        """A body of so many bytes may follow."""
        self._left = _FRAMING * largest + _LONGEST_HEAD

    def came(self, count: int) -> None:
        """Raises: Failed with SLOW or MALFORMED."""
        self._left -= count
        if self._left < 0:
            raise Failed(Reason.MALFORMED)
        self._patience.came(count)


def transport(line: Line, context: ssl.SSLContext | None) -> httpx.HTTPTransport:
    """One connection at a time, watched by `line`; httpx makes its pool itself, so the pool is changed for one that looks."""
    made = httpx.HTTPTransport(verify=context or True, trust_env=False)
    made._pool = httpcore.ConnectionPool(ssl_context=context, max_connections=1, network_backend=_Backend(line.came))
    return made


class _Backend(httpcore.NetworkBackend):
    """Opens connections that are watched."""

    def __init__(self, came: Came) -> None:
        self._inner, self._came = httpcore.SyncBackend(), came

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(self._inner.connect_tcp(host, port, timeout, local_address, socket_options), self._came)


class _Stream(httpcore.NetworkStream):
    """A connection that tells what comes over it."""

    def __init__(self, inner: httpcore.NetworkStream, came: Came) -> None:
        self._inner, self._came = inner, came

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Raises: Failed, and what httpcore raises."""
        content = self._inner.read(max_bytes, timeout)
        self._came(len(content))
        return content

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """What a handshake brings is not counted: Python's has one deadline for all of it."""
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._came)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

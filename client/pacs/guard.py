# SPDX-License-Identifier: Apache-2.0
"""What pynetdicom leaves to its peer and we do not: how long one unit may be, how large one message, and how slowly both may come.

pynetdicom reads as many bytes as a unit's header says, up to four gigabytes, into memory, and waits for them without a limit; a message of
endless units would fill memory or disk, and small ones now and then would go on for years. So its socket is replaced by one that looks at
each length first, counts what a message has brought, and keeps a moving deadline and a slowest pace: `Watch`, one for all connections of a
request, since in a C-MOVE the instances come on another.
"""

import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, cast

from pynetdicom import _config as config
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket, RequestHandler, ThreadedAssociationServer

from client.pacs.failure import Failed, Reason
from client.pacs.pace import Patience
from common.errors import DiskFull

LARGEST_UNIT: Final = 1 << 20
ANNOUNCED_UNIT: Final = 256 << 10
"""PS3.8 D.1: the longest unit of data that we ask for. The other kinds have no announced size, and stay far below `LARGEST_UNIT`."""
_SLACK: Final = 4 << 20
_LOOK_EVERY: Final = 16 << 20
_LOOK_EVERY_S: Final = 0.2
_GRACE_S: Final = 1.0
_STRETCHES: Final = 10
"""Answers are short, and an archive that fetches from tape says so for a while: the slowest pace is over so many times --timeout."""


class Watch:
    """When something last came, on any of the connections of one archive; how much one message may bring; whether there is room."""

    def __init__(self, *, timeout_s: float, largest: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeout_s, self._largest = timeout_s, largest + _SLACK
        self._clock, self._since_look = clock, 0
        self.begin()

    def begin(self, room: Callable[[], None] | None = None, *, largest: int | None = None) -> None:
        """A request goes out. `room` raises DiskFull where there is none for what comes; `largest`, where no message is an instance."""
        self.ended_by: Failed | DiskFull | None = None
        self._room, self.largest = room or _always, largest or self._largest
        self._last, self._patience = self._clock(), Patience(_STRETCHES * self.timeout_s, clock=self._clock)

    def came(self, count: int) -> None:
        """Raises: Failed with SLOW, DiskFull."""
        self._last = self._clock()
        self._patience.came(count)
        self._since_look += count
        if self._since_look > _LOOK_EVERY:
            self._since_look = 0
            self._room()

    def ends(self, why: Failed | DiskFull) -> None:
        """The first reason counts; what follows from it does not."""
        self.ended_by = self.ended_by or why

    @property
    def is_over(self) -> bool:
        return self._clock() - self._last > self.timeout_s

    @contextmanager
    def over(self, association: Association) -> Iterator[None]:
        """While a request runs: where nothing comes for too long, the connection is cut, and pynetdicom wakes up."""
        done = threading.Event()

        def look() -> None:
            while not done.wait(_LOOK_EVERY_S):
                if self.is_over:
                    self.ends(Failed(Reason.SILENT))
                    cut(association)
                if (self.is_over or not association.is_alive()) and not done.wait(_GRACE_S):
                    association.dimse.msg_queue.put((None, None))  # its threads may have died without a word to who waits

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class GuardedSocket(AssociationSocket):
    """A connection that ends when its peer sends too much at once, too much in all, or too slowly."""

    watch: Watch
    brought: int

    def recv(self, nr_bytes: int) -> bytearray:
        """Raises: OSError; pynetdicom ends the association on it."""
        self.brought += nr_bytes
        if nr_bytes > LARGEST_UNIT or self.brought > self.watch.largest:
            self._give_up(Failed(Reason.TOO_LARGE))
        received = self._received(nr_bytes)
        try:
            self.watch.came(len(received))
        except (Failed, DiskFull) as why:
            self._give_up(why)
        return received

    def _received(self, count: int) -> bytearray:
        line, received = cast(socket.socket, self.socket), bytearray()
        until = time.monotonic() + self.watch.timeout_s
        while len(received) < count:
            left = until - time.monotonic()
            if left <= 0:
                self._give_up(Failed(Reason.SLOW))
            line.settimeout(left)
            piece = line.recv(min(count - len(received), 1 << 16))
            if not piece:
                break
            received += piece
        line.settimeout(None)
        return received

    def _shutdown_socket(self) -> None:
        """pynetdicom leaves a connection open whose other end is gone already."""
        line = cast(socket.socket, self.socket)
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            line.close()

    def _give_up(self, why: Failed | DiskFull) -> None:
        self.watch.ends(why)
        raise ConnectionError


class GuardedEntity(ApplicationEntity):
    """An application entity whose calls go over guarded sockets."""

    def __init__(self, title: str, watch: Watch) -> None:
        super().__init__(ae_title=title)
        self.watch = watch
        self.maximum_pdu_size = ANNOUNCED_UNIT
        self.connection_timeout = self.acse_timeout = watch.timeout_s
        self.network_timeout = self.dimse_timeout = None  # the watch sees more than these do

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        return _guarded(super()._create_socket(assoc, address, tls_args), self.watch)


class GuardedHandler(RequestHandler):
    """The same for whoever calls us."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        _guarded(cast(AssociationSocket, association.dul.socket), cast(GuardedEntity, self.ae).watch)
        return association


class GuardedServer(ThreadedAssociationServer):
    """Listens for the archive alone, by its addresses; a caller that stalls in its TLS handshake is dropped in time."""

    addresses: frozenset[str]

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Raises: OSError; socketserver goes on to the next. A stranger gets no handshake, which would hold up the archive's."""
        line, address = cast(socket.socket, self.socket).accept()
        if address[0] not in self.addresses:
            line.close()
            raise ConnectionRefusedError
        if self.ssl_context:
            line.settimeout(_HANDSHAKE_S)
            try:
                line = self.ssl_context.wrap_socket(line, server_side=True)
            except OSError:
                line.close()
                raise
            line.settimeout(None)
        return line, address


_HANDSHAKE_S: Final = 5.0


def cut(association: Association) -> None:
    """End a connection without a word, from any thread."""
    line = association.dul.socket
    if line is not None and line.socket is not None:
        with suppress(OSError):
            line.socket.shutdown(socket.SHUT_RDWR)


def message_ended(association: Association) -> None:
    """The next byte belongs to another message."""
    line = association.dul.socket
    if isinstance(line, GuardedSocket):
        line.brought = 0


def drop_unfinished(association: Association) -> None:
    """Close the file of a message that will not come to its end."""
    message = association.dimse.message
    if message is not None and message._data_set_file is not None:
        message._data_set_file.close()


@contextmanager
def pynetdicom_set_up(incoming: Path) -> Iterator[None]:
    """Instances go to a file in `incoming` as they come, not into memory; and nothing is written out for a log that nobody reads."""
    before = (config.STORE_RECV_CHUNKED_DATASET, config.LOG_HANDLER_LEVEL, tempfile.tempdir)
    config.STORE_RECV_CHUNKED_DATASET, config.LOG_HANDLER_LEVEL, tempfile.tempdir = True, "none", str(incoming)
    config.LOG_REQUEST_IDENTIFIERS = config.LOG_RESPONSE_IDENTIFIERS = False
    try:
        yield
    finally:
        config.STORE_RECV_CHUNKED_DATASET, config.LOG_HANDLER_LEVEL, tempfile.tempdir = before


def _guarded(line: AssociationSocket, watch: Watch) -> AssociationSocket:
    """pynetdicom makes its sockets itself, and one that answers a call only once: so the one that it made learns to look."""
    line.__class__ = GuardedSocket
    guarded = cast(GuardedSocket, line)
    guarded.watch, guarded.brought = watch, 0
    return guarded


def _always() -> None:
    """There is room."""

# SPDX-License-Identifier: Apache-2.0
"""What passes between the coordinator's process and a worker.

A request lies on the `Board`, a reply in the worker's own outbox; the pipe between them carries records of sixteen bytes that say where.
So a pipe never fills, a record never arrives in part, and neither end ever waits for the other to read.

    request record   (offset, size) of the request's header on the board
    worker's record  (READY, pid) once, then (REPLY, size of the reply's header at the start of its outbox)

A worker keeps the arrays of its latest request: a model sent to a hundred sites is read once per worker, not once per site.
An outbox is overwritten by the next reply; the coordinator has read it before it sends that worker another request.
"""

import pickle
import struct
from collections.abc import Iterable
from typing import NamedTuple

from flwr.app import UserConfig

from simulations.engine.memory import SLACK_BYTES, Blob, Board, Place, SharedFile
from simulations.engine.parcel import Parcel

RECORD = struct.Struct("<QQ")
READY, REPLY = 1, 2


class Site(NamedTuple):
    """What a worker needs to know to be a site: everything but its state."""

    node_id: int
    node_config: UserConfig
    run_config: UserConfig


class Request(NamedTuple):
    """A message to a site, with the state that the site's last message left behind (None: none yet)."""

    site: Site
    message: Parcel
    state: Parcel | None


class Reply(NamedTuple):
    """What the site answered, and its new state (None: as it was)."""

    message: Parcel
    state: Parcel | None


class Posting(NamedTuple):
    """A request on the board: the record for the pipe, and the blobs to release when it has been answered."""

    record: bytes
    blobs: list[Blob]


class _RequestHeader(NamedTuple):
    site: Site
    message: bytes
    message_places: list[Place]
    state: bytes | None
    state_places: list[Place]


class _ReplyHeader(NamedTuple):
    message: bytes
    message_sizes: list[int]
    state: bytes | None
    state_sizes: list[int]


def post_request(board: Board, request: Request) -> Posting:
    """Place what is not on the board yet. Raises: OSError, if there is no memory left."""
    message, state = request.message, request.state or _NOTHING
    blobs = [board.reserve(data) for data in (*message.blobs, *state.blobs)]
    try:
        places = [board.place(blob) for blob in blobs]
        split = len(message.blobs)
        header = _RequestHeader(request.site, message.header, places[:split], state.header if request.state else None, places[split:])
        blobs.append(board.reserve(pickle.dumps(header, 5)))
        _, offset, size = board.place(blobs[-1])
    except OSError:
        release(board, blobs)
        raise
    return Posting(RECORD.pack(offset, size), blobs)


def release(board: Board, blobs: Iterable[Blob]) -> None:
    for blob in blobs:
        board.release(blob)


class Reader:
    """A worker's view of the board: reads an array once for as long as requests in a row name it."""

    def __init__(self, board: SharedFile) -> None:
        self._board = board
        self._latest: dict[int, bytes] = {}

    def read(self, record: bytes) -> Request:
        offset, size = RECORD.unpack(record)
        header: _RequestHeader = pickle.loads(self._board.read(size, offset))  # noqa: S301 - our own bytes
        known, self._latest = self._latest, {}
        message = Parcel(header=header.message, blobs=self._blobs(header.message_places, known))
        state_blobs = self._blobs(header.state_places, known)
        state = None if header.state is None else Parcel(header=header.state, blobs=state_blobs)
        return Request(header.site, message, state)

    def _blobs(self, places: list[Place], known: dict[int, bytes]) -> tuple[bytes, ...]:
        for serial, offset, size in places:
            if serial not in self._latest:
                data = known.get(serial)
                self._latest[serial] = self._board.read(size, offset) if data is None else data
        return tuple(self._latest[serial] for serial, _, _ in places)


def post_reply(outbox: SharedFile, reply: Reply) -> bytes:
    """Write a reply into the outbox; return the record for the pipe. Raises: OSError, if there is no memory left."""
    message, state = reply.message, reply.state or _NOTHING
    sizes = [len(data) for data in message.blobs], [len(data) for data in state.blobs]
    header = pickle.dumps(_ReplyHeader(message.header, sizes[0], state.header if reply.state else None, sizes[1]), 5)
    offset = 0
    for data in (header, *message.blobs, *state.blobs):
        outbox.write(data, offset)
        offset += len(data)
    return RECORD.pack(REPLY, len(header))


def read_reply(outbox: SharedFile, size: int) -> Reply:
    """The reply whose header is the first `size` bytes of the outbox. A large outbox gives its memory back."""
    header: _ReplyHeader = pickle.loads(outbox.read(size, 0))  # noqa: S301 - our own bytes
    message_blobs, end = _read_blobs(outbox, header.message_sizes, size)
    state_blobs, end = _read_blobs(outbox, header.state_sizes, end)
    if end > SLACK_BYTES:
        outbox.resize(0)
    state = None if header.state is None else Parcel(header=header.state, blobs=state_blobs)
    return Reply(Parcel(header=header.message, blobs=message_blobs), state)


def _read_blobs(outbox: SharedFile, sizes: list[int], offset: int) -> tuple[tuple[bytes, ...], int]:
    blobs = []
    for size in sizes:
        blobs.append(outbox.read(size, offset))
        offset += size
    return tuple(blobs), offset


_NOTHING = Parcel(header=b"")

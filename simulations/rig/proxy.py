# SPDX-License-Identifier: Apache-2.0
"""A bad line in user space: a TCP proxy that is slow, late, lossy, cut each minute, or partitioned.

    python -m simulations.rig.proxy --listen 127.0.0.1:9000 --to 127.0.0.1:443 --rate-kbit 1000 --delay 5 --loss 0.2 --drop-every 60

A kernel may not have tc's netem, and a machine may not allow namespaces; this runs everywhere. What it does to a line:

    rate        all connections together share so many bits a second, each way
    delay       every byte is so many seconds late, each way; the pipe is as long as that, so the rate is kept
    loss        one in so many packets is lost. A stream can lose no byte, so the packet is late by what TCP waits before it sends again,
                doubling while it is lost once more; after `RETRIES` losses in a row the connection is reset, as a kernel's would be
    drop_every  all connections are reset (RST) so often
    partition   nothing passes, nothing is answered, nobody is told: what is under way stalls, new connections hang

It knows nothing of what it carries: TLS passes as it is. What it cannot do is show or repeat a single message, or lose the first packet
of a connection. Settings can be changed while it runs, through a file that is looked at several times a second; counts go to another.
"""

import argparse
import asyncio
import json
import random
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

PACKET: Final = 1448
"""Bytes of data in a packet on an Ethernet with timestamps."""
RETRIES: Final = 6
_FIRST_WAIT_S: Final = 0.2  # Linux's smallest retransmission time-out
_LOOK_S: Final = 0.2
_IN_FLIGHT_BYTES: Final = 256 * 1024
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, no time: close() sends RST


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a line is like, each way. The default harms nothing."""

    rate_kbit: float | None = None
    delay_s: float = 0.0
    loss: float = 0.0
    drop_every_s: float | None = None
    partition: bool = False


@dataclass(slots=True)
class Counts:
    """What went over a line, and what it did by itself. `up` is from whoever connected."""

    connections: int = 0
    resets: int = 0
    lost_packets: int = 0
    up_bytes: int = 0
    down_bytes: int = 0


@dataclass(slots=True)
class _Road:
    """One direction of the line, shared by all connections: when it will be free for the next packet."""

    free_at: float = 0.0

    def book(self, size: int, rate_kbit: float | None) -> float:
        """When a packet that is sent now has been put on the wire whole."""
        now = time.monotonic()
        if rate_kbit is None:
            return now
        self.free_at = max(self.free_at, now) + size * 8 / (rate_kbit * 1000)
        return self.free_at


@dataclass(slots=True)
class Proxy:
    """One listening port and where it leads. `async with` it; change `line` at any time."""

    to: tuple[str, int]
    line: Line = field(default_factory=Line)
    counts: Counts = field(default_factory=Counts)
    seed: int = 0
    _server: asyncio.Server | None = None
    _up: _Road = field(default_factory=_Road)
    _down: _Road = field(default_factory=_Road)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _rng: random.Random = field(default_factory=random.Random)

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chooses if it is 0."""
        self._rng.seed(self.seed)
        self._server = await asyncio.start_server(self._accepted, host, port)
        self._spawn(self._drop_now_and_then())
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Reset every connection and listen no more."""
        assert self._server is not None
        self._server.close()
        self.reset_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset_all(self) -> None:
        """End every connection with RST, now."""
        self.counts.resets += len(self._open) // 2
        self._reset_ends(tuple(self._open))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        if writer not in self._open:
            return
        self._open.discard(writer)
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._spawn(self._join(reader, writer))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from the first byte to the last."""
        self.counts.connections += 1
        self._open.add(writer)
        await self._passable()
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.to)
        except OSError:
            self._reset(writer)
            return
        self._open.add(far_writer)
        ends = (writer, far_writer)
        try:
            await asyncio.gather(
                self._carry(reader, far_writer, ends, self._up, self._count_up),
                self._carry(far_reader, writer, ends, self._down, self._count_down),
            )
        finally:
            for end in ends:
                self._open.discard(end)
                end.close()

    def _count_up(self, size: int) -> None:
        self.counts.up_bytes += size

    def _count_down(self, size: int) -> None:
        self.counts.down_bytes += size

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ends: tuple[asyncio.StreamWriter, ...],
        road: _Road,
        count: Callable[[int], None],
    ) -> None:
        """One direction of one connection: packets enter a pipe of bounded length and leave it when they are due."""
        rate = self.line.rate_kbit
        length = _IN_FLIGHT_BYTES + int(self.line.delay_s * (rate * 125 if rate else 10_000_000))
        pipe: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(max(4, length // PACKET))
        leaving = asyncio.get_running_loop().create_task(self._leave(pipe, writer, count))
        try:
            while data := await reader.read(PACKET if self._shaped else 64 * 1024):
                late_s = self._lateness()
                if late_s is None:
                    self.counts.resets += 1
                    self._reset_ends(ends)
                    return
                sent = road.book(len(data), self.line.rate_kbit)
                await pipe.put((sent + self.line.delay_s + late_s, data))
            await pipe.put((time.monotonic() + self.line.delay_s, b""))
            await leaving
        except (ConnectionError, OSError):
            self._reset_ends(ends)
        finally:
            leaving.cancel()

    @property
    def _shaped(self) -> bool:
        return self.line.rate_kbit is not None or self.line.loss > 0

    def _lateness(self) -> float | None:
        """How late a packet is for having been lost; None, if it was lost too often."""
        late_s, wait_s, lost = 0.0, _FIRST_WAIT_S, 0
        while self.line.loss and self._rng.random() < self.line.loss:
            lost += 1
            self.counts.lost_packets += 1
            if lost == RETRIES:
                return None
            late_s, wait_s = late_s + wait_s, 2 * wait_s
        return late_s

    async def _leave(self, pipe: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter, count: Callable[[int], None]) -> None:
        while True:
            due, data = await pipe.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await self._passable()
            if not data:
                with suppress(OSError, RuntimeError):
                    writer.write_eof()
                return
            writer.write(data)
            count(len(data))
            await writer.drain()

    async def _passable(self) -> None:
        while self.line.partition:
            await asyncio.sleep(_LOOK_S / 4)

    def _reset_ends(self, ends: tuple[asyncio.StreamWriter, ...]) -> None:
        for writer in ends:
            self._reset(writer)

    async def _drop_now_and_then(self) -> None:
        since = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_S)
            if self.line.drop_every_s is not None and time.monotonic() - since >= self.line.drop_every_s:
                self.reset_all()
                since = time.monotonic()


async def serve(proxy: Proxy, listen: tuple[str, int], settings: Path | None, counts: Path | None) -> None:
    """Run until cancelled, following the settings file and writing the counts."""
    await proxy.start(*listen)
    written = asdict(Counts())
    seen = b""
    while True:
        if settings is not None and settings.exists() and (text := settings.read_bytes()) != seen:
            with suppress(ValueError):  # half written: the next look finds it whole
                proxy.line, seen = replace(proxy.line, **json.loads(text)), text
        if counts is not None and asdict(proxy.counts) != written:
            written = asdict(proxy.counts)
            beside = counts.with_suffix(".new")
            beside.write_text(json.dumps(written))
            beside.replace(counts)
        await asyncio.sleep(_LOOK_S)


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="A TCP line with faults.")
    parser.add_argument("--listen", type=_place, required=True, metavar="HOST:PORT")
    parser.add_argument("--to", type=_place, required=True, metavar="HOST:PORT")
    parser.add_argument("--rate-kbit", type=float, help="kilobits a second, each way")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, each way")
    parser.add_argument("--loss", type=float, default=0.0, help="of packets, between 0 and 1")
    parser.add_argument("--drop-every", type=float, help="seconds between resets of all connections")
    parser.add_argument("--settings", type=Path, help='a JSON file that changes the line while it runs: {"partition": true}')
    parser.add_argument("--counts", type=Path, help="where counts of connections, resets and bytes are written")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    line = Line(rate_kbit=asked.rate_kbit, delay_s=asked.delay, loss=asked.loss, drop_every_s=asked.drop_every)
    proxy = Proxy(to=asked.to, line=line, seed=asked.seed)
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(proxy, asked.listen, asked.settings, asked.counts))


if __name__ == "__main__":
    main()

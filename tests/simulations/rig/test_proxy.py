# SPDX-License-Identifier: Apache-2.0
"""The bad line is as bad as it is told to be, and no worse: bytes arrive whole and in order, late, slowly, or not at all."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from simulations.rig.proxy import Line, Proxy

DATA = bytes(range(256)) * 400


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


@asynccontextmanager
async def line(bad: Line) -> AsyncIterator[tuple[Proxy, int]]:
    """A proxy to a server that sends everything back."""
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0)
    proxy = Proxy(to=("127.0.0.1", server.sockets[0].getsockname()[1]), line=bad)
    port = await proxy.start("127.0.0.1", 0)
    try:
        yield proxy, port
    finally:
        await proxy.close()
        server.close()


async def _there_and_back(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    got = await asyncio.wait_for(reader.readexactly(len(data)), 30)
    writer.close()
    return got


def seconds_for(bad: Line, data: bytes) -> float:
    async def go() -> float:
        async with line(bad) as (_, port):
            started = time.monotonic()
            assert await _there_and_back(port, data) == data
            return time.monotonic() - started

    return asyncio.run(go())


def test_a_good_line_carries_everything() -> None:
    assert seconds_for(Line(), DATA * 20) < 10


def test_a_slow_line_takes_its_time() -> None:
    """100 kB at 800 kbit/s is a second each way; they overlap."""
    assert 1.0 <= seconds_for(Line(rate_kbit=800), DATA) < 4


def test_a_late_line_is_late_each_way_and_still_wide() -> None:
    assert 0.6 <= seconds_for(Line(delay_s=0.3), DATA * 5) < 3


def test_a_lossy_line_brings_every_byte_or_ends_in_a_reset() -> None:
    async def go() -> int:
        async with line(Line(loss=0.2)) as (proxy, port):
            whole = 0
            for _ in range(4):
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    whole += await _there_and_back(port, DATA[:20_000]) == DATA[:20_000]
            assert proxy.counts.lost_packets > 5
            return whole

    assert asyncio.run(go()) >= 1


def test_a_line_that_drops_resets_everybody_and_may_be_dialled_again() -> None:
    async def go() -> None:
        async with line(Line(drop_every_s=0.3)) as (proxy, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            with pytest.raises(ConnectionResetError):
                await asyncio.wait_for(reader.readexactly(1), 5)
            assert proxy.counts.resets >= 1
            proxy.line = Line()
            assert await _there_and_back(port, b"again") == b"again"

    asyncio.run(go())


def test_a_partition_tells_nobody_and_what_was_under_way_arrives_after_it() -> None:
    async def go() -> None:
        async with line(Line()) as (proxy, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            proxy.line = Line(partition=True)
            writer.write(b"y")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.readexactly(1), 0.5)
            proxy.line = Line()
            assert await asyncio.wait_for(reader.readexactly(1), 5) == b"y"
            assert (proxy.counts.connections, proxy.counts.resets) == (1, 0)
            assert (proxy.counts.up_bytes, proxy.counts.down_bytes) == (2, 2)

    asyncio.run(go())


def test_nobody_behind_it_is_a_reset() -> None:
    async def go() -> None:
        proxy = Proxy(to=("127.0.0.1", 1))
        port = await proxy.start("127.0.0.1", 0)
        reader, _ = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        await proxy.close()

    asyncio.run(go())

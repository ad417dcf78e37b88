# SPDX-License-Identifier: Apache-2.0
"""Shared memory: placed once, given back, never leaked."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from simulations.engine import LocalEngine
from simulations.engine.memory import SLACK_BYTES, Board, SharedFile, Spans

MEGABYTE = 2**20


@given(st.data())
def test_spans_never_overlap_and_all_given_back_leaves_none(data: Any) -> None:
    spans, taken = Spans(), dict[int, int]()
    for _ in range(data.draw(st.integers(0, 40))):
        if taken and data.draw(st.booleans()):
            start = data.draw(st.sampled_from(sorted(taken)))
            spans.give(start, taken.pop(start))
        else:
            size = data.draw(st.integers(1, 50))
            start = spans.take(size)
            assert all(start + size <= other or other + length <= start for other, length in taken.items())
            taken[start] = size
        assert spans.end == max((start + size for start, size in taken.items()), default=0)
    for start, size in taken.items():
        spans.give(start, size)
    assert spans.end == 0
    assert spans.take(7) == 0


def test_the_same_bytes_are_placed_once() -> None:
    board, model = Board(), bytes(MEGABYTE)
    blobs = [board.reserve(model) for _ in range(100)]
    assert len({board.place(blob) for blob in blobs}) == 1
    assert os.fstat(board.file.fileno()).st_size == MEGABYTE
    board.file.close()


def test_equal_bytes_of_two_arrays_are_two_blobs() -> None:
    board = Board()
    first, second = (board.reserve(bytes(bytearray(100))) for _ in range(2))
    assert board.place(first)[0] != board.place(second)[0]
    board.file.close()


def test_memory_is_given_back_with_the_last_user() -> None:
    board = Board()
    blobs = [board.reserve(bytes(2 * SLACK_BYTES)) for _ in range(2)]
    for blob in blobs:
        board.place(blob)
    for blob in blobs:
        board.release(blob)
    assert os.fstat(board.file.fileno()).st_size == 0
    board.file.close()


def test_a_shared_file_has_no_name() -> None:
    file = SharedFile.create()
    assert os.fstat(file.fileno()).st_nlink == 0
    file.close()


def test_without_memfd_a_shared_file_is_an_unlinked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    file = SharedFile.create()
    assert os.fstat(file.fileno()).st_nlink == 0
    file.write(b"abc", 5)
    assert file.read(3, 5) == b"abc"
    with pytest.raises(EOFError, match="2 bytes early"):
        file.read(5, 5)
    file.close()


def test_memory_is_flat_over_five_hundred_rounds_of_a_megabyte(engine_app: str) -> None:
    with LocalEngine(engine_app, num_sites=4, workers=2) as engine:
        _rounds(engine, 50)
        before = _own_bytes(engine)
        _rounds(engine, 500)
        growth = _own_bytes(engine) - before
    assert growth < 8 * MEGABYTE, f"{growth / MEGABYTE:.1f} MB more after 500 rounds of 4 MB each way"


def test_replies_that_are_cancelled_unread_keep_no_memory(engine_app: str) -> None:
    model = RecordDict({"model": ArrayRecord({"values": Array(np.zeros(4 * MEGABYTE, np.uint8))})})
    with LocalEngine(engine_app, num_sites=1, workers=1) as engine:
        (node,) = engine.get_node_ids()
        for round_number in range(60):
            ids = engine.push_messages([Message(model, node, "query.echo")])
            engine.wait(60)
            engine.cancel(ids)
            if round_number == 10:
                before = _own_bytes(engine)
        assert _own_bytes(engine) - before < 20 * MEGABYTE


def _rounds(engine: LocalEngine, rounds: int) -> None:
    for number in range(rounds):
        model = RecordDict({"model": ArrayRecord({"values": Array(np.full(MEGABYTE // 8, float(number)))})})
        replies: list[Any] = engine.send_and_receive([Message(model, node, "train") for node in engine.get_node_ids()], timeout=60)
        assert [reply.content["model"]["values"].numpy()[-1] for reply in replies] == [number + 1] * 4


def _own_bytes(engine: LocalEngine) -> int:
    """The memory of this process and the engine's, without mapped files: a library's share grows when another process lets go of it."""
    total = 0
    for pid in (os.getpid(), *engine.pids()):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        total += sum(int(fields[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem"))
    return total * 1024

# SPDX-License-Identifier: Apache-2.0
"""A pause holds between rounds, a stop between two steps; both are files, and both are said by name."""

import threading
import time
from pathlib import Path

import pytest

from common.errors import RunStopped
from server.gate import PAUSED, FolderGate, Open
from server.home import PAUSE_FILE, STOP_FILE


def test_an_open_gate_holds_nobody() -> None:
    told: list[str] = []
    Open().wait_until_open(told.append)
    Open().pass_by()
    assert told == []


def test_a_pause_holds_until_it_is_over_and_says_so_once(tmp_path: Path) -> None:
    (tmp_path / PAUSE_FILE).touch()
    told: list[str] = []
    timer = threading.Timer(0.8, (tmp_path / PAUSE_FILE).unlink)
    timer.start()
    began = time.monotonic()
    FolderGate(tmp_path).wait_until_open(told.append)
    timer.join()
    assert 0.7 < time.monotonic() - began < 10
    assert told == [PAUSED]


def test_a_pause_does_not_count_between_steps(tmp_path: Path) -> None:
    (tmp_path / PAUSE_FILE).touch()
    FolderGate(tmp_path).pass_by()


def test_a_stop_ends_everything_by_name(tmp_path: Path) -> None:
    gate = FolderGate(tmp_path)
    (tmp_path / STOP_FILE).touch()
    for go in (gate.pass_by, lambda: gate.sleep(60), lambda: gate.wait_until_open(lambda _: None)):
        with pytest.raises(RunStopped, match="told to stop"):
            go()


def test_a_stop_ends_a_pause_and_a_sleep(tmp_path: Path) -> None:
    gate = FolderGate(tmp_path)
    (tmp_path / PAUSE_FILE).touch()
    timer = threading.Timer(0.2, (tmp_path / STOP_FILE).touch)
    timer.start()
    began = time.monotonic()
    with pytest.raises(RunStopped):
        gate.wait_until_open(lambda _: None)
    timer.join()
    assert time.monotonic() - began < 10

# SPDX-License-Identifier: Apache-2.0
"""The stand-in for systemd: what dies comes back, what is done stays down, and nothing outlives the rig."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import EngineError
from simulations.rig.crew import Crew, Service, end_leftovers, identity
from simulations.rig.hosts import digest_of, listening

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def until(happened: Callable[[], bool], *, within_s: float = 20) -> None:
    end = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def service(folder: Path, command: list[str], *final: int) -> Service:
    return Service(command=command, log=folder / "log", final=frozenset(final), restart_s=0.1)


def test_what_is_killed_comes_back_and_everything_ends_with_the_crew(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "state.json")
    crew.start("sleeper", service(tmp_path, SLEEP, 0))
    first = crew.kill("sleeper")
    until(lambda: crew.pid("sleeper") not in (None, first))
    second = crew.pid("sleeper")
    assert second is not None
    assert crew.starts("sleeper") == 2
    crew.close()
    assert identity(second) is None
    assert not (tmp_path / "state.json").exists()


def test_what_is_done_stays_down_and_cannot_be_killed(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "state.json")
    crew.start("done", service(tmp_path, [sys.executable, "-c", "print('words'); raise SystemExit(3)"], 0, 3))
    until(lambda: crew.ended("done") == 3)
    assert crew.starts("done") == 1
    assert (tmp_path / "log").read_text() == "words\n"
    with pytest.raises(EngineError, match="does not run"):
        crew.kill("done")
    crew.close()


def test_what_was_told_to_stop_stays_down(tmp_path: Path) -> None:
    crew = Crew(tmp_path / "state.json")
    crew.start("sleeper", service(tmp_path, SLEEP))
    crew.stop("sleeper")
    until(lambda: crew.ended("sleeper") == -signal.SIGTERM)
    assert crew.starts("sleeper") == 1
    crew.close()


def test_what_a_killed_rig_left_running_is_ended_and_nothing_else_is(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP, start_new_session=True) as left, subprocess.Popen(SLEEP, start_new_session=True) as other:
        known, strange = identity(left.pid), identity(other.pid)
        assert known
        assert strange
        (tmp_path / "state.json").write_text(json.dumps({"processes": [known, (other.pid, strange[1] - 1)]}))
        try:
            assert end_leftovers(tmp_path / "state.json") == 1
            assert left.wait(10) == -signal.SIGKILL
            assert other.poll() is None
        finally:
            other.kill()
            left.kill()
    assert end_leftovers(tmp_path / "state.json") == 0


def test_a_process_that_listens_is_seen_and_one_that_does_not_is_not() -> None:
    listen = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", listen], stdout=subprocess.PIPE, text=True) as loud, subprocess.Popen(SLEEP) as quiet:
        try:
            assert loud.stdout is not None
            port = int(loud.stdout.readline())
            assert listening(loud.pid) == {f"127.0.0.1:{port}"}
            assert listening(quiet.pid) == set()
        finally:
            loud.kill()
            quiet.kill()


def test_a_changed_renamed_or_new_image_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = digest_of(tmp_path)
    (tmp_path / "a").write_text("2")
    assert digest_of(tmp_path) != before
    (tmp_path / "a").write_text("1")
    assert digest_of(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert digest_of(tmp_path) != before

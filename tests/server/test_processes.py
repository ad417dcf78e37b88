# SPDX-License-Identifier: Apache-2.0
"""Children that die with their parent, locks that die with their holder: shown on real processes, which are really killed."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.home import TEMPLATE
from server.process.children import Backoff
from server.process.processes import Identity, Lock, end, spawn

PARENT = """
import os, sys, time
from pathlib import Path
from server.process.processes import spawn
child = spawn(["sleep", "60"], environment=os.environ, log=Path(sys.argv[1]))
print(child.pid, flush=True)
time.sleep(60)
"""
HOLDER = """
import sys, time
from pathlib import Path
from server.process.processes import Lock
print(Lock(Path(sys.argv[1])).take(), flush=True)
time.sleep(60)
"""
STARTING = """
import os, subprocess, sys
from pathlib import Path
from server.process import start
CHILD = "import resource; open('written', 'w'); print(resource.getrlimit(resource.RLIMIT_CORE))"
def supervised(home, *_):
    home.run.mkdir()
    subprocess.run([sys.executable, "-c", CHILD], cwd=home.run, check=True)
    os._exit(0)
start.check_ready, start._supervised = (lambda home: None), supervised
os.umask(0o022)
start.start(folder=Path(sys.argv[1]))
"""


def soon(is_true: Callable[[], bool], *, within_s: float = 10.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if is_true():
            return True
        time.sleep(0.02)
    return False


def python(code: str, argument: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, str(argument)], stdout=subprocess.PIPE, text=True)


def test_a_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    with python(PARENT, tmp_path / "log") as parent:
        assert parent.stdout is not None
        child = Identity.of(int(parent.stdout.readline()))
        assert child is not None
        assert child.alive
        parent.kill()
    assert soon(lambda: not child.alive)


def test_a_lock_is_free_the_moment_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with python(HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert Lock.holder(path) == Identity.of(holder.pid)
        assert not Lock(path).take()
        holder.kill()
    assert soon(lambda: Lock.holder(path) is None)
    lock = Lock(path)
    assert lock.take()
    assert Lock.holder(path) == Identity.of(os.getpid())
    lock.release()
    assert Lock.holder(path) is None


def test_who_looks_at_a_lock_turns_no_start_away(tmp_path: Path) -> None:
    """A status that is asked for in that moment has the lock too. The unit does not start a coordinator again that was turned away."""
    path = tmp_path / "lock"
    path.touch()
    descriptor = os.open(path, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    look = threading.Timer(0.1, os.close, (descriptor,))
    look.start()
    lock = Lock(path)
    assert lock.take()
    lock.release()
    look.join()


def test_nobody_holds_a_lock_that_is_not_there(tmp_path: Path) -> None:
    assert Lock.holder(tmp_path / "lock") is None


def test_a_process_is_not_taken_for_another_with_the_same_number() -> None:
    me = Identity.of(os.getpid())
    assert me is not None
    assert me.alive
    other = Identity(me.pid, me.started - 1)
    assert not other.alive
    other.signal(signal.SIGKILL)  # does nothing, or this test would be over


def test_who_does_not_end_when_asked_is_made_to(tmp_path: Path) -> None:
    stubborn = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    log = tmp_path / "log"
    child = spawn([sys.executable, "-c", stubborn], environment=os.environ, log=log)
    assert soon(lambda: "deaf" in log.read_text())
    identity = Identity.of(child.pid)
    assert identity is not None
    end([identity], patience_s=0.3)
    assert child.wait(timeout=5) == -signal.SIGKILL


@pytest.mark.parametrize("lives_s", [1.0, 100.0])
def test_pauses_grow_while_lives_are_short(lives_s: float) -> None:
    now = [0.0]
    pause = Backoff(clock=lambda: now[0])
    waits = []
    for _ in range(8):
        assert pause.due
        pause.begun()
        now[0] += lives_s
        pause.died()
        begin = now[0]
        while not pause.due:
            now[0] += 0.25
        waits.append(now[0] - begin)
    assert waits == ([0.5, 1, 2, 4, 8, 16, 30, 30] if lives_s < 60 else [0.5] * 8)


def test_what_a_coordinator_writes_is_its_users_alone_and_no_memory_is_dumped(tmp_path: Path) -> None:
    """Masked updates and opened shares lie in the run folder: who reads them has the coordinator's view. Children inherit both."""
    (tmp_path / "coordinator.toml").write_text(TEMPLATE.format(port=8000, live_port=0))
    tmp_path.chmod(0o755)
    with python(STARTING, tmp_path) as started:
        assert started.communicate(timeout=60)[0] == "(0, 0)\n"
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "run", tmp_path / "run" / "written")] == [0o700, 0o600]

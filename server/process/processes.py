# SPDX-License-Identifier: Apache-2.0
"""Processes that must not outlive their supervisor, and locks that show who is alive.

A child is started with PR_SET_PDEATHSIG (prctl(2)): when the supervisor dies, by kill -9 too, the kernel kills the child. Each child is
also written down with its start time (field 22 of /proc/PID/stat, proc(5)), which with the number tells one process from another, so that
what is left over in spite of that is found and ended by the next supervisor, and nothing else is.

A lock is flock(2) on a file: it is gone the moment its holder dies, however it dies, and cannot be left behind. The holder writes itself
into the file.
"""

import ctypes
import fcntl
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from common.durable import lock_at_once

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_STARTED: Final = 19  # of the fields after the command's name, counted from 0


@dataclass(frozen=True, slots=True)
class Identity:
    """One process and no other: its number, and when it was started (clock ticks since boot)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """None, if there is no such process, or only its remains."""
        try:
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if after_name[0] in "ZX" else cls(pid, int(after_name[_STARTED]))

    @property
    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    def signal(self, number: signal.Signals) -> None:
        """If it is still that process."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


def keep_to_oneself() -> None:
    """What this process and its children write is their user's alone, whatever the folder's mode; their memory is in no core dump."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def die_with_parent() -> None:
    """From here on the kernel kills this process when its parent dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def spawn(command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a child that dies with us and whose words go to a file. Call it from the main thread: the kernel watches the thread."""
    parent = os.getpid()

    def before_exec() -> None:
        die_with_parent()
        if os.getppid() != parent:  # we died in between
            os._exit(1)

    with log.open("ab") as words:
        return subprocess.Popen(  # noqa: S603 - our own installation's commands
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to hear
            preexec_fn=before_exec,
        )


def end(identities: Sequence[Identity], *, patience_s: float) -> None:
    """Ask processes to end, and make those that have not after a while."""
    for number, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, patience_s)):
        for identity in identities:
            identity.signal(number)
        until = time.monotonic() + wait_s
        while any(identity.alive for identity in identities) and time.monotonic() < until:
            time.sleep(0.05)


class Lock:
    """A file that one process holds for as long as it lives."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """False, if another process has it. Raises: OSError."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not lock_at_once(descriptor):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        me = Identity.of(os.getpid())
        assert me is not None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps([me.pid, me.started]).encode(), 0)
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @staticmethod
    def holder(path: Path) -> Identity | None:
        """Who holds it; None, if nobody does."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return _written(os.pread(descriptor, 100, 0))
        finally:
            os.close(descriptor)

    @staticmethod
    def last(path: Path) -> Identity | None:
        """Who held it last, or does now."""
        try:
            return _written(path.read_bytes())
        except FileNotFoundError:
            return None


def _written(content: bytes) -> Identity:
    """A holder that has not written itself down yet is nobody whom one could signal, but it holds."""
    try:
        pid, started = json.loads(content)
        return Identity(int(pid), int(started))
    except ValueError:
        return Identity(-1, 0)

# SPDX-License-Identifier: Apache-2.0
"""The rig's stand-in for systemd: it starts processes, writes down what they say, starts again what died, and ends all of them.

What to do when one ends is what the units in deploy/systemd say: a coordinator that is done, or was refused by name, stays down;
everything else comes back after `RestartSec`. A process is known by its number and its start time together, so that nothing is ever
signalled that merely has an old number. Every process dies with the rig: the kernel is asked for that.
"""

import ctypes
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from common.errors import EngineError

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_STARTED: Final = 19  # of the fields after the command's name, counted from 0
_LOOK_S: Final = 0.2
_GRACE_S: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What to run, and when it is over: `final` exit codes are not followed by a restart; None is restarted always."""

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    final: frozenset[int] = frozenset()
    restart_s: float = 2.0


@dataclass(slots=True)
class Running:
    """A service and its process, if it has one."""

    service: Service
    process: "subprocess.Popen[bytes] | None" = None
    starts: int = 0
    due: float = 0.0
    ended: int | None = None
    wanted: bool = True


class Crew:
    """Everything that a rig runs. A context manager: leaving it ends all."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._running: dict[str, Running] = {}
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def start(self, name: str, service: Service) -> None:
        """Run a service from now on."""
        with self._lock:
            running = self._running[name] = Running(service)
            self._spawn(running)
            self._write()

    def stop(self, name: str, *, patience_s: float = _GRACE_S) -> None:
        """SIGTERM, and no restart; SIGKILL, if it does not listen."""
        with self._lock:
            running = self._running[name]
            running.wanted = False
            process = running.process
        if process is not None:
            process.terminate()
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self, name: str) -> int:
        """SIGKILL, as a power cut; it comes back as its service says. Returns its number. Raises: EngineError, if it does not run."""
        with self._lock:
            process = self._running[name].process
            if process is None or process.poll() is not None:
                raise EngineError(f"'{name}' does not run, so it cannot be killed.", fix="See its log.")
            process.kill()
            return process.pid

    def pid(self, name: str) -> int | None:
        """Its number, while it runs."""
        with self._lock:
            process = self._running[name].process
            return process.pid if process is not None and process.poll() is None else None

    def ended(self, name: str) -> int | None:
        """The exit code with which it ended for good."""
        return self._running[name].ended

    def starts(self, name: str) -> int:
        """How often it was started."""
        return self._running[name].starts

    def names(self) -> list[str]:
        return list(self._running)

    def close(self) -> None:
        """End everything: first a word, then the hammer."""
        self._closing.set()
        self._thread.join()
        with self._lock:
            alive = [running.process for running in self._running.values() if running.process and running.process.poll() is None]
            for process in alive:
                process.terminate()
            end = time.monotonic() + _GRACE_S
            for process in alive:
                try:
                    process.wait(max(0.1, end - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            self._state.unlink(missing_ok=True)

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_S):
            with self._lock:
                for running in self._running.values():
                    self._look(running)

    def _look(self, running: Running) -> None:
        process = running.process
        if process is not None and (code := process.poll()) is not None:
            running.process = None
            if code in running.service.final or not running.wanted:
                running.ended, running.wanted = code, False
            running.due = time.monotonic() + running.service.restart_s
        if running.process is None and running.wanted and time.monotonic() >= running.due and running.starts:
            self._spawn(running)
            self._write()

    def _spawn(self, running: Running) -> None:
        service = running.service
        with service.log.open("ab") as log:
            running.process = subprocess.Popen(  # noqa: S603 - our own words
                list(service.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **service.environment},
                start_new_session=True,
                preexec_fn=_die_with_the_rig,
            )
        running.starts += 1

    def _write(self) -> None:
        """For `fedward rig down`, should this process be killed."""
        alive = [identity(running.process.pid) for running in self._running.values() if running.process]
        beside = self._state.with_suffix(".new")
        beside.write_text(json.dumps({"processes": [each for each in alive if each]}))
        beside.replace(self._state)


def identity(pid: int) -> tuple[int, int] | None:
    """A process's number and start time (field 22 of /proc/PID/stat); None, if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return pid, int(fields[_STARTED])


def end_leftovers(state: Path) -> int:
    """Kill what an earlier rig left running, by the file that it wrote; returns how many there were."""
    if not state.exists():
        return 0
    found = json.loads(state.read_text())["processes"]
    alive = [pid for pid, started in found if identity(pid) == (pid, started)]
    for pid in alive:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    state.unlink()
    return len(alive)


def _die_with_the_rig() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

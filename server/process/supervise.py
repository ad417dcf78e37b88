# SPDX-License-Identifier: Apache-2.0
"""Keeping a run going: whatever of it dies, for whatever reason, is started again, and the run goes on where its journal stands.

    supervisor -+- flower-superlink          carries messages; restarted on its database         (server.process.carrier)
                `- flower-superexec          starts what the SuperLink has work for
                     `- flwr-serverapp       server.app: the rounds, the journal                 (server.process.flight)

A supervisor decides nothing about a round; four times a second it looks who is alive. It ends when the run is done, was told to stop, or
was refused by name by something that a restart cannot mend. A want of sites is waited out: hospitals come back.

One folder has one supervisor: it holds a lock there for as long as it lives. Its children die with it, and what is left over in spite of
that is ended by the next one.
"""

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

from common.durable import write_atomically
from common.errors import AddressTaken, CoordinatorRunning, DiskFull, RunStopped
from server.home import LOCK_FILE, LOG_FILE, STOP_FILE, CoordinatorHome
from server.live.processes import PROCESSES_FILE, Process, ProcessState, write_processes
from server.process.carrier import Carrier
from server.process.flight import Flights
from server.process.logbook import Event, Line, Logbook
from server.process.outcome import End, Outcome
from server.process.processes import Identity, Lock, end

_CHILDREN_FILE: Final = "children.json"
_TICK_S: Final = 0.25
_TOLD_EVERY_S: Final = 2.0
_GRACE_S: Final = 8.0
_EVENT: Final[dict[End, Event]] = {"done": "done", "stopped": "stopping", "refused": "refused"}


class Supervisor:
    """Keeps one coordinator's run going. `tick` is called at every look, for whoever shows what happens."""

    def __init__(self, home: CoordinatorHome, environment: Mapping[str, str], *, tick: Callable[[], None] = lambda: None) -> None:
        """`environment`: what the ServerApp needs to know, beside our own."""
        home.run.mkdir(parents=True, exist_ok=True)
        self._home, self._tick = home, tick
        self._book = Logbook(home.run / LOG_FILE)
        self._lock = Lock(home.run / LOCK_FILE)
        self._carrier = Carrier(home, self._book, dict(environment))
        self._flights = Flights(home, self._book)
        self._stopping, self._told, self._written = False, 0.0, b""

    def run(self) -> Outcome:
        """Until the run has ended. Call it from the main thread.

        Raises: CoordinatorRunning, AddressTaken, DiskFull before anything is started; RunStopped on SIGTERM or SIGINT.
        """
        if not self._lock.take():
            holder = Lock.holder(self._home.run / LOCK_FILE)
            raise CoordinatorRunning(
                f"a coordinator runs on '{self._home.folder}' already (process {holder.pid if holder else 'unknown'}).",
                fix="Stop that one first, or look at it: fedward server status. Two would spend each other's rounds.",
            )
        try:
            self._end_leftovers()
            self._carrier.files.prepare()
            _check_port(self._home)
            (self._home.run / STOP_FILE).unlink(missing_ok=True)
            with _signals(self._stop):
                return self._watch()
        finally:
            self._end_all()
            self._lock.release()

    def _watch(self) -> Outcome:
        self._book.write(Line(event="started", pid=os.getpid()))
        while not self._stopping:
            word = self._flights.look(self._carrier.control) if self._carrier.look() else None
            if self._flights.deaths:
                self._carrier.disarm()
            self._tell()
            self._tick()
            if word is not None:
                self._book.write(Line(event=_EVENT[word.end], code=word.code or None))
                return word
            time.sleep(_TICK_S)
        self._book.write(Line(event="stopping"))
        raise RunStopped("the coordinator was told to stop; every committed round is kept.", fix="Go on with: fedward server start.")

    def _stop(self) -> None:
        self._stopping = True

    def _tell(self, *, ending: bool = False) -> None:
        """Write down who is alive, for the next supervisor and for status; when that changed, and every two seconds."""
        ours = (*(child.identity for child in self._carrier.children), self._flights.app)
        alive = [[found.pid, found.started] for found in ours if found]
        content = json.dumps(alive).encode()
        now = time.time()
        with suppress(DiskFull):  # said by whoever has something to lose
            if content != self._written:
                write_atomically(self._home.superlink / _CHILDREN_FILE, content, fsync=False)
            if ending or content != self._written or now - self._told > _TOLD_EVERY_S:
                write_processes(self._home.run / PROCESSES_FILE, self._processes(ending=ending))
                self._told = now
        self._written = content

    def _processes(self, *, ending: bool) -> list[Process]:
        flights = self._flights
        state: ProcessState = "running" if flights.app is not None else "stopped" if ending else "starting"
        app = Process(name="serverapp", state=state, since=time.time() if ending else flights.since, restarts=max(0, flights.count - 1))
        return [*(child.told(ending=ending) for child in self._carrier.children), app]

    def _end_leftovers(self) -> None:
        """What an earlier supervisor could not take with it."""
        with suppress(OSError, ValueError, TypeError):
            found = json.loads((self._home.superlink / _CHILDREN_FILE).read_bytes())
            end([Identity(int(pid), int(started)) for pid, started in found], patience_s=_GRACE_S)
        self._flights.end_app()

    def _end_all(self) -> None:
        """First the ServerApp, which has a journal to close, then what carried its messages."""
        self._flights.end_app()
        end([found for child in self._carrier.children[::-1] if (found := child.identity)], patience_s=_GRACE_S)
        for child in self._carrier.children:
            child.lay_to_rest(patience_s=_GRACE_S)
        self._tell(ending=True)


def _check_port(home: CoordinatorHome) -> None:
    """Raises: AddressTaken."""
    host, port = home.file.superlink.host, home.file.superlink.port
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise AddressTaken(
                f"{home.address} cannot be listened on ({error.strerror}).",
                fix="Another program has it: end that, or choose another [superlink] port in coordinator.toml.",
            ) from error


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT say stop; a second one changes nothing, since ending takes its time."""

    def told(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

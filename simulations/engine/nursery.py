# SPDX-License-Identifier: Apache-2.0
"""The process that workers are forked from.

It is started afresh (exec, not fork), so that allocator and thread settings are in its environment before the first line of C runs, and
nothing of the coordinator's locks, threads, sockets or GPU contexts comes along. It imports the `ClientApp` and all that it needs, once,
and stays single-threaded; a worker is then a fork away, sharing the imported pages, in a few milliseconds instead of seconds. The same
holds for the worker that replaces one that died.

The settings, and what they do for small networks on a CPU (`simulations/benchmarks/engine.py` measures it):

- one thread per worker, since there is one worker per core;
- glibc keeps the memory of a training step for the next one, instead of giving it back and faulting it in again.

Family ties: the nursery kills its workers and ends when the coordinator's end of its pipe closes, which the kernel does even for a
coordinator killed with -9. Its workers ask the kernel to be killed when the nursery dies.
"""

import ctypes
import gc
import importlib
import json
import operator
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn, Self

from flwr.app import Error
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import LoadClientAppError
from flwr.common.constant import ErrorCode

from simulations.engine.memory import SharedFile
from simulations.engine.worker import LoadedApp, run_and_exit

SETTINGS: Mapping[str, str] = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),  # the largest that glibc accepts
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_TOP_PAD_": str(16 * 2**20),
    "FLWR_TELEMETRY_ENABLED": "0",
}

_ORDER = struct.Struct("<QQ")
_FORK, _KILL = 1, 2
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PATIENCE_S = 5.0
_MAIN = "import sys; sys.path[:] = sys.argv[3:]; from simulations.engine import nursery; nursery.main(*sys.argv[1:3])"


class Nursery:
    """The coordinator's handle on the nursery process. A context manager; thread-safe.

    Starting one early lets it import while the coordinator still prepares; several engines, one after another, may share one.
    """

    def __init__(self, client_app: str) -> None:
        self.client_app = client_app
        self._lock = threading.Lock()
        self._pipe, self._process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, pipe: socket.socket, board: SharedFile, outbox: SharedFile, env: Mapping[str, str]) -> None:
        """Ask for a worker on this end of a pipe, to which it reports. A nursery that has died is started again."""
        note = json.dumps(dict(env)).encode()
        outbox.write(note, 0)
        order, fds = _ORDER.pack(_FORK, len(note)), [pipe.fileno(), board.fileno(), outbox.fileno()]
        with self._lock:
            try:
                socket.send_fds(self._pipe, [order], fds)
            except OSError:
                self._end()
                self._pipe, self._process = self._start()
                socket.send_fds(self._pipe, [order], fds)

    def kill(self, pid: int) -> None:
        """End a worker, busy or not. The nursery does it: until it has reaped a pid, that pid means no other process."""
        with self._lock, suppress(OSError):
            self._pipe.sendall(_ORDER.pack(_KILL, pid))

    def close(self) -> None:
        """End the nursery and all its workers, and wait for it."""
        with self._lock:
            self._end()

    def _start(self) -> "tuple[socket.socket, subprocess.Popen[bytes]]":
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - this interpreter, on this module
                [sys.executable, "-c", _MAIN, self.client_app, str(theirs.fileno()), *sys.path],
                env={**os.environ, **SETTINGS},
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                process_group=0,  # Ctrl-C is for the coordinator, which then closes the engine
            )
        return ours, process

    def _end(self) -> None:
        with suppress(OSError):
            self._pipe.shutdown(socket.SHUT_RDWR)
        self._pipe.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(client_app: str, pipe_fd: str) -> NoReturn:
    """The nursery process: import, then fork on demand until the coordinator's pipe closes."""
    with socket.socket(fileno=int(pipe_fd)) as pipe:
        app = _load(client_app)
        gc.collect()
        gc.freeze()
        _Foster(pipe, app).run()
    os._exit(0)


def _load(client_app: str) -> LoadedApp:
    try:
        module, _, attribute = client_app.partition(":")
        app = operator.attrgetter(attribute)(importlib.import_module(module))
        if not isinstance(app, ClientApp):
            raise LoadClientAppError(f"'{client_app}' is {type(app).__name__}, expected a ClientApp.")
        if accountant := sys.modules.get("common.privacy.accountant"):
            accountant.load()  # a second, which every worker would spend at its first site
        return app
    except Exception as error:
        traceback.print_exc()
        reason = f"'{client_app}' cannot be loaded: {type(error).__name__}: {error}"
        return Error(code=ErrorCode.LOAD_CLIENT_APP_EXCEPTION, reason=reason)


class _Foster:
    """The nursery's loop: orders come from the pipe, deaths from SIGCHLD."""

    def __init__(self, pipe: socket.socket, app: LoadedApp) -> None:
        self._pipe, self._app = pipe, app
        self._children: set[int] = set()

    def run(self) -> None:
        deaths, wake = socket.socketpair()
        deaths.setblocking(False)
        wake.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        with deaths, wake, selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            selector.register(deaths, selectors.EVENT_READ)
            with suppress(EOFError, ConnectionError):
                while True:
                    for key, _ in selector.select():
                        self._obey() if key.fileobj is self._pipe else deaths.recv(4096)
                    self._reap()
            signal.set_wakeup_fd(-1)
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)

    def _obey(self) -> None:
        order, fds, _, _ = socket.recv_fds(self._pipe, _ORDER.size, 3)
        if not order:
            raise EOFError
        verb, number = _ORDER.unpack(order)
        if verb == _FORK:
            self._fork(fds, number)
        elif number in self._children:
            os.kill(number, signal.SIGKILL)

    def _fork(self, fds: list[int], size_of_note: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        nursery = os.getpid()
        if pid := os.fork():
            self._children.add(pid)
            for fd in fds:
                os.close(fd)
            return
        _die_with(nursery)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._pipe.close()
        pipe, board, outbox = socket.socket(fileno=fds[0]), SharedFile(fds[1]), SharedFile(fds[2])
        os.environ.update(json.loads(outbox.read(size_of_note, 0)))
        run_and_exit(pipe, board, outbox, self._app)

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self._children.discard(pid)


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process with its parent; elsewhere the closed pipe does, at the next message."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

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
import operator
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

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
_MAIN = "import sys; sys.path[:] = sys.argv[4:]; from simulations.engine import nursery; nursery.main(*sys.argv[1:4])"


class Nursery:
    """The coordinator's handle on the nursery process."""

    def __init__(self, client_app: str, board: SharedFile, env: Mapping[str, str]) -> None:
        self.pipe, theirs = socket.socketpair()
        with theirs:
            fds = (theirs.fileno(), board.fileno())
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, on this module
                [sys.executable, "-c", _MAIN, client_app, *map(str, fds), *sys.path],
                env={**os.environ, **SETTINGS, **env},
                stdin=subprocess.DEVNULL,
                pass_fds=fds,
                process_group=0,  # Ctrl-C is for the coordinator, which then closes the engine
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def fork(self, pipe: socket.socket, outbox: SharedFile) -> None:
        """Ask for a worker on this end of a pipe. It reports on the pipe. Raises: OSError, if the nursery is dead."""
        socket.send_fds(self.pipe, [_ORDER.pack(_FORK, 0)], [pipe.fileno(), outbox.fileno()])

    def kill(self, pid: int) -> None:
        """End a worker, busy or not. The nursery does it: until it has reaped a pid, that pid means no other process."""
        with suppress(OSError):
            self.pipe.sendall(_ORDER.pack(_KILL, pid))

    def close(self) -> None:
        """End the nursery and all its workers, and wait for it."""
        with suppress(OSError):
            self.pipe.shutdown(socket.SHUT_RDWR)
        self.pipe.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def main(client_app: str, pipe_fd: str, board_fd: str) -> NoReturn:
    """The nursery process: import, then fork on demand until the coordinator's pipe closes."""
    with socket.socket(fileno=int(pipe_fd)) as pipe:
        app = _load(client_app)
        gc.collect()
        gc.freeze()
        _Foster(pipe, SharedFile(int(board_fd)), app).run()
    os._exit(0)


def _load(client_app: str) -> LoadedApp:
    try:
        module, _, attribute = client_app.partition(":")
        app = operator.attrgetter(attribute)(importlib.import_module(module))
        if not isinstance(app, ClientApp):
            raise LoadClientAppError(f"'{client_app}' is {type(app).__name__}, expected a ClientApp.")
        return app
    except Exception as error:
        traceback.print_exc()
        reason = f"'{client_app}' cannot be loaded: {type(error).__name__}: {error}"
        return Error(code=ErrorCode.LOAD_CLIENT_APP_EXCEPTION, reason=reason)


class _Foster:
    """The nursery's loop: orders come from the pipe, deaths from SIGCHLD."""

    def __init__(self, pipe: socket.socket, board: SharedFile, app: LoadedApp) -> None:
        self._pipe, self._board, self._app = pipe, board, app
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
        order, fds, _, _ = socket.recv_fds(self._pipe, _ORDER.size, 2)
        if not order:
            raise EOFError
        verb, pid = _ORDER.unpack(order)
        if verb == _FORK:
            self._fork(*fds)
        elif pid in self._children:
            os.kill(pid, signal.SIGKILL)

    def _fork(self, pipe_fd: int, outbox_fd: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        nursery = os.getpid()
        pid = os.fork()
        if pid:
            self._children.add(pid)
            os.close(pipe_fd)
            os.close(outbox_fd)
            return
        _die_with(nursery)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._pipe.close()
        run_and_exit(socket.socket(fileno=pipe_fd), self._board, SharedFile(outbox_fd), self._app)

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

# SPDX-License-Identifier: Apache-2.0
"""A file of lines that is only ever appended to: under a lock, whole lines, on the disk when a call returns.

    lock -> what others added -> (the caller decides) -> append, fsync -> unlock

Several processes may write to one file. Each takes its lock, is handed the lines that the others have added since it last looked, and only
then decides what to add. A write that does not fit on the disk is taken back. A last line that a power cut tore has no newline; it is not
handed out, and the next writer cuts it off: what it was to say had not been done.

With `common.durable` and `common.keyfile` this is where `common` touches a disk: a ledger and the audit logs of both ends are kept alike.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import DiskFull


class LineFile:
    """One file, as far as it was taken in: `read_to` bytes of whole lines."""

    def __init__(self, path: Path, *, power_cut_safe: bool) -> None:
        self.path = path
        self.read_to = 0
        self._fsync = power_cut_safe
        self._descriptor: int | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else writes meanwhile; the lock dies with its process. Raises: OSError, if there is no such regular file of ours."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._descriptor = descriptor
            yield
        finally:
            self._descriptor = None
            os.close(descriptor)

    @property
    def has_shrunk(self) -> bool:
        """Whether lines that were taken in are gone."""
        return os.fstat(self._open).st_size < self.read_to

    def added(self) -> tuple[list[bytes], bool]:
        """The whole lines that were not taken in yet, without their newlines, and whether a torn one follows."""
        size = os.fstat(self._open).st_size
        whole, newline, fragment = os.pread(self._open, size - self.read_to, self.read_to).rpartition(b"\n")
        return whole.split(b"\n") if newline else [], bool(fragment)

    def took(self, line: bytes) -> None:
        """A line of `added` was found good."""
        self.read_to += len(line) + 1

    def cut_torn_line(self) -> None:
        """Once every whole line was taken in, and nothing that is sealed elsewhere says that the torn one was whole."""
        os.ftruncate(self._open, self.read_to)

    def append(self, *lines: bytes, what: str) -> None:
        """Write lines, all of them or none. `what` names the file in the refusal. Raises: DiskFull."""
        content = b"".join(line + b"\n" for line in lines)
        try:
            written = os.write(self._open, content)
            if written < len(content):
                raise OSError(0, "no space left on the device")
            if self._fsync:
                os.fsync(self._open)
        except OSError as error:
            os.ftruncate(self._open, self.read_to)
            raise DiskFull(
                f"{what} could not be written: {error.strerror}; nothing was done that it does not say.", fix="Free some space and retry."
            ) from error
        self.read_to += len(content)

    @property
    def _open(self) -> int:
        assert self._descriptor is not None, "only between locked()"
        return self._descriptor

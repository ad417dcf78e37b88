# SPDX-License-Identifier: Apache-2.0
"""Writing a file whole or not at all.

With `common.keyfile` the one place in `common` that touches a disk: coordinator and site must keep their state across a kill in the same
way, and neither may import the other. A file is written beside its place and renamed into it, so that readers see the old content or the
new one, never a part. What lies beside is one writer's own, thread by thread: of two who write at once, the last whole one stays.
"""

import fcntl
import mmap
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from common import failpoints
from common.errors import DiskFull

OWNER_ONLY: Final = 0o600
_AS_USUAL: Final = 0o666
_A_LOOK_S: Final = 0.5


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Nobody else who asks for this is in it meanwhile; the lock dies with its process. Who holds it and asks again waits for ever."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock_at_once(descriptor: int) -> bool:
    """Take an open file's lock, if nobody has it. Raises: OSError, where there are no locks.

    Who only looks whether somebody has it (a status, a timer's figures) has it too, for a moment: so one refusal is none.
    """
    until = time.monotonic() + _A_LOOK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_A_LOOK_S / 50)
        else:
            return True


Content = bytes | memoryview | tuple[bytes | memoryview, ...]
"""What a file will hold, whole or in parts: a large vector is not copied to stand behind its header."""


def write_atomically(path: Path, content: Content, *, fsync: bool, mode: int | None = None) -> None:
    """Put `content` at `path`. With `fsync` it also survives a power cut, else the death of the process. Raises: DiskFull.

    `mode` is the file's own before it is in its place, whatever the process's umask: whoever may write to the folder could put a link to
    another file there, and have that one opened instead. Without it, the umask decides.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.tmp")
    try:
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _AS_USUAL if mode is None else mode), "wb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.writelines(content if isinstance(content, tuple) else (content,))
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        put_in_place(beside, path, fsync=fsync)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DiskFull(
            f"'{path}' could not be written: {error.strerror}; what was there before is untouched.",
            fix="Free some space or mend the folder's permissions, then continue with --resume.",
        ) from error


def put_in_place(beside: Path, path: Path, *, fsync: bool) -> None:
    """Rename a file that is whole, and with `fsync` on the disk, to where readers look. Raises: OSError."""
    failpoints.reach("before_rename")
    beside.replace(path)
    if fsync:
        _fsync_folder(path.parent)


def forget_unfinished(folder: Path, name: str = "") -> None:
    """Remove what killed writers left beside their places; nothing refers to it, and it may hold a key. Only for who alone writes there."""
    for path in folder.glob(f".{name}*.tmp"):
        path.unlink(missing_ok=True)


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Newest:
    """One content under numbered names, of which the highest counts; for its owner's eyes alone.

    A new content gets the next number and the file before it is removed afterwards: renaming over an old file would make some file systems
    flush both to disk at once, and a reader always finds a whole one. Whoever writes does so alone, under a lock of theirs.
    """

    def __init__(self, folder: Path, name: str, *, fsync: bool) -> None:
        self._folder, self._name, self._fsync = folder, name, fsync

    def read(self) -> bytes | None:
        paths = self._paths()
        return paths[-1].read_bytes() if paths else None

    def mapped(self) -> memoryview | None:
        """The same, read from the disk when it is looked at and not before."""
        paths = self._paths()
        if not paths:
            return None
        with paths[-1].open("rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0  # which cannot be mapped
            return memoryview(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def write(self, content: Content) -> None:
        """Raises: DiskFull."""
        forget_unfinished(self._folder, self._name)
        before = self._paths()
        number = int(before[-1].name.rpartition("-")[2]) + 1 if before else 0
        write_atomically(self._folder / f"{self._name}-{number:012d}", content, fsync=self._fsync, mode=OWNER_ONLY)
        for path in before:
            path.unlink()

    def remove(self) -> None:
        forget_unfinished(self._folder, self._name)
        for path in self._paths():
            path.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._name}-*"))

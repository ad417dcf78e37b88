# SPDX-License-Identifier: Apache-2.0
"""Where instances land: DIR/images, which the site reads, and DIR/import, which it does not.

    DIR/images/9c/9c4e...dcm    what has come, whole and looked at; the name is keyed and says nothing of a patient
    DIR/import/names.key        the key of the names: keep it, or everything is asked for again under new names
    DIR/import/journal.jsonl    what is in its place, with its hash
    DIR/import/incoming/        what is on its way; cleared at each start

A file is written on its way, flushed to the disk, held against what was asked for, renamed into its place, and then written down. Each of
the two folders is on one file system, so the renaming is whole or not at all. The disk is never filled: below a reserve nothing begins,
and what grows past it is given up.

Several threads may land files at once, as an archive does that sends on several connections.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import BinaryIO, Final, Self

from client.imaging.identity import PatientSecret, load_or_create
from client.pacs import header
from client.pacs.failure import Failed, Reason
from client.pacs.journal import Arrived, Journal
from client.pacs.wanted import Wanted
from client.process.place import alone
from common.durable import put_in_place
from common.errors import DataNotFound, DiskFull

IMAGES_FOLDER: Final = "images"
STATE_FOLDER: Final = "import"
_INCOMING: Final = "incoming"
_KEY_FILE: Final = "names.key"
_LOCK_FILE: Final = "lock"
_LOOK_EVERY: Final = 16 << 20
READABLE: Final = 0o640
"""For the site process, which is another user and shares a group with the one that imports."""


class Landing:
    """One folder, held by one import."""

    def __init__(self, folder: Path, secret: PatientSecret, journal: Journal, *, largest: int, reserve: int) -> None:
        self.images = folder / IMAGES_FOLDER
        self.incoming = folder / STATE_FOLDER / _INCOMING
        self.largest = largest
        self.journal_was_damaged = journal.was_damaged
        self._secret, self._journal, self._reserve = secret, journal, reserve
        self._lock = Lock()
        self._number = 0

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, *, largest: int, reserve: int) -> Iterator[Self]:
        """Take the folder, make what it lacks, and clear away what a killed import left on its way.

        Raises: SiteRunning where another import holds it, DataNotFound, SecretFile, DiskFull.
        """
        state = folder / STATE_FOLDER
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            _make_readable(folder / IMAGES_FOLDER)
        except OSError as error:
            raise DataNotFound(f"'{folder}' cannot be written to ({error.strerror}).", fix="Make it, and give it to this user.") from None
        with ExitStack() as held:
            held.enter_context(alone(state, _LOCK_FILE, what="import"))
            (state / _INCOMING).mkdir(mode=0o700, exist_ok=True)
            journal = held.enter_context(Journal.opened(state))
            landing = cls(folder, load_or_create(state / _KEY_FILE), journal, largest=largest, reserve=reserve)
            landing.sweep()
            held.callback(landing.sweep)
            yield landing

    def sweep(self) -> None:
        """Clear away what was on its way and will not land. Only while nothing is."""
        for path in self.incoming.iterdir():
            path.unlink(missing_ok=True)

    def name_of(self, wanted: Wanted) -> str:
        """32 hexadecimal digits: nobody without the key can tell which instance it is, nor whose."""
        return self._secret.keyed(b"import", wanted.instance)

    def place_of(self, name: str) -> Path:
        return self.images / name[:2] / f"{name}.dcm"

    def arrived(self, wanted: Wanted) -> Arrived | None:
        """What is here already. A file that a killed import had put in its place but not written down is taken in now."""
        name = self.name_of(wanted)
        path = self.place_of(name)
        known = self._journal.get(name)
        if not path.is_file() or path.is_symlink():
            return None
        if known is not None:
            return known if path.stat().st_size == known.size else None
        try:
            header.check(path, wanted)
        except Failed:
            return None
        return self._write_down(name, path, _sha256(path))

    def check_room(self, coming: int = 0) -> None:
        """Raises: DiskFull, if less than the reserve would be left."""
        free = shutil.disk_usage(self.incoming).free
        if free - coming < self._reserve:
            raise DiskFull(
                f"the disk of '{self.images.parent}' has {free >> 20} MiB left; {self._reserve >> 20} stay free, so nothing more comes.",
                fix="Free some space, then run the import again: what has come is kept. --keep-free-gib sets the reserve.",
            )

    def arriving(self, wanted: Wanted) -> "Arriving":
        """A file to be written piece by piece; it lands by `land`, and is gone otherwise."""
        with self._lock:
            self._number += 1
            return Arriving(self, self.incoming / f"{self._number}.part", wanted)

    def land(self, path: Path, wanted: Wanted, sha256: str | None = None) -> Arrived:
        """Take in a file that lies in `incoming`, whole and flushed to the disk. Raises: Failed, DiskFull."""
        if path.stat().st_size > self.largest:
            raise Failed(Reason.TOO_LARGE)
        header.check(path, wanted)
        path.chmod(READABLE)
        sha256 = sha256 or _sha256(path)
        name = self.name_of(wanted)
        place = self.place_of(name)
        try:
            _make_readable(place.parent)
            put_in_place(path, place, fsync=False)
        except OSError as error:
            raise _unwritable(error) from error
        return self._write_down(name, place, sha256)

    def _write_down(self, name: str, path: Path, sha256: str) -> Arrived:
        arrived = Arrived(name=name, size=path.stat().st_size, sha256=sha256)
        with self._lock:
            self._journal.add(arrived)
        return arrived


class Arriving:
    """One file on its way. `with landing.arriving(wanted) as file: file.write(...); file.land()`."""

    def __init__(self, landing: Landing, path: Path, wanted: Wanted) -> None:
        self._landing, self._path, self._wanted = landing, path, wanted
        self._hash = hashlib.sha256()
        self._written = self._next_look = 0
        self._file: BinaryIO

    def __enter__(self) -> Self:
        self._file = self._path.open("xb")
        return self

    def write(self, piece: bytes | memoryview) -> None:
        """Raises: Failed with TOO_LARGE, DiskFull."""
        self._written += len(piece)
        if self._written > self._landing.largest:
            raise Failed(Reason.TOO_LARGE)
        if self._written > self._next_look:
            self._landing.check_room(_LOOK_EVERY)
            self._next_look = self._written + _LOOK_EVERY
        self._hash.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise _unwritable(error) from error

    def land(self) -> Arrived:
        """It is whole. Raises: Failed, DiskFull."""
        try:
            flush(self._file)
        except OSError as error:
            raise _unwritable(error) from error
        return self._landing.land(self._path, self._wanted, self._hash.hexdigest())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def flush(file: BinaryIO) -> None:
    """To the disk itself. Raises: OSError."""
    file.flush()
    os.fsync(file.fileno())


def flush_path(path: Path) -> None:
    """The same for a file that another has written and closed. Raises: DiskFull."""
    try:
        with path.open("rb+") as file:
            flush(file)
    except OSError as error:
        raise _unwritable(error) from error


def _make_readable(folder: Path) -> None:
    """Make a folder that the group may look into whatever the umask of who typed the command; one that is there stays as it is."""
    try:
        folder.mkdir(mode=0o750)
    except FileExistsError:
        return
    folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o050)  # and whatever it has of its parent, the group for what comes


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unwritable(error: OSError) -> DiskFull:
    return DiskFull(f"an instance could not be written ({error.strerror}).", fix="Free some space, then run the import again.")

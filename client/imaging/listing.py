# SPDX-License-Identifier: Apache-2.0
"""What lies in a folder, without ever leaving it.

A listing is made without opening a file. Links are counted and not followed, whether to files or to folders, because one of them can
point anywhere; a DICOMDIR is counted and not opened, because it is a list of paths that someone else wrote (CVE-2026-32711). Opening goes
component by component from the root's own descriptor with O_NOFOLLOW, so a folder that turns into a link after the listing was made is
refused as well.
"""

import os
import stat
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from client.imaging.rejection import Reason, Rejected
from common import canonical


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One regular file: its path below the root, with '/' between components, and what changes when it does."""

    path: str = field(repr=False)
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A folder's files in the order of their paths, and the entries that will not be opened, each with its reason."""

    files: tuple[File, ...]
    unopened: tuple[tuple[str, Reason], ...] = field(repr=False)

    @property
    def rejected(self) -> Counter[Reason]:
        return Counter(reason for _, reason in self.unopened)

    @property
    def digest(self) -> bytes:
        """Changes when a file comes, goes, or changes its size or time."""
        lines = (f"{file.size} {file.modified_ns} {file.path}" for file in self.files)
        return canonical.digest("\0".join(lines).encode("utf-8", "surrogateescape"))

    def without(self, paths: Set[str]) -> "Listing":
        """The listing without these files, which somebody else reads."""
        return replace(self, files=tuple(file for file in self.files if file.path not in paths))


def walk(root: Path, *, skip: Path | None = None) -> Listing:
    """List `root` and all folders below it, except the one file `skip` (the labels)."""
    files: list[File] = []
    unopened: list[tuple[str, Reason]] = []
    skipped = skip.stat() if skip is not None and skip.exists() else None
    folders = [""]
    while folders:
        prefix = folders.pop()
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                path = prefix + entry.name
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    folders.append(path + "/")
                elif (reason := _unopenable(entry.name, status)) is not None:
                    unopened.append((path, reason))
                elif skipped is None or not os.path.samestat(status, skipped):
                    files.append(File(path=path, size=status.st_size, modified_ns=status.st_mtime_ns))
    return Listing(files=tuple(sorted(files, key=lambda file: file.path)), unopened=tuple(sorted(unopened)))


def _unopenable(name: str, status: os.stat_result) -> Reason | None:
    if stat.S_ISLNK(status.st_mode):
        return Reason.LINK
    if not stat.S_ISREG(status.st_mode):
        return Reason.NOT_REGULAR
    if name.upper() == "DICOMDIR":  # PS3.10 8.6 fixes this name
        return Reason.DICOMDIR
    return None


def read_beneath(root: int, path: str, *, largest: int) -> bytes:
    """The bytes of the regular file `path` below the open folder `root`. No component may be a link or lead upwards.

    Raises: Rejected with LINK, OUTSIDE, NO_FILE, NOT_REGULAR or TOO_LARGE (more than `largest` bytes; nothing is read then).
    """
    *folders, name = path.split("/")
    if any(part in ("", ".", "..") for part in (*folders, name)):
        raise Rejected(Reason.OUTSIDE)
    opened: list[int] = []
    try:
        for folder in folders:
            opened.append(_open(folder, opened[-1] if opened else root, os.O_DIRECTORY))
        opened.append(_open(name, opened[-1] if opened else root, os.O_NONBLOCK))
        status = os.fstat(opened[-1])
        if not stat.S_ISREG(status.st_mode):
            raise Rejected(Reason.NOT_REGULAR)
        if status.st_size > largest:
            raise Rejected(Reason.TOO_LARGE)
        with os.fdopen(opened.pop(), "rb") as file:  # buffered: it asks again where the system gives 2 GiB at once, and no more
            return file.read(status.st_size)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _open(name: str, folder: int, flags: int) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, dir_fd=folder)
    except FileNotFoundError as error:
        raise Rejected(Reason.NO_FILE) from error
    except (OSError, ValueError) as error:
        # ELOOP for a link to a file; ENOTDIR covers a link to a folder and a file where a folder should be.
        is_link = isinstance(error, OSError) and _is_link(name, folder)
        raise Rejected(Reason.LINK if is_link else Reason.NO_FILE) from error


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False

# SPDX-License-Identifier: Apache-2.0
"""Where a site process may stand: a home that nobody else reads, and a socket that the mailbox alone reaches.

    home      0700, its owner's
    folder    0750 at most, this user's own (or root's), of a group that the mailbox's user is in
    socket    0660, of that group

All of it is looked at before the first message, and refused rather than mended: who set a mode had a reason, or made a mistake that should
be seen. What this does not do: protect from root, or from another process of the same user.
"""

import ctypes
import fcntl
import grp
import os
import resource
import socket as sockets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from common.durable import lock_at_once
from common.errors import DataNotFound, Exposed, SecretFile, SiteRunning

SOCKET_MODE: Final = 0o660
FOLDER_MODE: Final = 0o750
LONGEST_PATH: Final = 100
"""Bytes: the system's limit for a socket's path is 108."""
_PR_SET_DUMPABLE: Final = 4
"""prctl(2)"""
_OTHERS: Final = 0o007
_GROUP_WRITES: Final = 0o020


def check_home(home: Path) -> None:
    """Raises: DataNotFound; SecretFile, if others could read what is in it."""
    if not home.is_dir():
        raise DataNotFound(f"'{home}' is no folder.", fix="Make a site's home with: fedward site init.")
    mode = stat.S_IMODE(home.stat().st_mode)
    if mode & 0o077:
        raise SecretFile(f"'{home}' has mode {mode:04o}, so that others can look into it; expected 0700.", fix=f"chmod 0700 '{home}'")


def keep_to_oneself() -> None:
    """What this process writes is its owner's alone; its memory is in no core dump, and closed to other processes of its user."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, AttributeError):  # where there is no such call, as on macOS, the limit above has to do
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


@contextmanager
def alone(folder: Path, name: str, *, what: str) -> Iterator[None]:
    """Hold a lock in a folder; it goes with the process, however that ends. Raises: SiteRunning."""
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            ours = lock_at_once(descriptor)
        except OSError:  # where there are no locks, nobody can be told from another
            ours = False
        if not ours:
            raise SiteRunning(f"another {what} works in '{folder}'.", fix="One is enough: stop it, or leave this one be.")
        yield
    finally:
        os.close(descriptor)


def is_taken(folder: Path, name: str) -> bool:
    """Whether somebody holds that lock now."""
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def prepare_socket(socket: Path, *, group: str | None) -> None:
    """Make the socket's folder, or look at the one that is there. Raises: Exposed, DataNotFound for a group, SiteRunning."""
    if len(os.fsencode(socket.absolute())) > LONGEST_PATH:
        raise Exposed(f"the socket's path '{socket}' is longer than the system allows.", fix=f"At most {LONGEST_PATH} bytes; see --socket.")
    folder = socket.parent
    if not folder.exists():
        folder.mkdir(mode=FOLDER_MODE, parents=True)
        folder.chmod(FOLDER_MODE)  # the process's umask took the group's part
        if group is not None:
            _give(folder, group)
    found = stat.S_IMODE(folder.stat().st_mode)
    if found & (_OTHERS | _GROUP_WRITES):
        raise Exposed(f"the socket's folder '{folder}' has mode {found:04o}; expected {FOLDER_MODE:04o}.", fix=f"chmod 0750 '{folder}'")
    if folder.stat().st_uid not in (0, os.geteuid()):
        # Its owner could put a link in the socket's place, and have another file opened to the group.
        raise Exposed(f"the socket's folder '{folder}' belongs to another user.", fix=f"chown it to the site process's user: '{folder}'.")
    if _answers(socket):
        raise SiteRunning(f"another process answers at '{socket}'.", fix="Each site needs a socket of its own; see --socket.")
    socket.unlink(missing_ok=True)


def open_to_group(socket: Path, *, group: str | None) -> None:
    """Let the mailbox's group speak, and nobody else; without a name, it is the folder's group. Raises: DataNotFound, Exposed."""
    if not stat.S_ISSOCK(socket.lstat().st_mode):
        raise Exposed(f"'{socket}' is no socket any more: something else was put in its place.", fix="Look who may write to its folder.")
    if group is not None:
        _give(socket, group)
    elif (folders := socket.parent.stat().st_gid) != socket.stat().st_gid:
        _chown(socket, folders, str(folders))
    socket.chmod(SOCKET_MODE)


def _give(path: Path, group: str) -> None:
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise DataNotFound(f"there is no group '{group}' on this machine.", fix="Make it, or correct [serve] group in site.toml.") from None
    _chown(path, number, group)


def _chown(path: Path, number: int, group: str) -> None:
    try:
        os.chown(path, -1, number)
    except PermissionError:
        raise Exposed(f"'{path}' cannot be given to group '{group}'.", fix="This user must be a member of it: usermod -aG.") from None


def _answers(socket: Path) -> bool:
    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as tried:
        tried.settimeout(1.0)
        try:
            tried.connect(str(socket))
        except OSError:
            return False
    return True

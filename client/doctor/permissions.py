# SPDX-License-Identifier: Apache-2.0
"""Owners and modes: that the keys are the site's alone, and that the mailbox, which is on the network, cannot reach past its socket.

The picture that is checked (deploy/systemd makes it):

    the site's home      one user of its own, 0700; every file in it that user's, nothing for group or others
    the mailbox's folder another user, 0700; it holds what the network needs and nothing else
    the socket           0660 in a folder 0750 of a group that the two users share, and nobody else is in
"""

import os
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from client.doctor.findings import Finding, ok, wrong
from client.doctor.standing import name_of

_CHECK: Final = "permissions"
_SEPARATION: Final = "separation"
_SOCKET: Final = "socket"
_OTHERS: Final = 0o077
_MANY: Final = 3
_TIMEOUT_S: Final = 3.0


def home(folder: Path) -> Iterator[Finding]:
    """The site's home: whose it is, and whether anybody else can look into it."""
    status = folder.stat()
    owner = name_of(status.st_uid)
    if status.st_uid == 0:
        yield wrong(
            _CHECK,
            f"'{folder}' belongs to root: the site would run as root.",
            f"Give it a user of its own: chown -R fedward-site: '{folder}'",
        )
    if status.st_mode & _OTHERS:
        yield wrong(
            _CHECK, f"'{folder}' has mode {_mode(status)}: others on this machine can look in; 0700 expected.", f"chmod 700 '{folder}'"
        )
    loose = sorted(_loose(folder, status.st_uid))
    if loose:
        named = ", ".join(f"'{each}'" for each in loose[:_MANY]) + (f" and {len(loose) - _MANY} more" if len(loose) > _MANY else "")
        yield wrong(
            _CHECK,
            f"not for '{owner}' alone: {named}.",
            f"chown -R {owner}: '{folder}' && chmod -R go= '{folder}'. If others may have read a key, make a new one.",
        )
    if status.st_uid and not status.st_mode & _OTHERS and not loose:
        yield ok(_CHECK, f"the home and its keys are for user '{owner}' alone")


def installation() -> Iterator[Finding]:
    """Whether this user can run Python and fedward at all, as a service of theirs will have to. Empty where that is so."""
    for path in (Path(sys.executable), Path(os.__file__), Path(__file__)):
        if not os.access(path, os.R_OK, effective_ids=True):
            fix = "Install it where everybody may read: /opt/fedward, by a Python of the system (deploy/locked)."
            yield wrong("installation", f"user '{name_of(os.geteuid())}' cannot read '{path}'; its service could not start.", fix)
            return


def separation(home_folder: Path, mailbox: Path) -> Iterator[Finding]:
    """That home and mailbox are apart: other users, neither folder within the other."""
    mine, theirs = home_folder.stat(), mailbox.stat()
    inside = home_folder.resolve() in (mailbox.resolve(), *mailbox.resolve().parents)
    within = mailbox.resolve() in home_folder.resolve().parents
    if mine.st_uid == theirs.st_uid:
        yield wrong(
            _SEPARATION,
            f"home and mailbox both belong to '{name_of(mine.st_uid)}': what breaks into the mailbox has the site's key.",
            f"Give the mailbox a user of its own: chown -R fedward-mailbox: '{mailbox}'",
        )
    if inside or within:
        yield wrong(_SEPARATION, "the mailbox's folder and the home lie within each other.", f"Move '{mailbox}' to a place of its own.")
    if theirs.st_mode & _OTHERS:
        yield wrong(_SEPARATION, f"'{mailbox}' has mode {_mode(theirs)}, 0700 expected.", f"chmod 700 '{mailbox}'")
    if mine.st_uid != theirs.st_uid and not inside and not within and not theirs.st_mode & _OTHERS:
        yield ok(_SEPARATION, f"home of '{name_of(mine.st_uid)}', mailbox of '{name_of(theirs.st_uid)}', apart")


def mailbox_secret(path: Path) -> Iterator[Finding]:
    """The key with which the mailbox signs in to the coordinator."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_mode & _OTHERS:
        yield wrong(_CHECK, f"'{path}' has mode {_mode(status)}; a file of mode 0600 expected.", f"chmod 600 '{path}'")
    elif status.st_uid != path.parent.stat().st_uid:
        yield wrong(
            _CHECK, f"'{path}' belongs to '{name_of(status.st_uid)}', not to the mailbox's user.", f"chown fedward-mailbox: '{path}'"
        )
    else:
        yield ok(_CHECK, f"the mailbox's key is for user '{name_of(status.st_uid)}' alone")


def door(path: Path) -> Iterator[Finding]:
    """The socket between the two, and whether the site process answers behind it. Call as the mailbox's user."""
    try:
        status, folder = path.lstat(), path.parent.stat()
    except PermissionError:
        user = name_of(os.geteuid())
        yield wrong(
            _SOCKET,
            f"user '{user}' may not enter '{path.parent}'.",
            f"Put it into the folder's group, and restart the mailbox: usermod -aG fedward-door {user}",
        )
        return
    except FileNotFoundError:
        yield wrong(
            _SOCKET,
            f"'{path}' is not there: the site process is not running.",
            "systemctl start fedward-site; then journalctl -u fedward-site",
        )
        return
    if not stat.S_ISSOCK(status.st_mode):
        yield wrong(_SOCKET, f"'{path}' is no socket.", f"Move it away and restart the site process: mv '{path}' '{path}.old'")
        return
    if folder.st_mode & 0o007:
        yield wrong(_SOCKET, f"'{path.parent}' has mode {_mode(folder)}, 0750 expected.", f"chmod 750 '{path.parent}'")
    elif status.st_mode & 0o007:
        yield wrong(
            _SOCKET, f"'{path}' has mode {_mode(status)}, 0660 expected.", "Restart the site process: systemctl restart fedward-site"
        )
    else:
        yield _answers(path)


def _answers(path: Path) -> Finding:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_TIMEOUT_S)
        try:
            client.connect(str(path))
        except PermissionError:
            group = path.parent.stat().st_gid
            return wrong(
                _SOCKET, f"this user may not open '{path}'.", f"Put the mailbox's user into group {group}: usermod -aG {group} USER"
            )
        except OSError:
            return wrong(_SOCKET, f"nobody answers at '{path}'.", "systemctl restart fedward-site; then journalctl -u fedward-site")
    return ok(_SOCKET, "the site process answers at its socket")


def _loose(folder: Path, uid: int) -> Iterator[str]:
    """What in a home another user owns, or may read or write; a link anywhere counts, since what it points to is not the home's."""
    for place, folders, files in os.walk(folder, followlinks=False):
        for name in (*folders, *files):
            path = Path(place) / name
            status = path.lstat()
            reachable = status.st_mode & _OTHERS and path.parent != folder if stat.S_ISDIR(status.st_mode) else status.st_mode & _OTHERS
            if status.st_uid != uid or stat.S_ISLNK(status.st_mode) or (reachable and _is_secret(path)):
                yield str(path.relative_to(folder))


def _is_secret(path: Path) -> bool:
    """Within a home of 0700 the modes of ordinary files do not matter; keys are held to 0600 by whoever loads them."""
    return path.suffix == ".key"


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"

# SPDX-License-Identifier: Apache-2.0
"""In whose shoes a folder is looked at.

Root can read everything, so what root can read says nothing about what a service can. Run as root, the doctor takes on the user who owns a
folder, groups and all, for as long as it looks into it, and is root again afterwards. Run by anybody else it is that user all along.
"""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def owner_of(folder: Path) -> Iterator[None]:
    """Look as the owner of a folder does, where that can be arranged and the folder is there."""
    try:
        uid, gid = folder.stat().st_uid, folder.stat().st_gid
    except OSError:
        yield
        return
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    before = os.getgroups()
    os.setgroups(_groups(uid, gid))
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


def name_of(uid: int) -> str:
    """A user's name, or the number of one who has none, as in a container."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _groups(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]

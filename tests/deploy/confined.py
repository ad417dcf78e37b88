# SPDX-License-Identifier: Apache-2.0
"""Run a command as a unit of deploy/systemd confines it, on a machine whose first process is not systemd.

    python confined.py CONFINEMENT.json COMMAND [ARGUMENT]...

The unit's own words decide: another user without capabilities, no new privileges, a network of its own, its system calls (by libseccomp,
with the groups as systemd lists them), its address families, no memory that is both written and run, no core file; folders that
it finds empty but for what is bound into them. Other mounts stay as they are.
Imports nothing of fedward: what it starts is what is tested.
"""

import ctypes
import errno
import json
import os
import resource
import socket
import sys
from pathlib import Path
from typing import Any

ALLOW, ERRNO, EQUAL = 0x7FFF0000, 0x00050000, 4
CAPBSET_DROP, NO_NEW_PRIVS, SET_MDWE = 24, 38, 65
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_PRIVATE_ALL = 1, 32, 4096, 0x4000 | 1 << 18


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def allow(names: list[str], families: list[str] | None) -> None:
    """Let these system calls through and answer all others with EPERM; sockets of these families alone."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ERRNO | errno.EPERM))
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            continue  # a call of another architecture
        if name == "socket" and families is not None:
            for family in families:
                wanted = Comparison(0, EQUAL, getattr(socket, family).value, 0)
                check(library.seccomp_rule_add_array(context, ALLOW, number, 1, ctypes.byref(wanted)))
        else:
            check(library.seccomp_rule_add_array(context, ALLOW, number, 0, None))
    check(library.seccomp_load(context))


def check(result: int) -> None:
    if result != 0:
        raise OSError(-result, os.strerror(-result))


def hide(libc: ctypes.CDLL, folders: list[str], bound: list[str]) -> None:
    """An empty folder in the place of each, read-only; what is bound is there all the same, where this machine has it."""

    def mount(source: str, target: str, kind: str | None, flags: int) -> None:
        if libc.mount(source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), None):
            raise OSError(ctypes.get_errno(), f"mount {target}")

    if folders and libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "no mounts of one's own")
    kept = {path: os.open(path, os.O_PATH) for path in bound if folders and Path(path).exists()}
    for folder in folders:
        mount("none", "/", None, MS_PRIVATE_ALL)
        mount("none", folder, "tmpfs", 0)
        for path, descriptor in kept.items():
            Path(path).mkdir(parents=True)
            mount(f"/proc/self/fd/{descriptor}", path, None, MS_BIND)
        mount("none", folder, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def become(libc: ctypes.CDLL, user: int) -> None:
    """Another user; one without any capability, also where that user is root."""
    for capability in range(64):
        libc.prctl(CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def main() -> None:
    wanted: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    libc = ctypes.CDLL(None, use_errno=True)
    if wanted["private_network"] and libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace of one's own")
    hide(libc, wanted["hidden"], wanted["bound"])
    os.umask(wanted["umask"])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    become(libc, wanted["user"])
    if libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if wanted["deny_write_execute"] and libc.prctl(SET_MDWE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this kernel cannot refuse memory that is written and run")
    allow(wanted["calls"], wanted["families"])
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""On which volume a folder lies: whether it is mounted read-only, and whether the kernel encrypts it.

Read from /proc/self/mountinfo and /sys/dev/block. A volume counts as encrypted when a device mapper target of dm-crypt is below it,
directly or under LVM or RAID. What this cannot see is said to be unknown, never guessed: a disk that encrypts itself, a network share, a
data set of ZFS, a virtual disk that the hypervisor encrypts.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
BLOCK_DEVICES: Final = Path("/sys/dev/block")
_DEEPEST: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One mount. `device` is major:minor, of no block device for a network share."""

    point: Path
    device: str
    kind: str
    read_only: bool


def volume_of(folder: Path, *, mounts: Path = MOUNTS) -> Volume | None:
    """The mount that a folder lies on: the longest mount point above it, the last one mounted there."""
    wanted = folder.resolve()
    found = [each for each in _volumes(mounts) if each.point in (wanted, *wanted.parents)]
    return max(enumerate(found), key=lambda pair: (len(pair[1].point.parts), pair[0]))[1] if found else None


def is_encrypted(volume: Volume, *, devices: Path = BLOCK_DEVICES) -> bool | None:
    """True where dm-crypt is below the volume, False where plain block devices are, None where that cannot be seen."""
    device = devices / volume.device
    return _crypt_below(device, _DEEPEST) if device.exists() else None


def _crypt_below(device: Path, depth: int) -> bool:
    try:
        if (device / "dm" / "uuid").read_text().startswith("CRYPT-"):
            return True
    except OSError:
        pass  # no device mapper target
    below = device / "slaves"
    return depth > 0 and below.is_dir() and any(_crypt_below(each, depth - 1) for each in sorted(below.iterdir()))


def _volumes(mounts: Path) -> Iterator[Volume]:
    """mountinfo, proc(5): id, parent, major:minor, root, mount point, options, optional fields, a hyphen, type, source, super options."""
    for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        head, _, tail = line.partition(" - ")
        fields, (kind, _, over) = head.split(" "), tail.split(" ", 2)
        options = {*fields[5].split(","), *over.split(",")}
        yield Volume(point=Path(_unescaped(fields[4])), device=fields[2], kind=kind, read_only="ro" in options)


def _unescaped(text: str) -> str:
    """Blanks, tabs, newlines and backslashes are three octal digits after a backslash."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1"))

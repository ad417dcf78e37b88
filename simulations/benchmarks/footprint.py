# SPDX-License-Identifier: Apache-2.0
"""What a program and all its processes take: processor seconds, and PSS, in which a page shared by n processes counts 1/n for each."""

import os
import threading
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_INTERVAL_S = 0.05


def tree(root: int) -> list[int]:
    """A process and all its living descendants."""
    children: dict[int, list[int]] = defaultdict(list)
    for stat in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children[pid]
    return found


def cpu_s(root: int) -> float:
    """Processor seconds, user and system, that the living processes of a tree have used since they began."""
    ticks = 0
    for pid in tree(root):
        with suppress(OSError):
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def pss_bytes(pids: list[int]) -> int:
    """Proportional set size of these processes together; those that have ended count nothing."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            rollup = (_PROC / str(pid) / "smaps_rollup").read_text()
            total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total * 1024


class PeakWatch:
    """Samples a process tree while it is entered; `peak_bytes` and `most_processes` are the most that was seen."""

    def __init__(self, root: int, *, every_s: float = _INTERVAL_S) -> None:
        self._root, self._every_s = root, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes = 0
        self.most_processes = 0

    def __enter__(self) -> "PeakWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            alive = tree(self._root)
            self.peak_bytes = max(self.peak_bytes, pss_bytes(alive))
            self.most_processes = max(self.most_processes, len(alive))
            if self._stop.wait(self._every_s):
                return

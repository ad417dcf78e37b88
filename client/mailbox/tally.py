# SPDX-License-Identifier: Apache-2.0
"""What the mailbox has carried: messages and bytes, and how many bytes had to be sent again because a link broke.

Bytes are those of request and reply bodies, as Flower's client hands them over: TLS and TCP come on top. `again` counts what was sent for
a second or later try; it is part of `sent`. The file (stats.json, in the mailbox's folder) is for people and for whoever collects figures.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Final

from common.durable import write_atomically
from common.errors import DiskFull

STATS_FILE: Final = "stats.json"


@dataclass(slots=True)
class Counts:
    """Since the process began. `code` is the newest trouble's, empty when all is well; `since` is when the link last came or went."""

    process: int = 0
    connected: bool = False
    since: int = 0
    code: str = ""
    site_away: bool = False
    connections: int = 0
    messages: int = 0
    replies: int = 0
    refused_here: int = 0
    dropped: int = 0
    joined: int = 0
    sent: int = 0
    again: int = 0
    received: int = 0


@dataclass(slots=True)
class Tally:
    """Counts that several threads add to."""

    folder: Path
    counts: Counts = field(default_factory=Counts)
    _lock: Lock = field(default_factory=Lock)
    _written: dict[str, Any] = field(default_factory=dict)

    def add(self, **more: int) -> None:
        with self._lock:
            for name, value in more.items():
                setattr(self.counts, name, getattr(self.counts, name) + value)

    def note(self, **values: Any) -> None:
        with self._lock:
            for name, value in values.items():
                setattr(self.counts, name, value)

    def write(self) -> None:
        """Raises nothing: figures must not cost a message."""
        with self._lock:
            now = asdict(self.counts)
        if now == self._written:
            return
        try:
            write_atomically(self.folder / STATS_FILE, (json.dumps(now, indent=1) + "\n").encode(), fsync=False)
        except DiskFull:
            return
        self._written = now

# SPDX-License-Identifier: Apache-2.0
"""Messages that were taken from Flower and not answered yet, one small file each.

Flower hands a message out once. Between that and the answer lie minutes of training, in which a mailbox may be killed; so what it was
handed (the message's envelope, with what content came along: a small message is there whole) is written down first, and a new process goes
on with it. Content in pieces stays at the SuperLink until the answer is there, and the site answers the same request with the same bytes,
so going on is never a second release.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from common.durable import OWNER_ONLY, write_atomically
from common.errors import DiskFull

PENDING_FOLDER: Final = "pending"
_LARGEST: Final = 4 << 20
MOST: Final = 256
_NAME: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Pending:
    """The folder of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / PENDING_FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def keep(self, message_id: str, raw: bytes) -> None:
        """Raises nothing: on a full disk the message is carried all the same, and lost if this process dies."""
        if _NAME.fullmatch(message_id) and len(raw) <= _LARGEST:
            with suppress(DiskFull):
                write_atomically(self._folder / message_id, raw, fsync=False, mode=OWNER_ONLY)

    def drop(self, message_id: str) -> None:
        if _NAME.fullmatch(message_id):
            with suppress(OSError):
                (self._folder / message_id).unlink(missing_ok=True)

    def left(self) -> Iterator[tuple[str, bytes, float]]:
        """What a process before this one had taken, and how many seconds ago; the newest first."""
        found = [entry for entry in os.scandir(self._folder) if _NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)]
        for entry in sorted(found, key=lambda entry: entry.stat().st_mtime, reverse=True)[:MOST]:
            yield entry.name, Path(entry.path).read_bytes()[:_LARGEST], max(0.0, time.time() - entry.stat().st_mtime)

# SPDX-License-Identifier: Apache-2.0
"""The newest sum of a ledger, read from its end and believed: for showing how a simulation goes, never for deciding."""

import os
from pathlib import Path
from typing import Final

from common.privacy import entries
from common.privacy.entries import After, Spent

_TAIL_BYTES: Final = 64 * 1024


def last_sums(path: Path) -> After | None:
    """What the newest charge brought a site to; None, if the end of its ledger holds none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    whole = lines[:-1] if size <= _TAIL_BYTES else lines[1:-1]
    for line in reversed(whole):
        fact = entries.parse(line).fact
        if isinstance(fact, Spent):
            return fact.after
    return None

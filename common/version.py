# SPDX-License-Identifier: Apache-2.0
"""Which code wrote an entry: the version, and a digest of the sources; at a site, of those that train, account and release.

A version number says what was released; the digest says whether what ran was that. An auditor gets it again from the same sources:
SHA-256 over each file's path and content, in order.
"""

from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from common import canonical

SITE: Final = ("client", "common")
COORDINATOR: Final = ("common", "server")
_DIGITS: Final = 16


@lru_cache(maxsize=2)
def code_version(rooms: tuple[str, ...] = SITE) -> str:
    """Such as "fedward 0.1.0 sources 9f86d081884c7d65", of the rooms that run at one end."""
    root = Path(__file__).parents[1]
    files = sorted(path for room in rooms for path in (root / room).rglob("*.py"))
    parts = (part for path in files for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()))
    return f"fedward {version('fedward')} sources {canonical.digest(*parts).hex()[:_DIGITS]}"

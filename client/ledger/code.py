# SPDX-License-Identifier: Apache-2.0
"""Which code wrote an entry: the version, and a digest of the sources that train, account and release.

A version number says what was released; the digest says whether what ran was that. An auditor gets it again from the same sources:
SHA-256 over each file's path and content, in order.
"""

from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from common import canonical

_ROOMS = ("client", "common")
_DIGITS = 16


@lru_cache(maxsize=1)
def code_version() -> str:
    """Such as "fedward 0.1.0 sources 9f86d081884c7d65"."""
    root = Path(__file__).parents[2]
    files = sorted(path for room in _ROOMS for path in (root / room).rglob("*.py"))
    parts = (part for path in files for part in (path.relative_to(root).as_posix().encode(), path.read_bytes()))
    return f"fedward {version('fedward')} sources {canonical.digest(*parts).hex()[:_DIGITS]}"

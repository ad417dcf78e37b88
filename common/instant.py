# SPDX-License-Identifier: Apache-2.0
"""Unix seconds as signed files write them, and back: UTC, to the second, in one spelling.

>>> instant(0), seconds("1970-01-01T00:00:00Z")
('1970-01-01T00:00:00Z', 0)
"""

from datetime import UTC, datetime
from typing import Final

_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"


def instant(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(_FORM)


def seconds(text: str) -> int:
    """Raises: ValueError."""
    return int(datetime.strptime(text, _FORM).replace(tzinfo=UTC).timestamp())

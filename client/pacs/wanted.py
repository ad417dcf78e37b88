# SPDX-License-Identifier: Apache-2.0
"""One instance of the archive, by its three UIDs. They come from the archive, so they are looked at before they are used for anything.

A UID names a patient's examination to whoever may ask the archive. It is shown nowhere, and no file is named by it.
"""

import re
from dataclasses import dataclass
from typing import Final

_UID: Final = re.compile(r"[0-9][0-9.]{0,63}", re.ASCII)
"""PS3.5 9.1, and no stricter than scanners are: leading zeros have been seen. What matters is that nothing but digits and dots passes."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Wanted:
    """An instance to be asked for. `sop_class` is empty where the archive did not say it; it is no part of what the instance is."""

    study: str
    series: str
    instance: str
    sop_class: str = ""


def is_uid(text: object) -> bool:
    """Whether this is a UID and nothing else: no path, no list, no wildcard."""
    return isinstance(text, str) and _UID.fullmatch(text) is not None and ".." not in text

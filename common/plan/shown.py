# SPDX-License-Identifier: Apache-2.0
"""What a text says is what a person sees: a plan is signed, and approved, by people who read it on a terminal.

A terminal acts upon some characters instead of showing them. Escapes hide or overwrite what stands after them, a line's end begins what
looks like another paragraph of the page that an operator approves, marks of direction show words in another order (CVE-2021-42574). None
of them has a place in a file of ours.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any, Final

_ACTED_UPON: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
_JOINERS: Final = frozenset("\u200c\u200d")
"""Persian and the scripts of India are written with them."""

Path = tuple[str, ...]


def unshown(table: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Every such character of a table, keys among it, after the keys that lead there."""
    for path, text in _texts(table, ()):
        for character in text:
            if unicodedata.category(character) in _ACTED_UPON and character not in _JOINERS:
                yield path, character


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield path, key
            yield from _texts(below, (*path, key))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, path)
    elif isinstance(value, str):
        yield path, value

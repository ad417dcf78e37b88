# SPDX-License-Identifier: Apache-2.0
"""One spelling for a signed line: how a ledger and an audit log put a fact on disk.

A value has one spelling: JSON with sorted keys, no spaces, ASCII. What is signed is a title, which says what kind of file the line is of,
and the line with an empty signature; what the next line names is the SHA-256 of the whole line without its newline. So a program of thirty
lines, in any language, can check a chain by its text, and no signature can be carried from one kind of file to another.

    >>> render(("a", 1, math.inf))
    b'["a",1,"inf"]'
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final, Generic, TypeVar, cast

from pydantic import ConfigDict, Field, TypeAdapter

STRICT: Final = ConfigDict(extra="forbid", strict=True)
FIRST: Final = "0" * 64
"""What the first line names as the one before."""
NO_SIGNATURE: Final = ""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Stamp = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Signature = Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spelling(Generic[T]):
    """How entries of one kind of file are written, read and signed. An entry is a frozen dataclass with a field `sig`."""

    title: bytes
    adapter: TypeAdapter[T]

    def parse(self, line: bytes) -> T:
        """The entry that is spelled so. Raises: ValueError for any other bytes."""
        entry = self.adapter.validate_json(line)
        if render(entry) != line:
            raise ValueError("not the one spelling of its entry")
        return entry

    def normal(self, entry: T) -> T:
        """The entry as it will be read back: 8 where a cost belongs becomes 8.0. Raises: ValueError for values that no entry can have."""
        return self.adapter.validate_json(render(entry))

    def signed_text(self, value: Any) -> bytes:
        """What a signature is over: the value as spelled with an empty one."""
        return self.title + render(dataclasses.replace(value, sig=NO_SIGNATURE))

    def signed(self, entry: T, sign: Callable[[bytes], bytes]) -> bytes:
        """The line of an entry, signed. Raises: ValueError for values that no entry can have."""
        unsigned: Any = self.normal(entry)
        return render(dataclasses.replace(unsigned, sig=sign(self.signed_text(unsigned)).hex()))


def render(value: object) -> bytes:
    """The one spelling of a value made of dataclasses, tuples, text, numbers."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def digest(line: bytes) -> bytes:
    """SHA-256: how the next line names this one."""
    return hashlib.sha256(line).digest()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in _names(cast(Hashable, type(value)))}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return "inf" if value == math.inf else value


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))

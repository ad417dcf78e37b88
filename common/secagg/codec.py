# SPDX-License-Identifier: Apache-2.0
"""Messages and stored state as bytes that can be read back: one value, one spelling.

`common.canonical` writes what is only ever hashed. Here bytes arrive from a stranger, so the reader knows the type beforehand and the
bytes carry no type letters: a frozen dataclass is its fields in order, an integer is u64 big-endian, bytes, text and lists carry a u32
big-endian length, and `Annotated[bytes, 32]` is exactly 32 bytes. Nothing is optional, nothing may follow the last field, and each
value has one encoding only, so that equal digests mean equal messages.

A list's length is checked against the bytes that are left before a single element is made: four bytes cannot ask for four gigabytes.
A field marked `APART` is not written; whoever reads the value back supplies it (a site's update lies in a file of its own).

    >>> write("ab").hex()
    '000000026162'
    >>> read(tuple[int, ...], write((1, 2)))
    (1, 2)
"""

import dataclasses
import functools
import struct
import typing
from collections.abc import Callable, Hashable, Mapping
from enum import IntEnum
from typing import Annotated, Any, Final, TypeVar

from common.errors import MessageFormat

Bytes16 = Annotated[bytes, 16]
Bytes32 = Annotated[bytes, 32]
Bytes64 = Annotated[bytes, 64]

_APART: Final = "apart"
APART: Final = {_APART: True}
"""Metadata of a dataclass field that is kept elsewhere and handed back to `read` by name."""

T = TypeVar("T")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_Reader = Callable[["_Cursor"], Any]


def write(value: Any) -> bytes:
    """Canonical bytes of a value. Raises: TypeError, OverflowError for what has none."""
    parts: list[bytes] = []
    _write(value, parts.append, None)
    return b"".join(parts)


def read(kind: type[T], data: bytes, *, what: str = "a message", apart: Mapping[str, Any] | None = None) -> T:
    """The value of type `kind` whose canonical bytes are `data`.

    Guarantees: write(read(kind, data)) == data.
    Raises: MessageFormat for anything else.
    """
    cursor = _Cursor(data=bytes(data), what=what, apart=apart or {})
    value: T = _reader(typing.cast(Hashable, kind))(cursor)
    if cursor.at != len(cursor.data):
        raise cursor.wrong(f"has {len(cursor.data) - cursor.at} bytes after its end")
    return value


@dataclasses.dataclass(slots=True, kw_only=True)
class _Cursor:
    data: bytes
    what: str
    apart: Mapping[str, Any]
    at: int = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise self.wrong(f"ends after {len(self.data)} bytes, {size} more were expected at byte {self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def length(self) -> int:
        size: int = _U32.unpack(self.take(4))[0]
        if size > len(self.data) - self.at:
            raise self.wrong(f"announces {size} parts or bytes at byte {self.at - 4}, {len(self.data) - self.at} are left")
        return size

    def wrong(self, complaint: str) -> MessageFormat:
        return MessageFormat(f"{self.what} {complaint}.", fix="Both ends must run the same version of fedward; ask for the message again.")


def _write(value: Any, out: Callable[[bytes], None], kind: Any) -> None:
    if isinstance(value, int) and not isinstance(value, bool):
        out(_U64.pack(value) if 0 <= value < 2**64 else _overflow(value))
    elif isinstance(value, bytes):
        out(value if _fixed_size(kind) == len(value) else _U32.pack(len(value)) + value)
    elif isinstance(value, str):
        raw = value.encode()
        out(_U32.pack(len(raw)) + raw)
    elif isinstance(value, tuple):
        out(_U32.pack(len(value)))
        element = typing.get_args(kind)[0] if kind is not None else None
        for item in value:
            _write(item, out, element)
    elif dataclasses.is_dataclass(value):
        for name, field_kind in _written_fields(typing.cast(Hashable, type(value))):
            _write(getattr(value, name), out, field_kind)
    else:
        raise TypeError(f"{type(value).__name__} has no place in a message")


def _overflow(value: int) -> bytes:
    raise OverflowError(f"{value} does not fit an unsigned 64-bit integer")


def _fixed_size(kind: Any) -> int | None:
    """32 for Annotated[bytes, 32]; a value of another length is a mistake of ours and ends up unreadable, not truncated."""
    return typing.get_args(kind)[1] if typing.get_origin(kind) is Annotated else None


@functools.cache
def _written_fields(kind: Any) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return tuple((field.name, hints[field.name]) for field in dataclasses.fields(kind) if _APART not in field.metadata)


@functools.cache
def _reader(kind: Any) -> _Reader:
    if typing.get_origin(kind) is Annotated:
        size = typing.get_args(kind)[1]
        return lambda cursor: cursor.take(size)
    if typing.get_origin(kind) is tuple:
        return _tuple_reader(_reader(typing.get_args(kind)[0]))
    if kind is int:
        return lambda cursor: _U64.unpack(cursor.take(8))[0]
    if kind is bytes:
        return lambda cursor: cursor.take(cursor.length())
    if kind is str:
        return _read_text
    if isinstance(kind, type) and issubclass(kind, IntEnum):
        return _enum_reader(kind)
    if dataclasses.is_dataclass(kind):
        return _record_reader(typing.cast(type, kind))
    raise TypeError(f"{kind} cannot be read from a message")


def _tuple_reader(element: _Reader) -> _Reader:
    return lambda cursor: tuple(element(cursor) for _ in range(cursor.length()))


def _read_text(cursor: _Cursor) -> str:
    raw = cursor.take(cursor.length())
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise cursor.wrong("holds text that is not UTF-8") from None


def _enum_reader(kind: type[IntEnum]) -> _Reader:
    known = {int(member): member for member in kind}

    def reader(cursor: _Cursor) -> IntEnum:
        number: int = _U64.unpack(cursor.take(8))[0]
        if number not in known:
            raise cursor.wrong(f"names {kind.__name__.lower()} {number}, known are {sorted(known)}")
        return known[number]

    return reader


def _record_reader(kind: type) -> _Reader:
    fields = tuple((name, _reader(field_kind)) for name, field_kind in _written_fields(kind))
    names_apart = tuple(field.name for field in dataclasses.fields(kind) if _APART in field.metadata)

    def reader(cursor: _Cursor) -> Any:
        values = {name: read_field(cursor) for name, read_field in fields}
        return kind(**values, **{name: cursor.apart[name] for name in names_apart})

    return reader

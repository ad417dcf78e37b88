# SPDX-License-Identifier: Apache-2.0
"""A message as bytes, between the mailbox and the site process: a small head, then at most one flat vector.

Flower's records are objects of Flower's; a hospital's process that holds keys and pixels should not have to unpack those of strangers. So
the mailbox, which holds neither, takes a message apart, and over the socket goes a form of our own that has room for nothing else:

    head      "FWE1" | u32 length of what follows | type | u8 count | fields in strict order of their keys | vector?
      type    u16 length, ASCII
      field   u8 length, key | "i" i64   or   "s" u32 length, UTF-8   or   "b" u32 length, bytes
      vector? 0   or   1 | u8 length, stype | u8 length, dtype | u64 values | u64 bytes
    vector    raw bytes, in pieces of 4 MB; the last one may be shorter

All numbers are big-endian. One message has one spelling: what `open_head` accepts, `head_of` writes again byte for byte. Every length is
compared with what is there, and with a limit, before anything of that size is made. What a field means is not this module's business: the
same content is checked by `common.wire` on whichever way it came.

It protects nobody's secrets: what goes over this socket is masked or signed already.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from common.errors import MessageFormat, MessageTooLarge

CHUNK_BYTES: Final = 4 << 20
LARGEST_HEAD: Final = CHUNK_BYTES
"""A cohort of a thousand sites needs half a megabyte of control bytes."""
_MAGIC: Final = b"FWE1"
_PREAMBLE: Final = struct.Struct(">4sI")
_SAME_VERSION: Final = "Mailbox and site process must be of the same version of fedward."

Field = int | str | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is said of a vector before it comes: its kind in Flower's words, how many values, how many bytes."""

    stype: str
    dtype: str
    size: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """All of a message but its vector."""

    message_type: str
    fields: Mapping[str, Field]
    vector: Shape | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A whole message. `data` is empty exactly where the head announces no vector."""

    head: Head
    data: bytes = b""


def pieces(envelope: Envelope) -> Iterator[bytes]:
    """What goes over the socket, piece by piece. Raises: MessageFormat, MessageTooLarge."""
    yield head_of(envelope.head)
    view = memoryview(envelope.data)
    for start in range(0, len(view), CHUNK_BYTES):
        yield bytes(view[start : start + CHUNK_BYTES])


def read(arriving: Iterable[bytes], *, largest_vector: int) -> Envelope:
    """The other end of `pieces`. Raises: MessageFormat, MessageTooLarge."""
    pieces_left = iter(arriving)
    head = open_head(next(pieces_left, b""))
    return Envelope(head=head, data=vector_of(head, pieces_left, largest=largest_vector))


def vector_of(head: Head, arriving: Iterator[bytes], *, largest: int) -> bytes:
    """The vector that a head announced. Nothing is kept of one that is too large. Raises: MessageFormat, MessageTooLarge."""
    announced = head.vector.num_bytes if head.vector else 0
    if announced > largest:
        raise MessageTooLarge(f"a vector of {announced} bytes is announced, at most {largest} are expected.", fix=_SAME_VERSION)
    parts: list[bytes] = []
    left = announced
    for part in arriving:
        # Whole pieces alone: each is an object, and a vector in millions of crumbs would take many times its size.
        if left == 0 or len(part) != min(CHUNK_BYTES, left):
            raise MessageTooLarge(f"a vector of {announced} bytes came in pieces that do not add up to it.", fix=_SAME_VERSION)
        left -= len(part)
        parts.append(part)
    if left:
        raise MessageFormat(f"a vector of {announced} bytes ended {left} bytes early.", fix=_SAME_VERSION)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def head_of(head: Head) -> bytes:
    """Raises: MessageFormat for what has no place in a head, MessageTooLarge."""
    try:
        body = b"".join(_written(head))
    except (struct.error, UnicodeEncodeError):
        raise MessageFormat("a message has a field that is too long, too large or not text.", fix=_SAME_VERSION) from None
    if len(body) + _PREAMBLE.size > LARGEST_HEAD:
        raise MessageTooLarge(f"a message has {len(body)} bytes beside its vector, at most {LARGEST_HEAD} are sent.", fix=_SAME_VERSION)
    return _PREAMBLE.pack(_MAGIC, len(body)) + body


def open_head(raw: bytes) -> Head:
    """Raises: MessageFormat, MessageTooLarge."""
    if len(raw) > LARGEST_HEAD:
        raise MessageTooLarge(f"a message begins with {len(raw)} bytes, at most {LARGEST_HEAD} are expected.", fix=_SAME_VERSION)
    if len(raw) < _PREAMBLE.size or _PREAMBLE.unpack_from(raw) != (_MAGIC, len(raw) - _PREAMBLE.size):
        raise MessageFormat("a message does not begin as fedward's envelopes do.", fix=_SAME_VERSION)
    try:
        head = _read_head(_Cursor(memoryview(raw)[_PREAMBLE.size :]))
    except (struct.error, UnicodeDecodeError):
        raise MessageFormat("a message's head ends early or is not text where it should be.", fix=_SAME_VERSION) from None
    if head_of(head) != raw:
        raise MessageFormat("a message's head is not in its one form.", fix=_SAME_VERSION)
    return head


def _written(head: Head) -> Iterator[bytes]:
    yield _short(head.message_type.encode("ascii"), ">H")
    yield struct.pack(">B", len(head.fields))
    for key in sorted(head.fields):
        yield _short(key.encode("ascii"), ">B")
        yield _written_field(head.fields[key])
    if head.vector is None:
        yield b"\0"
        return
    yield b"\1" + _short(head.vector.stype.encode("ascii"), ">B") + _short(head.vector.dtype.encode("ascii"), ">B")
    yield struct.pack(">QQ", head.vector.size, head.vector.num_bytes)


def _written_field(value: Field) -> bytes:
    # Not isinstance: True is an int to Python, and has no place here.
    if type(value) is int:
        return b"i" + struct.pack(">q", value)
    if type(value) is str:
        return b"s" + _short(value.encode(), ">I")
    if type(value) is bytes:
        return b"b" + _short(value, ">I")
    raise MessageFormat(f"a field is of type {type(value).__name__}, expected int, str or bytes.", fix=_SAME_VERSION)


def _short(raw: bytes, width: str) -> bytes:
    return struct.pack(width, len(raw)) + raw


def _read_head(cursor: "_Cursor") -> Head:
    message_type = cursor.counted(">H").decode("ascii")
    fields: dict[str, Field] = {}
    for _ in range(cursor.number(">B")):
        key = cursor.counted(">B").decode("ascii")
        fields[key] = _read_field(cursor)
    vector = None
    if cursor.number(">B"):
        stype, dtype = cursor.counted(">B").decode("ascii"), cursor.counted(">B").decode("ascii")
        vector = Shape(stype=stype, dtype=dtype, size=cursor.number(">Q"), num_bytes=cursor.number(">Q"))
    return Head(message_type=message_type, fields=fields, vector=vector)


def _read_field(cursor: "_Cursor") -> Field:
    match cursor.take(1):
        case b"i":
            return cursor.number(">q")
        case b"s":
            return cursor.counted(">I").decode()
        case b"b":
            return cursor.counted(">I")
    raise MessageFormat("a field of a message has no known type.", fix=_SAME_VERSION)


class _Cursor:
    """A place in bytes that moves forward, and never past the end."""

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw

    def take(self, length: int) -> bytes:
        if length > len(self._raw):
            raise struct.error
        taken, self._raw = self._raw[:length], self._raw[length:]
        return bytes(taken)

    def number(self, form: str) -> int:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return int(value)

    def counted(self, width: str) -> bytes:
        return self.take(self.number(width))

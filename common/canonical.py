# SPDX-License-Identifier: Apache-2.0
"""One byte string for one meaning: the encoding under every digest and signature.

Two parties who agree on a value must hash the same bytes, and no two values may share them. JSON promises neither (key order, float
spelling, 1 against 1.0), so values are written with a type letter and a length before each part, keys sorted, integers and floats in
fixed width, big-endian. There is no decoder: these bytes are only ever hashed or signed, never read back.

    >>> encode({"b": 1, "a": "x"}) == encode({"a": "x", "b": 1})
    True
    >>> encode(1) == encode(1.0)
    False
"""

import dataclasses
import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any


def length_prefixed(*parts: bytes | memoryview) -> bytes:
    """`u32be length || bytes` for each part: concatenation that cannot be split another way."""
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def digest(*parts: bytes | memoryview) -> bytes:
    """H(x1, x2, ...): SHA-256 over the length-prefixed parts; 32 bytes."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(struct.pack(">I", len(part)))
        hasher.update(part)
    return hasher.digest()


def encode(value: Any) -> bytes:
    """Canonical bytes of None, bool, int (64 bit), float, str, bytes, sequences, string-keyed mappings and dataclasses.

    Raises: TypeError for anything else, OverflowError for an integer beyond 64 bits. Dataclass fields are written by name.
    """
    match value:
        case None:
            return b"n"
        case bool():
            return b"t" if value else b"f"
        case int():
            return b"i" + struct.pack(">q", value)
        case float():
            return b"d" + struct.pack(">d", value)
        case str():
            return b"s" + length_prefixed(value.encode())
        case bytes():
            return b"b" + length_prefixed(value)
        case Mapping():
            pairs = sorted((str(key), encode(item)) for key, item in value.items())
            return b"m" + length_prefixed(*(part for key, item in pairs for part in (key.encode(), item)))
        case Sequence():
            return b"l" + length_prefixed(*map(encode, value))
    if dataclasses.is_dataclass(value):
        return encode({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    raise TypeError(f"{type(value).__name__} has no canonical encoding")

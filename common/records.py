# SPDX-License-Identifier: Apache-2.0
"""Flower's records and our envelopes: one into the other, and nothing lost or added.

A message of fedward is one record of fields and at most one array in a record of its own (`common.wire`). Whatever is not of that form
has no envelope and is refused here, by the mailbox, before it comes near a process that holds data. Whether the fields are the right ones
is not looked at: that is the site's to judge, and it trusts no mailbox.
"""

from typing import Final

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.serde import recorddict_to_proto

from common.envelope import Envelope, Field, Head, Shape
from common.errors import MessageFormat

FIELDS: Final = "fedward"
VECTOR: Final = "vector"
_FIX: Final = "Both ends must run the same version of fedward."


def to_envelope(message_type: str, content: RecordDict) -> Envelope:
    """Raises: MessageFormat."""
    record = content.get(FIELDS)
    if not isinstance(record, ConfigRecord) or not set(content) <= {FIELDS, VECTOR}:
        raise MessageFormat(f"a message holds {len(content)} records that are not those of fedward.", fix=_FIX)
    fields = {key: _field(value) for key, value in record.items()}
    array = _array(content)
    if array is None:
        return Envelope(head=Head(message_type=message_type, fields=fields))
    shape = Shape(stype=array.stype, dtype=array.dtype, size=array.shape[0], num_bytes=len(array.data))
    return Envelope(head=Head(message_type=message_type, fields=fields, vector=shape), data=array.data)


def to_content(envelope: Envelope) -> RecordDict:
    """The records that the envelope was made of."""
    content = RecordDict({FIELDS: ConfigRecord(dict(envelope.head.fields))})
    if shape := envelope.head.vector:
        array = Array(dtype=shape.dtype, shape=(shape.size,), stype=shape.stype, data=envelope.data)
        content[VECTOR] = ArrayRecord({VECTOR: array})
    return content


def size_of(content: RecordDict) -> int:
    """Bytes of its arrays, and of its other records as they are encoded. Flower's own count fails at a value that is empty."""
    arrays = sum(len(array.data) for record in content.array_records.values() for array in record.values())
    rest = RecordDict({name: record for name, record in content.items() if not isinstance(record, ArrayRecord)})
    return arrays + int(recorddict_to_proto(rest).ByteSize())


def _field(value: object) -> Field:
    if type(value) not in (int, str, bytes):
        raise MessageFormat(f"a message has a field of type {type(value).__name__}, expected int, str or bytes.", fix=_FIX)
    assert isinstance(value, (int, str, bytes))
    return value


def _array(content: RecordDict) -> Array | None:
    if VECTOR not in content:
        return None
    record = content[VECTOR]
    if not isinstance(record, ArrayRecord) or set(record) != {VECTOR}:
        raise MessageFormat("a message's vector record is not one array.", fix=_FIX)
    array = record[VECTOR]
    # Flower reads these from JSON that a stranger wrote, and looks at no type.
    kinds = [type(array.stype), type(array.dtype), type(array.data), *map(type, array.shape)]
    if kinds != [str, str, bytes, int] or array.shape[0] < 0:
        raise MessageFormat("a message's vector is not one row of numbers.", fix=_FIX)
    return array

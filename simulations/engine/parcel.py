# SPDX-License-Identifier: Apache-2.0
"""Flower's messages as a small header and the large bytes beside it.

A `Parcel` is a message (or a site's state) taken apart: the header is a pickle of plain tuples in which every array is a number, and
`blobs` holds the arrays' own `bytes` objects, not copies of them. A message sent to a hundred sites is a hundred headers and one blob.

The header is sealed when the message is pushed, so that what a caller does to its records afterwards cannot reach a site. Pickle is
used between processes of one program that trust one another; nothing here is ever read from a network.
"""

import pickle
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message.message import make_message


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A message or a state, taken apart. Equal if header and arrays are equal."""

    header: bytes
    blobs: tuple[bytes, ...] = ()


def pack_message(message: Message) -> Parcel:
    blobs: list[bytes] = []
    error = (message.error.code, message.error.reason) if message.has_error() else None
    content = _pack_records(message.content, blobs) if message.has_content() else None
    return Parcel(header=pickle.dumps((_pack_metadata(message.metadata), content, error), 5), blobs=tuple(blobs))


def unpack_message(parcel: Parcel) -> Message:
    metadata, content, error = pickle.loads(parcel.header)  # noqa: S301 - our own bytes, see the module's docstring
    return make_message(
        metadata=_unpack_metadata(metadata),
        content=None if content is None else _unpack_records(content, parcel.blobs),
        error=None if error is None else Error(code=error[0], reason=error[1]),
    )


def pack_records(records: RecordDict) -> Parcel:
    blobs: list[bytes] = []
    return Parcel(header=pickle.dumps(_pack_records(records, blobs), 5), blobs=tuple(blobs))


def unpack_records(parcel: Parcel) -> RecordDict:
    return _unpack_records(pickle.loads(parcel.header), parcel.blobs)  # noqa: S301 - our own bytes


def _pack_metadata(metadata: Metadata) -> tuple[Any, ...]:
    return (
        metadata.run_id,
        metadata.message_id,
        metadata.src_node_id,
        metadata.dst_node_id,
        metadata.reply_to_message_id,
        metadata.group_id,
        metadata.created_at,
        metadata.ttl,
        metadata.message_type,
        metadata.src_task_id,
        metadata.dst_task_id,
    )


def _unpack_metadata(fields: tuple[Any, ...]) -> Metadata:
    return Metadata(*fields)


def copy_metadata(metadata: Metadata) -> Metadata:
    return _unpack_metadata(_pack_metadata(metadata))


def _pack_records(records: RecordDict, blobs: list[bytes]) -> list[tuple[str, str, Any]]:
    packed: list[tuple[str, str, Any]] = []
    for name, record in records.items():
        if isinstance(record, ArrayRecord):
            packed.append((name, "array", [_pack_array(key, array, blobs) for key, array in record.items()]))
        else:
            packed.append((name, "config" if isinstance(record, ConfigRecord) else "metric", dict(record)))
    return packed


def _pack_array(key: str, array: Array, blobs: list[bytes]) -> tuple[Any, ...]:
    # A data field that is not bytes (Flower does not check assignments) is copied: only bytes are sure not to change.
    blobs.append(array.data if type(array.data) is bytes else bytes(array.data))
    return key, array.dtype, array.shape, array.stype, len(blobs) - 1


def _unpack_records(packed: list[tuple[str, str, Any]], blobs: tuple[bytes, ...]) -> RecordDict:
    records = RecordDict()
    for name, kind, content in packed:
        if kind == "array":
            record = ArrayRecord()
            for key, dtype, shape, stype, index in content:
                record[key] = Array(dtype=dtype, shape=tuple(shape), stype=stype, data=blobs[index])
            records[name] = record
        else:
            records[name] = ConfigRecord(content) if kind == "config" else MetricRecord(content)
    return records

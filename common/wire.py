# SPDX-License-Identifier: Apache-2.0
"""The typed messages, and the one codec between them and Flower's records.

Nothing else crosses between coordinator and site. A message is one `ConfigRecord` of ints, strings and bytes with a fixed set of keys,
and at most one flat float32 vector. The vector travels as raw little-endian bytes: no npy header to forge, no pickle to run, and no
second copy to make. Everything that arrives is checked against the schema and the expected length before it is looked at.

What a site may say is what stands in `TrainReply`: its name, the round, a `ReleasedDelta`. There is no field for a metric, a loss or a
count of patients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from common.errors import MessageFormat, MessageTooLarge
from common.update import Layout, ReleasedDelta, Vector, Weights

VERSION: Final = 1
HELLO: Final = "query.hello"
TRAIN: Final = "train.delta"

_FIELDS = "fedward"
_VECTOR = "vector"
_STYPE = "fedward.f4"
_BYTES_PER_VALUE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Which training run, round and try a message belongs to. `session` is 16 random bytes of our own: Flower's run ids change."""

    session: bytes
    round: int
    attempt: int
    plan: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Coordinator to site: who are you, and do you know this plan?"""

    plan: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloReply:
    """Site to coordinator: its name."""

    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """Coordinator to site: train this model for one round."""

    step: Step
    weights: Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReply:
    """Site to coordinator: a released delta and nothing else."""

    step: Step
    site: str
    update: ReleasedDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Site to coordinator: no, with a stable code. The words, which may name a folder, stay at the site."""

    site: str
    code: str


def encode_hello(message: Hello) -> RecordDict:
    return _pack({"type": "hello", "plan": message.plan})


def encode_hello_reply(message: HelloReply) -> RecordDict:
    return _pack({"type": "hello.reply", "site": message.site})


def encode_train_request(message: TrainRequest) -> RecordDict:
    return _pack({"type": "train", **_step_fields(message.step)}, message.weights.values)


def encode_train_reply(message: TrainReply) -> RecordDict:
    return _pack({"type": "train.reply", "site": message.site, **_step_fields(message.step)}, message.update.values)


def encode_refusal(message: Refusal) -> RecordDict:
    return _pack({"type": "refusal", "site": message.site, "code": message.code})


def decode_hello(content: RecordDict) -> Hello:
    fields = _unpack(content, "hello", {"plan": str})
    return Hello(plan=fields["plan"])


def decode_hello_reply(content: RecordDict) -> HelloReply | Refusal:
    if _type_of(content) == "refusal":
        return _decode_refusal(content)
    return HelloReply(site=_unpack(content, "hello.reply", {"site": str})["site"])


def decode_train_request(content: RecordDict, layout: Layout) -> TrainRequest:
    """Raises: MessageFormat, MessageTooLarge, ModelLayout, UpdateNonFinite."""
    fields = _unpack(content, "train", _STEP, vector=True)
    return TrainRequest(step=_step(fields), weights=Weights(layout=layout, values=_vector(content, layout.size)))


def decode_train_reply(content: RecordDict, layout: Layout) -> TrainReply | Refusal:
    """Raises: MessageFormat, MessageTooLarge, UpdateNonFinite."""
    if _type_of(content) == "refusal":
        return _decode_refusal(content)
    fields = _unpack(content, "train.reply", {"site": str, **_STEP}, vector=True)
    update = ReleasedDelta(values=_vector(content, layout.size))
    return TrainReply(step=_step(fields), site=fields["site"], update=update)


_STEP: Mapping[str, type] = {"session": bytes, "round": int, "attempt": int, "plan": str}


def _step_fields(step: Step) -> dict[str, Any]:
    return {"session": step.session, "round": step.round, "attempt": step.attempt, "plan": step.plan}


def _step(fields: Mapping[str, Any]) -> Step:
    return Step(session=fields["session"], round=fields["round"], attempt=fields["attempt"], plan=fields["plan"])


def _decode_refusal(content: RecordDict) -> Refusal:
    fields = _unpack(content, "refusal", {"site": str, "code": str})
    return Refusal(site=fields["site"], code=fields["code"])


def _pack(fields: dict[str, Any], vector: Vector | None = None) -> RecordDict:
    content = RecordDict({_FIELDS: ConfigRecord({"version": VERSION, **fields})})
    if vector is not None:
        raw = np.ascontiguousarray(vector, dtype="<f4").tobytes()
        array = Array(dtype="float32", shape=(vector.size,), stype=_STYPE, data=raw)
        content[_VECTOR] = ArrayRecord({_VECTOR: array})
    return content


def _type_of(content: RecordDict) -> Any:
    record = content.get(_FIELDS)
    return record.get("type") if isinstance(record, ConfigRecord) else None


def _unpack(content: RecordDict, kind: str, schema: Mapping[str, type], *, vector: bool = False) -> dict[str, Any]:
    """The fields of a message, exactly as in the schema: no key missing, none more, each of its type."""
    record = content.get(_FIELDS)
    records = {_FIELDS, _VECTOR} if vector else {_FIELDS}
    if not isinstance(record, ConfigRecord) or set(content) != records:
        raise MessageFormat(f"a message holds the records {sorted(content)[:8]}, expected {sorted(records)}.", fix=_SAME_VERSION)
    if record.get("version") != VERSION:
        raise MessageFormat(f"a message has protocol version {record.get('version')!r}, this is version {VERSION}.", fix=_SAME_VERSION)
    expected = {"version": int, "type": str, **schema}
    if record.get("type") != kind or set(record) != set(expected):
        raise MessageFormat(f"a message is of type {record.get('type')!r} with {len(record)} fields, expected '{kind}'.", fix=_SAME_VERSION)
    for key, kind_of_value in expected.items():
        if type(record[key]) is not kind_of_value:
            found = type(record[key]).__name__
            raise MessageFormat(f"field '{key}' of a '{kind}' message is {found}, expected {kind_of_value.__name__}.", fix=_SAME_VERSION)
    return dict(record)


def _vector(content: RecordDict, size: int) -> Vector:
    record = content[_VECTOR]
    if not isinstance(record, ArrayRecord) or set(record) != {_VECTOR}:
        raise MessageFormat("a message's vector record is not one array.", fix=_SAME_VERSION)
    array = record[_VECTOR]
    if array.stype != _STYPE or array.dtype != "float32":
        raise MessageFormat(f"a vector is {array.stype}/{array.dtype}, expected {_STYPE}/float32.", fix=_SAME_VERSION)
    if len(array.data) != size * _BYTES_PER_VALUE or tuple(array.shape) != (size,):
        raise MessageTooLarge(
            f"a vector has {len(array.data)} bytes and shape {tuple(array.shape)}, expected {size * _BYTES_PER_VALUE} bytes.",
            fix=_SAME_VERSION,
        )
    return np.frombuffer(array.data, dtype="<f4")


_SAME_VERSION = "Both ends must run the same plan and the same version of fedward."

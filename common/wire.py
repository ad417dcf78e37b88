# SPDX-License-Identifier: Apache-2.0
"""The typed messages, and the one codec between them and Flower's records.

Nothing else crosses between coordinator and site. A message is one `ConfigRecord` of ints, strings and bytes with a fixed set of keys,
and at most one flat vector of one type. The vector travels as raw little-endian bytes: no npy header to forge, no pickle to run, and no
second copy to make. Everything that arrives is checked against the schema and the expected length before it is looked at.

Secure aggregation has one pair of messages for its six steps: control bytes, which `common.secagg` makes and reads, and one vector: the
global model down in the first step, the masked update up in the third. What a site may say is its name, control bytes and a
`MaskedUpdate`; in a simulation that was asked for it, a `ReleasedDelta` or a `QuantisedDelta`. There is no field for a metric, a loss or
a count of patients.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from common import roster
from common.errors import MessageFormat, MessageTooLarge
from common.news import News
from common.secagg import complaints
from common.update import Layout, MaskedUpdate, QuantisedDelta, ReleasedDelta, Vector, Weights, Words

VERSION: Final = 1
UPDATE: Final = "UPDATE"
HELLO: Final = "query.hello"
NEWS: Final = "query.news"
TRAIN: Final = "train.delta"
TRAIN_IDEAL: Final = "train.ideal"
SECURE: Final[Mapping[str, str]] = {
    "KEYS": "train.fsa1",
    "SHARE": "query.fsa1_share",
    "MASK": "query.fsa1_mask",
    "CONFIRM": "query.fsa1_confirm",
    "UNMASK": "query.fsa1_unmask",
    "ABANDON": "query.fsa1_abandon",
}
"""Flower's message type for each step of the protocol; one dot is all that Flower allows."""
Content = RecordDict
"""What a message holds, to those who neither make nor read Flower's records themselves."""

LARGEST_NEWS: Final[Mapping[str, int]] = {"roster": roster.LARGEST_FILE, "plan": 2**20, "endorsement": 2**16, "signature": 64}
"""Bytes of each part of a message of news."""

_FIELDS = "fedward"
_VECTOR = "vector"
_MODEL = "float32"
_WORDS: Final[Mapping[str, re.Pattern[str]]] = {
    "site": re.compile(r"|[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII),
    "code": re.compile(r"E_[A-Z0-9_]{1,40}", re.ASCII),
}
"""What a site says in letters. Neither has room for an exception's text, a path or a person. Only a refusal may come from nobody."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_STYPES: Final[Mapping[str, str]] = {_MODEL: "fedward.f4", "uint32": "fedward.u4", "uint16": "fedward.u2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Which training run, round and try a message belongs to, and what is asked: the name of a kind of sum (common.secagg.terms).

    `session` is 16 random bytes of our own: Flower's run ids change.
    """

    session: bytes
    round: int
    attempt: int
    plan: str
    kind: str = UPDATE


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Coordinator to site: who are you, and do you know this plan?"""

    plan: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloReply:
    """Site to coordinator: its name."""

    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewsReply:
    """Site to coordinator: the epoch of the roster in force there, 0 before the first, and the digest of the plan approved, if one is."""

    site: str
    epoch: int
    plan: str


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
class IdealReply:
    """Site to coordinator, in simulations only: what would be masked, unmasked."""

    step: Step
    site: str
    update: QuantisedDelta


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureRequest:
    """Coordinator to site: one step of secure aggregation. `round` is a label for people and decides nothing: what counts is signed.

    `model` stands beside the first step alone. It is not trusted to be finite or the announced one: the protocol checks that.
    """

    round: int
    control: bytes
    model: Vector | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureReply:
    """Site to coordinator: its answer, and in the third step its masked update."""

    site: str
    control: bytes
    update: MaskedUpdate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Site to coordinator: no, with a stable code. The words, which may name a folder, stay at the site.

    `site` is empty where the site could not read its own name. `complaint` is there where peers are at fault: who, signed by the site
    (common.secagg.complaints). A refusal without one has no such field, so that a coordinator of before reads it.
    """

    site: str
    code: str
    complaint: bytes = b""


def encode_hello(message: Hello) -> RecordDict:
    return _pack({"type": "hello", "plan": message.plan})


def encode_hello_reply(message: HelloReply) -> RecordDict:
    return _pack({"type": "hello.reply", "site": message.site})


def encode_news(message: News) -> RecordDict:
    parts = {"roster": message.roster, "plan": message.plan, "endorsement": message.endorsement, "signature": message.signature}
    return _pack({"type": "news", **parts})


def encode_news_reply(message: NewsReply) -> RecordDict:
    return _pack({"type": "news.reply", "site": message.site, "epoch": message.epoch, "plan": message.plan})


def encode_train_request(message: TrainRequest) -> RecordDict:
    return _pack({"type": "train", **_step_fields(message.step)}, message.weights.values)


def encode_train_reply(message: TrainReply) -> RecordDict:
    return _pack({"type": "train.reply", "site": message.site, **_step_fields(message.step)}, message.update.values)


def encode_ideal_reply(message: IdealReply) -> RecordDict:
    fields = {"type": "ideal.reply", "site": message.site, "weight": message.update.weight, **_step_fields(message.step)}
    return _pack(fields, message.update.words)


def encode_secure_request(message: SecureRequest) -> RecordDict:
    return _pack({"type": "secure", "round": message.round, "control": message.control}, message.model)


def encode_secure_reply(message: SecureReply) -> RecordDict:
    words = None if message.update is None else message.update.words
    return _pack({"type": "secure.reply", "site": message.site, "control": message.control}, words)


def encode_refusal(message: Refusal) -> RecordDict:
    complaint = {"complaint": message.complaint} if message.complaint else {}
    return _pack({"type": "refusal", "site": message.site, "code": message.code, **complaint})


def decode_hello(content: RecordDict) -> Hello:
    fields = _unpack(content, "hello", {"plan": str})
    return Hello(plan=fields["plan"])


def decode_hello_reply(content: RecordDict) -> HelloReply | Refusal:
    if _type_of(content) == "refusal":
        return _decode_refusal(content)
    return HelloReply(site=_unpack(content, "hello.reply", {"site": str})["site"])


def decode_news(content: RecordDict) -> News:
    """Raises: MessageFormat, MessageTooLarge."""
    fields = _unpack(content, "news", dict.fromkeys(("roster", "plan", "endorsement", "signature"), bytes))
    for name, most in LARGEST_NEWS.items():
        if len(fields[name]) > most:
            raise MessageTooLarge(f"the {name} in a message has {len(fields[name])} bytes, expected at most {most}.", fix=_SAME_VERSION)
    return News(**{name: fields[name] for name in LARGEST_NEWS})


def decode_news_reply(content: RecordDict) -> NewsReply | Refusal:
    """Raises: MessageFormat."""
    if _type_of(content) == "refusal":
        return _decode_refusal(content)
    fields = _unpack(content, "news.reply", {"site": str, "epoch": int, "plan": str})
    if fields["plan"] and not _DIGEST.fullmatch(fields["plan"]):
        raise MessageFormat("field 'plan' of a 'news.reply' message is no digest.", fix=_SAME_VERSION)
    return NewsReply(site=fields["site"], epoch=fields["epoch"], plan=fields["plan"])


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


def decode_ideal_reply(content: RecordDict, size: int, word: np.dtype[Any]) -> IdealReply | Refusal:
    """Raises: MessageFormat, MessageTooLarge."""
    if _type_of(content) == "refusal":
        return _decode_refusal(content)
    fields = _unpack(content, "ideal.reply", {"site": str, "weight": int, **_STEP}, vector=True)
    update = QuantisedDelta(words=_read(content, size, word), weight=fields["weight"])
    return IdealReply(step=_step(fields), site=fields["site"], update=update)


def decode_secure_request(content: RecordDict, size: int) -> SecureRequest:
    """Raises: MessageFormat, MessageTooLarge."""
    with_model = _VECTOR in content
    fields = _unpack(content, "secure", {"round": int, "control": bytes}, vector=with_model)
    model = _read(content, size, np.dtype(_MODEL)) if with_model else None
    return SecureRequest(round=fields["round"], control=fields["control"], model=model)


def decode_secure_reply(content: RecordDict, size: int, word: np.dtype[Any]) -> SecureReply | Refusal:
    """Raises: MessageFormat, MessageTooLarge."""
    if _type_of(content) == "refusal":
        return _decode_refusal(content)
    with_update = _VECTOR in content
    fields = _unpack(content, "secure.reply", {"site": str, "control": bytes}, vector=with_update)
    update = MaskedUpdate(words=_read(content, size, word)) if with_update else None
    return SecureReply(site=fields["site"], control=fields["control"], update=update)


_STEP: Mapping[str, type] = {"session": bytes, "round": int, "attempt": int, "plan": str, "kind": str}


def _step_fields(step: Step) -> dict[str, Any]:
    return {"session": step.session, "round": step.round, "attempt": step.attempt, "plan": step.plan, "kind": step.kind}


def _step(fields: Mapping[str, Any]) -> Step:
    return Step(**{key: fields[key] for key in _STEP})


def _decode_refusal(content: RecordDict) -> Refusal:
    record = content[_FIELDS]
    more: dict[str, type] = {"complaint": bytes} if "complaint" in record else {}
    fields = _unpack(content, "refusal", {"site": str, "code": str, **more})
    complaint: bytes = fields.get("complaint", b"")
    if more and not 0 < len(complaint) <= complaints.LARGEST:
        raise MessageTooLarge(f"a complaint has {len(complaint)} bytes, expected 1 to {complaints.LARGEST}.", fix=_SAME_VERSION)
    return Refusal(site=fields["site"], code=fields["code"], complaint=complaint)


def _pack(fields: dict[str, Any], vector: Vector | Words | None = None) -> RecordDict:
    _check_words(fields)
    content = RecordDict({_FIELDS: ConfigRecord({"version": VERSION, **fields})})
    if vector is not None:
        raw = np.ascontiguousarray(vector, dtype=vector.dtype.newbyteorder("<")).tobytes()
        array = Array(dtype=vector.dtype.name, shape=(vector.size,), stype=_STYPES[vector.dtype.name], data=raw)
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
    fields = dict(record)
    _check_words(fields)
    return fields


def _check_words(fields: Mapping[str, Any]) -> None:
    for key, pattern in _WORDS.items():
        if key in fields and not (pattern.fullmatch(fields[key]) and (fields[key] or fields["type"] == "refusal")):
            raise MessageFormat(f"field '{key}' of a '{fields['type']}' message is no {key} as fedward writes them.", fix=_SAME_VERSION)


def _vector(content: RecordDict, size: int) -> Vector:
    return _read(content, size, np.dtype(_MODEL))


def _read(content: RecordDict, size: int, kind: np.dtype[Any]) -> NDArray[Any]:
    record = content[_VECTOR]
    if not isinstance(record, ArrayRecord) or set(record) != {_VECTOR}:
        raise MessageFormat("a message's vector record is not one array.", fix=_SAME_VERSION)
    array = record[_VECTOR]
    if array.stype != _STYPES[kind.name] or array.dtype != kind.name:
        raise MessageFormat(f"a vector is {array.stype}/{array.dtype}, expected {_STYPES[kind.name]}/{kind.name}.", fix=_SAME_VERSION)
    if len(array.data) != size * kind.itemsize or tuple(array.shape) != (size,):
        raise MessageTooLarge(
            f"a vector has {len(array.data)} bytes and shape {tuple(array.shape)}, expected {size * kind.itemsize} bytes.",
            fix=_SAME_VERSION,
        )
    return np.frombuffer(array.data, dtype=kind.newbyteorder("<"))


_SAME_VERSION = "Both ends must run the same plan and the same version of fedward."

# SPDX-License-Identifier: Apache-2.0
"""What goes over a site's socket: one spelling for one message, every length looked at before anything of that size is made."""

import struct
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from common import envelope, wire
from common.envelope import CHUNK_BYTES, LARGEST_HEAD, Envelope, Head, Shape, open_head, pieces, read
from common.errors import MessageFormat, MessageTooLarge, ProtocolError
from common.records import to_content, to_envelope

WORDS = st.text(st.characters(codec="ascii"), max_size=20)
VALUES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text(max_size=30), st.binary(max_size=200))
SHAPES = st.builds(Shape, stype=WORDS, dtype=WORDS, size=st.integers(0, 2**64 - 1), num_bytes=st.integers(0, 2**64 - 1))
HEADS = st.builds(Head, message_type=WORDS, fields=st.dictionaries(WORDS, VALUES, max_size=12), vector=st.none() | SHAPES)


@given(HEADS)
def test_a_head_comes_back_as_it_was(head: Head) -> None:
    raw = envelope.head_of(head)
    assert open_head(raw) == head
    assert envelope.head_of(open_head(raw)) == raw


@settings(max_examples=500)
@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise_anything_else(raw: bytes) -> None:
    body = struct.pack(">4sI", b"FWE1", len(raw)) + raw
    for tried in (raw, body):
        try:
            assert envelope.head_of(open_head(tried)) == tried
        except ProtocolError:
            continue


@settings(max_examples=300)
@given(HEADS, st.data())
def test_a_head_with_one_byte_changed_is_refused_or_another_message(head: Head, data: st.DataObject) -> None:
    """Never the same message in a second spelling."""
    raw = bytearray(envelope.head_of(head))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        assert open_head(bytes(raw)) != head
    except ProtocolError:
        return


@given(HEADS, st.integers(min_value=1))
def test_a_head_that_is_cut_or_longer_is_refused(head: Head, where: int) -> None:
    raw = envelope.head_of(head)
    for spoilt in (raw[: where % len(raw)], raw + b"\0"):
        with pytest.raises(MessageFormat):
            open_head(spoilt)


def test_fields_out_of_order_or_twice_are_no_message() -> None:
    def raw_of(*keys: bytes) -> bytes:
        fields = b"".join(struct.pack(">B", len(key)) + key + b"i" + struct.pack(">q", 1) for key in keys)
        body = struct.pack(">H", 1) + b"t" + struct.pack(">B", len(keys)) + fields + b"\0"
        return struct.pack(">4sI", b"FWE1", len(body)) + body

    assert open_head(raw_of(b"a", b"b")).fields == {"a": 1, "b": 1}
    for keys in ((b"b", b"a"), (b"a", b"a")):
        with pytest.raises(MessageFormat, match="one form"):
            open_head(raw_of(*keys))


@pytest.mark.parametrize("value", [True, 1.0, None, [1], 2**63, "\ud800"])
def test_what_has_no_place_in_a_field_is_refused(value: object) -> None:
    with pytest.raises(MessageFormat):
        envelope.head_of(Head(message_type="t", fields={"a": value}))  # type: ignore[dict-item]


def test_a_vector_goes_in_pieces_and_comes_back_whole() -> None:
    data = np.arange(3 * CHUNK_BYTES // 4 + 5, dtype=np.uint32).tobytes()
    sent = Envelope(head=Head(message_type="t", fields={}, vector=Shape(stype="s", dtype="uint32", size=1, num_bytes=len(data))), data=data)
    parts = list(pieces(sent))
    assert [len(part) for part in parts[1:]] == [CHUNK_BYTES] * 3 + [20]
    assert read(parts, largest_vector=len(data)) == sent


def announced(num_bytes: int) -> bytes:
    return envelope.head_of(Head(message_type="t", fields={}, vector=Shape(stype="s", dtype="d", size=1, num_bytes=num_bytes)))


def test_a_vector_that_is_announced_too_large_is_refused_before_anything_is_made() -> None:
    def never() -> Iterator[bytes]:
        yield announced(2**63)
        raise AssertionError("nothing more is asked for")

    tracemalloc.start()
    try:
        with pytest.raises(MessageTooLarge, match="at most 100"):
            read(never(), largest_vector=100)
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()


def test_a_vector_in_crumbs_is_refused_before_they_pile_up() -> None:
    """Each piece is an object: a mailbox that was taken could make a model of 40 MB cost the site a gigabyte."""
    taken = 0

    def crumbs() -> Iterator[bytes]:
        nonlocal taken
        yield announced(2 * CHUNK_BYTES)
        for _ in range(CHUNK_BYTES):
            taken += 1
            yield b"12"

    with pytest.raises(MessageTooLarge):
        read(crumbs(), largest_vector=2 * CHUNK_BYTES)
    assert taken == 1


@pytest.mark.parametrize("parts", [[b"123"], [b"1234", b"5"], [b"12", b"", b"34"], [b"12", b"34"], [b"12345"], [b"1234", b""], []])
def test_pieces_that_do_not_add_up_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        read([announced(4), *parts], largest_vector=4)


def test_a_vector_that_nobody_announced_is_refused() -> None:
    with pytest.raises(MessageTooLarge):
        read([envelope.head_of(Head(message_type="t", fields={})), b"1"], largest_vector=100)


def test_a_head_beyond_the_limit_is_refused_at_both_ends() -> None:
    with pytest.raises(MessageTooLarge):
        envelope.head_of(Head(message_type="t", fields={"a": bytes(LARGEST_HEAD)}))
    with pytest.raises(MessageTooLarge):
        open_head(bytes(LARGEST_HEAD + 1))


CONTROL = wire.SecureRequest(round=3, control=b"control", model=np.arange(5, dtype=np.float32))


def test_flowers_records_come_back_as_they_were() -> None:
    content = wire.encode_secure_request(CONTROL)
    there = read(pieces(to_envelope("train.fsa1", content)), largest_vector=20)
    back = wire.decode_secure_request(to_content(there), 5)
    assert (back.round, back.control) == (3, b"control")
    assert back.model is not None
    assert back.model.tolist() == [0, 1, 2, 3, 4]


def array(**changes: object) -> RecordDict:
    """A message whose array Flower's JSON filled with what it liked."""
    content = wire.encode_secure_request(CONTROL)
    vars(content["vector"]["vector"]).update(changes)
    return content


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"fedward": MetricRecord({"a": 1})}),
        RecordDict({"other": ConfigRecord({"a": 1})}),
        RecordDict({"fedward": ConfigRecord({"a": 1}), "more": ConfigRecord({"a": 1})}),
        RecordDict({"fedward": ConfigRecord({"a": 1.0})}),
        RecordDict({"fedward": ConfigRecord({"a": True})}),
        RecordDict({"fedward": ConfigRecord({"a": [1, 2]})}),
        RecordDict({"fedward": ConfigRecord({"a": 1}), "vector": ConfigRecord({"a": 1})}),
        RecordDict({"fedward": ConfigRecord({"a": 1}), "vector": ArrayRecord({"x": Array(np.zeros(2))})}),
        array(shape=(5, 1)),
        array(shape=("5",)),
        array(shape=(-1,)),
        array(stype=5),
        array(dtype=None),
        array(data="text"),
    ],
)
def test_what_is_not_of_our_form_has_no_envelope(content: RecordDict) -> None:
    with pytest.raises(MessageFormat):
        to_envelope("query.hello", content)

# SPDX-License-Identifier: Apache-2.0
"""A small message in one piece is the same message: same content, same name each time, and nothing that is large or malformed goes so."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.app.metadata import Metadata
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, iterate_object_tree
from hypothesis import given
from hypothesis import strategies as st

from common import wire
from common.records import size_of
from common.whole import LARGEST, content_in, is_small, is_whole, whole

FIELDS = st.dictionaries(
    st.text(min_size=1, max_size=8), st.one_of(st.integers(-(2**62), 2**62), st.text(max_size=50), st.binary(max_size=50))
)


def metadata(*, to: int = 7) -> Metadata:
    return Metadata(5, "", 1, to, "", "1", 1_780_000_000.0, 600.0, wire.SECURE["MASK"])


def step(values: int = 0) -> RecordDict:
    model = np.arange(values, dtype=np.float32) if values else None
    return wire.encode_secure_request(wire.SecureRequest(round=1, control=b"control", model=model))


@given(FIELDS)
def test_content_comes_out_as_it_went_in_and_the_name_is_that_of_content_and_envelope(fields: dict[str, int | str | bytes]) -> None:
    content = RecordDict({"fedward": ConfigRecord(dict(fields))})
    sent, again = whole(metadata(), content), whole(metadata(), content)
    arrived = ProtoMessage.FromString(sent.proto.SerializeToString())
    found = content_in(arrived)
    assert found is not None
    assert found == content
    assert found.object_id == content.object_id, "so a copy of it in pieces is known for the same"
    assert sent.message_id == again.message_id
    assert whole(metadata(to=8), content).message_id != sent.message_id
    assert whole(metadata(), RecordDict({"fedward": ConfigRecord({**fields, "more": 1})})).message_id != sent.message_id


def test_a_model_of_ten_thousand_is_small_and_arrives_whole() -> None:
    content = step(10_000)
    assert is_small(content)
    found = content_in(whole(metadata(), content).proto)
    assert found is not None
    assert wire.decode_secure_request(found, 10_000).model is not None


def test_its_tree_is_one_object_that_has_its_name() -> None:
    sent = whole(metadata(), step())
    assert [each.object_id for each in iterate_object_tree(sent.tree)] == [sent.message_id] == [sent.proto.metadata.message_id]


def test_what_is_large_does_not_go_whole_and_is_not_taken_whole() -> None:
    assert is_small(step(LARGEST // 4 - 100))
    assert not is_small(step(LARGEST // 4))
    assert content_in(whole(metadata(), step(LARGEST)).proto) is None


def test_flowers_own_announcement_is_not_taken_for_a_whole_message() -> None:
    bare = ProtoMessage(metadata=whole(metadata(), step()).proto.metadata)
    assert not is_whole(bare)
    bare.content.SetInParent()
    assert not is_whole(bare)
    assert content_in(bare) is None
    assert message_from_proto(bare).has_content()


@pytest.mark.parametrize("value", ["", b"", [], 0, "x"])
def test_a_message_is_counted_whatever_its_values_are(value: object) -> None:
    """Flower's own count raises at an empty one, which any site can send."""
    empty = RecordDict({"fedward": ConfigRecord({"field": value})})  # type: ignore[dict-item]
    assert 0 < size_of(empty) < 100
    assert size_of(RecordDict({**empty, "more": MetricRecord({"a": 1.0})})) > size_of(empty)


def test_a_vector_is_counted_with_all_its_bytes() -> None:
    assert 4000 < size_of(step(1000)) < 4200
    assert size_of(step(1000)) <= sum(len(each.deflate()) for each in get_all_nested_objects(step(1000)).values())

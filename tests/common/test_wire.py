# SPDX-License-Identifier: Apache-2.0
"""Only well-formed messages cross, and what crosses comes out as it went in."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common import wire
from common.errors import MessageFormat, MessageTooLarge, ProtocolError, UpdateError, UpdateNonFinite
from common.news import News
from common.update import Layout, MaskedUpdate, RawDelta, ReleasedDelta, Weights

LAYOUT = Layout(names=("a", "b"), shapes=((2, 2), (3,)))
STEP = wire.Step(session=b"s" * 16, round=3, attempt=0, plan="p" * 64)
FINITE = arrays(np.float32, LAYOUT.size, elements=st.floats(-1e6, 1e6, width=32))


def reply(values: np.ndarray) -> RecordDict:
    return wire.encode_train_reply(wire.TrainReply(step=STEP, site="north", update=ReleasedDelta(values=values)))


@given(FINITE)
def test_a_request_comes_out_as_it_went_in(values: np.ndarray) -> None:
    request = wire.TrainRequest(step=STEP, weights=Weights(layout=LAYOUT, values=values))
    decoded = wire.decode_train_request(wire.encode_train_request(request), LAYOUT)
    assert decoded.step == STEP
    assert decoded.weights.digest == request.weights.digest
    np.testing.assert_array_equal(decoded.weights.values, values)


@given(FINITE)
def test_a_reply_comes_out_as_it_went_in(values: np.ndarray) -> None:
    decoded = wire.decode_train_reply(reply(values), LAYOUT)
    assert isinstance(decoded, wire.TrainReply)
    assert (decoded.step, decoded.site) == (STEP, "north")
    np.testing.assert_array_equal(decoded.update.values, values)


def test_hello_and_refusal_come_out_as_they_went_in() -> None:
    assert wire.decode_hello(wire.encode_hello(wire.Hello(plan="x"))) == wire.Hello(plan="x")
    assert wire.decode_hello_reply(wire.encode_hello_reply(wire.HelloReply(site="n"))) == wire.HelloReply(site="n")
    refusal = wire.Refusal(site="n", code="E_DATA")
    assert wire.decode_hello_reply(wire.encode_refusal(refusal)) == refusal
    assert wire.decode_train_reply(wire.encode_refusal(refusal), LAYOUT) == refusal


def test_news_and_where_a_site_stands_come_out_as_they_went_in() -> None:
    news = News(roster=b"roster", plan=b"plan", endorsement=b"words", signature=b"s" * 64)
    assert wire.decode_news(wire.encode_news(news)) == news
    for told in (wire.NewsReply(site="north", epoch=7, plan="ab" * 32), wire.NewsReply(site="north", epoch=0, plan="")):
        assert wire.decode_news_reply(wire.encode_news_reply(told)) == told
    refusal = wire.Refusal(site="n", code="E_ROSTER_CHANGED")
    assert wire.decode_news_reply(wire.encode_refusal(refusal)) == refusal


@pytest.mark.parametrize("part", list(wire.LARGEST_NEWS))
def test_news_that_are_too_large_are_not_looked_at(part: str) -> None:
    long = bytes(wire.LARGEST_NEWS[part] + 1)
    with pytest.raises(MessageTooLarge, match=part):
        wire.decode_news(wire.encode_news(News(**{part: long})))


@pytest.mark.parametrize("plan", ["x" * 64, "ab" * 31, "AB" * 32, "the patient in bed 4"])
def test_where_a_site_stands_is_no_place_for_words(plan: str) -> None:
    with pytest.raises(MessageFormat):
        wire.decode_news_reply(wire.encode_news_reply(wire.NewsReply(site="north", epoch=7, plan=plan)))


@pytest.mark.parametrize("word", [np.uint32, np.uint16])
def test_a_step_of_secure_aggregation_comes_out_as_it_went_in(word: type) -> None:
    words = np.arange(LAYOUT.size).astype(word) * 9000
    for update in (None, MaskedUpdate(words=words)):
        sent = wire.SecureReply(site="north", control=b"FSA1 answer", update=update)
        found = wire.decode_secure_reply(wire.encode_secure_reply(sent), LAYOUT.size, np.dtype(word))
        assert isinstance(found, wire.SecureReply)
        assert (found.site, found.control, found.update is None) == (sent.site, sent.control, update is None)
        if found.update is not None:
            np.testing.assert_array_equal(found.update.words, words)
    model = np.linspace(-1, 1, LAYOUT.size, dtype=np.float32)
    request = wire.decode_secure_request(
        wire.encode_secure_request(wire.SecureRequest(round=3, control=b"FSA1 header", model=model)), LAYOUT.size
    )
    assert (request.round, request.control) == (3, b"FSA1 header")
    assert request.model is not None
    np.testing.assert_array_equal(request.model, model)


@pytest.mark.parametrize("update", [ReleasedDelta(values=np.zeros(LAYOUT.size, np.float32)), RawDelta(values=np.zeros(7, np.float32))])
def test_only_a_masked_update_fits_into_a_secure_reply(update: Any) -> None:
    with pytest.raises(AttributeError):
        wire.encode_secure_reply(wire.SecureReply(site="north", control=b"", update=update))


def test_floats_do_not_pass_for_a_masked_vector() -> None:
    words = MaskedUpdate(words=np.zeros(LAYOUT.size, np.uint32))
    content = wire.encode_secure_reply(wire.SecureReply(site="north", control=b"", update=words))
    with pytest.raises(MessageFormat):
        wire.decode_secure_reply(content, LAYOUT.size, np.dtype(np.uint16))
    with pytest.raises(MessageTooLarge):
        wire.decode_secure_reply(content, LAYOUT.size + 1, np.dtype(np.uint32))
    with pytest.raises(MessageFormat):
        wire.decode_secure_request(content, LAYOUT.size)


def test_a_raw_delta_has_no_way_onto_the_wire() -> None:
    raw = RawDelta(values=np.zeros(LAYOUT.size, np.float32))
    encoders = [function for name, function in vars(wire).items() if name.startswith("encode_")]
    assert encoders
    for encode in encoders:
        with pytest.raises(AttributeError):
            encode(raw)


def fields(content: RecordDict) -> ConfigRecord:
    return content["fedward"]


def _without_record(content: RecordDict) -> None:
    del content["fedward"]


def _with_metrics(content: RecordDict) -> None:
    content["metrics"] = MetricRecord({"loss": 0.3, "num-examples": 812})


def _without_vector(content: RecordDict) -> None:
    del content["vector"]


def _with_another_version(content: RecordDict) -> None:
    fields(content)["version"] = 2


def _of_another_type(content: RecordDict) -> None:
    fields(content)["type"] = "train"


def _without_a_field(content: RecordDict) -> None:
    del fields(content)["site"]


def _with_a_field_more(content: RecordDict) -> None:
    fields(content)["num_examples"] = 812


def _with_a_round_in_quotes(content: RecordDict) -> None:
    fields(content)["round"] = "3"


def _with_a_round_that_is_true(content: RecordDict) -> None:
    fields(content)["round"] = True


def _with_two_arrays(content: RecordDict) -> None:
    content["vector"] = ArrayRecord({"vector": content["vector"]["vector"], "labels": content["vector"]["vector"]})


def _with_an_npy_array(content: RecordDict) -> None:
    content["vector"] = ArrayRecord({"vector": Array(np.zeros(LAYOUT.size, np.float32))})


def _with_float64(content: RecordDict) -> None:
    content["vector"] = ArrayRecord({"vector": Array("float64", (LAYOUT.size,), "fedward.f4", bytes(8 * LAYOUT.size))})


def _cut_short(content: RecordDict) -> None:
    content["vector"] = ArrayRecord({"vector": Array("float32", (LAYOUT.size,), "fedward.f4", bytes(4 * LAYOUT.size - 1))})


def _too_long(content: RecordDict) -> None:
    content["vector"] = ArrayRecord({"vector": Array("float32", (LAYOUT.size,), "fedward.f4", bytes(4 * LAYOUT.size + 4))})


def _of_another_shape(content: RecordDict) -> None:
    content["vector"] = ArrayRecord({"vector": Array("float32", (1, LAYOUT.size), "fedward.f4", bytes(4 * LAYOUT.size))})


def _not_a_number(content: RecordDict) -> None:
    values = np.full(LAYOUT.size, np.nan, np.float32)
    content["vector"] = ArrayRecord({"vector": Array("float32", (LAYOUT.size,), "fedward.f4", values.tobytes())})


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (_without_record, MessageFormat),
        (_with_metrics, MessageFormat),
        (_without_vector, MessageFormat),
        (_with_another_version, MessageFormat),
        (_of_another_type, MessageFormat),
        (_without_a_field, MessageFormat),
        (_with_a_field_more, MessageFormat),
        (_with_a_round_in_quotes, MessageFormat),
        (_with_a_round_that_is_true, MessageFormat),
        (_with_two_arrays, MessageFormat),
        (_with_an_npy_array, MessageFormat),
        (_with_float64, MessageFormat),
        (_cut_short, MessageTooLarge),
        (_too_long, MessageTooLarge),
        (_of_another_shape, MessageTooLarge),
        (_not_a_number, UpdateNonFinite),
    ],
    ids=lambda value: value.__name__.strip("_"),
)
def test_a_malformed_reply_is_refused_by_name(spoil, error) -> None:
    content = reply(np.zeros(LAYOUT.size, np.float32))
    spoil(content)
    with pytest.raises((ProtocolError, UpdateError)) as refusal:
        wire.decode_train_reply(content, LAYOUT)
    assert type(refusal.value) is error

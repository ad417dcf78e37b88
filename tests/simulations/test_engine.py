# SPDX-License-Identifier: Apache-2.0
"""The engine as a coordinator sees it: a federation that answers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from common.errors import EngineError
from simulations.engine import LocalEngine, Nursery
from simulations.engine.parcel import pack_message, unpack_message


@pytest.fixture(scope="module")
def engine(engine_app: str) -> Iterator[LocalEngine]:
    with LocalEngine(engine_app, num_sites=8, workers=2, node_configs=[{"name": f"hospital_{i:02}"} for i in range(8)]) as engine:
        yield engine


def ask(engine: LocalEngine, action: str, *, content: RecordDict | None = None, sites: slice = slice(None)) -> list[Any]:
    """One message to each site; the replies' contents in the order of the sites."""
    nodes = engine.get_node_ids()[sites]
    replies = engine.send_and_receive([Message(content or RecordDict(), node, action) for node in nodes], timeout=60)
    assert not [reply.error for reply in replies if reply.has_error()]
    by_node = {reply.metadata.src_node_id: reply.content for reply in replies}
    return [by_node[node] for node in nodes]


ARRAYS = hnp.arrays(
    dtype=st.one_of(
        hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(), hnp.complex_number_dtypes()
    ),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
)


@settings(deadline=None, max_examples=60)
@given(arrays=st.dictionaries(st.text(), ARRAYS, max_size=4), raw=st.binary(max_size=10_000), number=st.floats(allow_nan=False))
def test_any_record_comes_back_as_it_went(engine: LocalEngine, arrays: dict[str, NDArray[Any]], raw: bytes, number: float) -> None:
    content = RecordDict(
        {
            "arrays": ArrayRecord({key: Array(values) for key, values in arrays.items()}),
            "raw": ArrayRecord({"raw": Array("uint8", (len(raw),), "bytes", raw)}),
            "config": ConfigRecord({"bytes": raw, "list": [number, number], "text": "ä", "yes": True, "none": []}),
            "metric": MetricRecord({"number": number, "numbers": [1, 2]}),
        }
    )
    for reply in ask(engine, "query.echo", content=content, sites=slice(3)):
        assert reply == content
        for key, values in arrays.items():
            returned = reply["arrays"][key].numpy()
            assert returned.dtype == values.dtype
            np.testing.assert_array_equal(returned, values)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 2**20, 40 * 2**20])
def test_arrays_of_any_size_come_back_as_they_went(engine: LocalEngine, size: int) -> None:
    values = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    content = RecordDict({"model": ArrayRecord({"values": Array("uint8", (size,), "raw", values.tobytes())})})
    for reply in ask(engine, "query.echo", content=content, sites=slice(2)):
        assert reply["model"]["values"].data == values.tobytes()


def test_each_site_gets_its_own_array_and_the_shared_one(engine: LocalEngine) -> None:
    shared = Array(np.arange(100_000))
    nodes = engine.get_node_ids()

    def content(node: int) -> RecordDict:
        return RecordDict({"shared": ArrayRecord({"a": shared}), "own": ArrayRecord({"a": Array(np.full(5000, node))})})

    replies: list[Any] = engine.send_and_receive([Message(content(node), node, "query.echo") for node in nodes], timeout=60)
    for reply in replies:
        np.testing.assert_array_equal(reply.content["shared"]["a"].numpy(), np.arange(100_000))
        np.testing.assert_array_equal(reply.content["own"]["a"].numpy(), reply.metadata.src_node_id)


def test_two_hundred_sites_share_two_workers(engine_app: str) -> None:
    with LocalEngine(engine_app, num_sites=200, workers=2) as engine:
        for _ in range(3):
            facts = [reply["who"] for reply in ask(engine, "query.who")]
            assert [fact["partition-id"] for fact in facts] == list(range(200))
            assert {fact["num-partitions"] for fact in facts} == {200}
            assert {fact["pid"] for fact in facts} <= set(engine.pids())


def test_a_site_knows_its_configuration_and_its_run(engine: LocalEngine) -> None:
    run = Run.create_empty(run_id=77)
    run.override_config = {"colour": "red"}
    engine.set_run(run)
    (fact,) = (reply["who"] for reply in ask(engine, "query.who", sites=slice(3, 4)))
    assert (fact["partition-id"], fact["name"], fact["run_id"], fact["colour"]) == (3, "hospital_03", 77, "red")
    assert engine.run.run_id == 77


def test_every_site_keeps_its_own_state_between_messages(engine: LocalEngine) -> None:
    for expected in (1, 2, 3):
        for reply in ask(engine, "query.count", sites=slice(0, 4)):
            assert reply["seen"]["messages"] == expected
            assert set(reply["arrays"]["a"].numpy()) == {expected}
    (late,) = ask(engine, "query.count", sites=slice(5, 6))
    assert late["seen"]["messages"] == 1


def test_messages_to_one_site_run_one_after_the_other(engine: LocalEngine) -> None:
    node = engine.get_node_ids()[7]
    ids = engine.push_messages([Message(RecordDict(), node, "query.count") for _ in range(20)])
    replies: dict[str, Any] = {}
    while len(replies) < len(ids):
        engine.wait(60)
        replies.update({reply.metadata.reply_to_message_id: reply for reply in engine.pull_messages(ids)})
    assert [replies[message_id].content["seen"]["messages"] for message_id in ids] == list(range(1, 21))


def test_a_reply_is_handed_out_once_and_points_to_its_message(engine: LocalEngine) -> None:
    assert isinstance(engine, Grid)
    node = engine.get_node_ids()[2]
    message = engine.create_message(RecordDict(), "query.echo", node, group_id="round 4")
    (message_id,) = engine.push_messages([message])
    assert message.metadata.message_id == message_id
    while not (replies := engine.pull_messages([message_id])):
        engine.wait(60)
    (reply,) = replies
    assert (reply.metadata.reply_to_message_id, reply.metadata.src_node_id, reply.metadata.group_id) == (message_id, node, "round 4")
    assert engine.pull_messages([message_id]) == []


def test_what_a_caller_changes_after_the_push_reaches_nobody() -> None:
    rounds = [1, 2]
    config = ConfigRecord({"rounds": rounds})
    parcel = pack_message(_message(RecordDict({"config": config})))
    rounds.append(3)
    assert unpack_message(parcel).content == RecordDict({"config": ConfigRecord({"rounds": [1, 2]})})


def test_wait_sleeps_for_its_timeout_when_nothing_comes(engine: LocalEngine) -> None:
    while engine.wait(0):
        pass
    assert engine.wait(0.01) is False


def test_workers_run_one_thread_with_the_allocator_told_to_keep_memory(engine: LocalEngine) -> None:
    (reply,) = ask(engine, "query.environment", sites=slice(1))
    environment = reply["environment"]
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "1"
    assert {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_"} <= set(environment)


def test_workers_do_not_share_their_random_numbers(engine: LocalEngine) -> None:
    draws = [reply["draw"] for reply in ask(engine, "query.draw")]
    assert len({draw["pid"] for draw in draws}) == 2
    assert len({draw["number"] for draw in draws}) == len(draws)


def test_a_message_to_nobody_is_refused(engine: LocalEngine) -> None:
    with pytest.raises(EngineError, match="node 5, which is none of the 8 sites"):
        engine.push_messages([Message(RecordDict(), 5, "query.echo")])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"client_app": "client.app", "num_sites": 1}, "expected 'module:attribute'"),
        ({"client_app": "a:b", "num_sites": 0}, "0 sites"),
        ({"client_app": "a:b", "num_sites": 1, "workers": 0}, "0 workers"),
        ({"client_app": "a:b", "num_sites": 2, "node_configs": [{}]}, "1 node configurations for 2 sites"),
    ],
)
def test_impossible_engines_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(EngineError, match=complaint):
        LocalEngine(**arguments)


def test_engines_one_after_another_share_a_nursery(engine_app: str) -> None:
    with Nursery(engine_app) as nursery:
        workers = []
        for name in ("first", "second"):
            with LocalEngine(engine_app, num_sites=2, workers=1, env={"WHICH": name}, nursery=nursery) as engine:
                (reply, _) = ask(engine, "query.environment")
                assert reply["environment"]["WHICH"] == name
                parent, worker = engine.pids()
                assert parent == nursery.pid
                workers.append(worker)
        assert len(set(workers)) == 2
        with pytest.raises(EngineError, match=f"imported '{engine_app}', expected 'client.app:app'"):
            LocalEngine("client.app:app", num_sites=1, nursery=nursery)


def test_what_counts_privacy_is_imported_before_workers_are_forked(engine_app: str) -> None:
    with LocalEngine("accounting_app:app", num_sites=1) as engine:
        (reply,) = ask(engine, "query.counts")
    assert reply["loaded"]["accountant"]


def test_a_closed_engine_says_so(engine_app: str) -> None:
    engine = LocalEngine(engine_app, num_sites=1)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.send_and_receive([Message(RecordDict(), engine.get_node_ids()[0], "query.echo")])


def _message(content: RecordDict) -> Message:
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    return Message(content, 1000, "query.echo")

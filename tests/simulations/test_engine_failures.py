# SPDX-License-Identifier: Apache-2.0
"""The engine when things go wrong: apps that raise, hang or kill; workers, nurseries and coordinators that die."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict
from flwr.common.constant import ErrorCode

from common.errors import EngineError
from simulations.engine import LocalEngine, Nursery

PATIENCE_S = 60.0


@pytest.fixture
def engine(engine_app: str) -> Iterator[LocalEngine]:
    with LocalEngine(engine_app, num_sites=6, workers=2) as engine:
        yield engine


def ask(engine: LocalEngine, actions: list[str], ttl: float | None = None) -> list[Any]:
    """Site i gets actions[i]; replies in the order of the sites."""
    messages = [Message(RecordDict(), node, action, ttl=ttl) for node, action in zip(engine.get_node_ids(), actions, strict=False)]
    replies = {reply.metadata.reply_to_message_id: reply for reply in engine.send_and_receive(messages, timeout=PATIENCE_S)}
    return [replies[message.metadata.message_id] for message in messages]


def wait_until_gone(pids: list[int]) -> None:
    """Without polling: a pidfd becomes readable when its process ends."""
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([pidfd], [], [], PATIENCE_S)[0], f"process {pid} is still there"
        finally:
            os.close(pidfd)


def test_an_app_that_raises_answers_with_flowers_error(capfd: pytest.CaptureFixture[str], engine_app: str) -> None:
    with LocalEngine(engine_app, num_sites=6, workers=2) as engine:
        failed, *others = ask(engine, ["train.fail"] + ["query.who"] * 5)
        assert failed.metadata.src_node_id == engine.get_node_ids()[0]
    assert failed.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert failed.error.reason == "<class 'ZeroDivisionError'>:<'no patients today'>"
    assert not any(other.has_error() for other in others)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_an_app_that_raises_leaves_its_state_as_it_was(engine: LocalEngine) -> None:
    for action in ("query.count", "train.fail", "query.count"):
        (reply,) = ask(engine, [action])
    assert reply.content["seen"]["messages"] == 2


@pytest.mark.parametrize("action", ["query.mistake", "query.unheard_of"])
def test_an_app_without_an_answer_answers_with_an_error(engine: LocalEngine, action: str) -> None:
    (reply,) = ask(engine, [action])
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION


@pytest.mark.parametrize("reference", ["no_such_module:app", "engine_apps:nothing", "engine_apps:os"])
def test_an_app_that_cannot_be_loaded_answers_with_why(engine_app: str, reference: str) -> None:
    with LocalEngine(reference, num_sites=3) as engine:
        for reply in ask(engine, ["query.who"] * 3):
            assert reply.error.code == ErrorCode.LOAD_CLIENT_APP_EXCEPTION
            assert reference in (reply.error.reason or "")


def test_a_killed_worker_costs_its_own_message_only(engine: LocalEngine) -> None:
    replies = ask(engine, ["query.who", "train.die", "query.who", "train.die", "query.who", "query.who"])
    assert [reply.error.code if reply.has_error() else None for reply in replies] == [None, 8, None, 8, None, None]
    assert ErrorCode.CLIENT_APP_CRASHED == 8
    assert not any(reply.has_error() for reply in ask(engine, ["query.who"] * 6))


def test_a_killed_worker_takes_no_sites_state_with_it(engine: LocalEngine) -> None:
    for action in ("query.count", "train.die", "query.count"):
        (reply,) = ask(engine, [action])
    assert reply.content["seen"]["messages"] == 2


def test_a_message_past_its_time_to_live_is_answered_with_an_error(engine: LocalEngine) -> None:
    replies = ask(engine, ["train.hang", "train.hang", "query.who"], ttl=0.5)
    assert [reply.error.code for reply in replies] == [ErrorCode.MESSAGE_UNAVAILABLE] * 3  # the third waited behind the two that hung
    assert "0.5 s" in (replies[0].error.reason or "")
    assert not any(reply.has_error() for reply in ask(engine, ["query.who"] * 6))


def test_a_cancelled_message_gives_its_worker_back(engine: LocalEngine) -> None:
    nodes = engine.get_node_ids()
    hanging = engine.push_messages([Message(RecordDict(), node, "train.hang") for node in nodes[:2]])
    queued = engine.push_messages([Message(RecordDict(), node, "query.who") for node in nodes[2:]])
    assert engine.wait(0.05) is False
    engine.cancel([*hanging, *queued[:1]])
    arrived: list[Message] = []
    while len(arrived) < 3:
        assert engine.wait(PATIENCE_S)
        arrived += engine.pull_messages([*hanging, *queued])
    assert {reply.metadata.src_node_id for reply in arrived} == set(nodes[3:])
    assert not any(reply.has_error() for reply in ask(engine, ["query.who"] * 6))
    assert engine.pull_messages([*hanging, *queued]) == []


def test_send_and_receive_returns_what_came_in_time(engine: LocalEngine) -> None:
    messages = [
        Message(RecordDict(), node, action) for node, action in zip(engine.get_node_ids(), ["train.hang", "query.who"], strict=False)
    ]
    assert not ask(engine, ["query.who"])[0].has_error()  # the workers are up
    (reply,) = engine.send_and_receive(messages, timeout=1)
    assert reply.metadata.reply_to_message_id == messages[1].metadata.message_id


def test_a_killed_nursery_is_replaced(engine: LocalEngine) -> None:
    ask(engine, ["query.count"] * 6)
    before = engine.pids()
    os.kill(before[0], signal.SIGKILL)
    wait_until_gone(before)
    replies = ask(engine, ["query.count"] * 6)
    assert [reply.content["seen"]["messages"] for reply in replies if not reply.has_error()] == [2] * 6
    assert not set(before) & set(engine.pids())


def test_workers_that_cannot_live_stop_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deadly.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with LocalEngine("deadly:app", num_sites=4, workers=4) as engine:
        with pytest.raises(EngineError, match="died before their first message") as caught:
            ask(engine, ["query.who"])
        assert "'deadly'" in caught.value.fix


def test_leaving_the_engine_ends_every_process_even_a_busy_one(engine_app: str) -> None:
    with LocalEngine(engine_app, num_sites=2, workers=2) as engine:
        first, second = engine.get_node_ids()
        engine.push_messages([Message(RecordDict(), first, "train.hang")])
        engine.send_and_receive([Message(RecordDict(), second, "query.who")])
        engine.push_messages([Message(RecordDict(), second, "train.hang")])
        pids = engine.pids()
    assert len(pids) == 3
    wait_until_gone(pids)


def test_leaving_an_engine_ends_its_busy_workers_but_not_a_shared_nursery(engine_app: str) -> None:
    with Nursery(engine_app) as nursery:
        with LocalEngine(engine_app, num_sites=2, workers=2, nursery=nursery) as engine:
            first, second = engine.get_node_ids()
            engine.push_messages([Message(RecordDict(), first, "train.hang")])
            engine.send_and_receive([Message(RecordDict(), second, "query.who")])
            _, *workers = engine.pids()
        wait_until_gone(workers)
        with LocalEngine(engine_app, num_sites=1, nursery=nursery) as engine:
            assert not ask(engine, ["query.who"])[0].has_error()


COORDINATOR = """
import sys
from flwr.app import Message, RecordDict
from simulations.engine import LocalEngine

engine = LocalEngine("engine_apps:app", num_sites=3, workers=2)
nodes = engine.get_node_ids()
engine.push_messages([Message(RecordDict(), nodes[0], "train.hang")])
engine.send_and_receive([Message(RecordDict(), nodes[1], "query.who")])  # by the other worker: both are up
print(*engine.pids(), flush=True)
with engine:
    engine.send_and_receive([Message(RecordDict(), nodes[1], "train.hang")])
"""


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_coordinator_that_dies_leaves_no_process_and_no_segment(engine_app: str, death: signal.Signals, tmp_path: Path) -> None:
    before = _named_segments()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", COORDINATOR],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        assert process.stdout
        pids = [int(pid) for pid in process.stdout.readline().split()]
        os.killpg(process.pid, death)
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert len(pids) == 3
    wait_until_gone(pids)
    assert process.returncode == -death
    assert errors.count("Traceback") == (death == signal.SIGINT), errors  # the coordinator's own KeyboardInterrupt, nothing of a worker's
    assert list(scratch.iterdir()) == []
    assert _named_segments() <= before


def _named_segments() -> set[str]:
    """What anybody's engine has left in shared memory under our name."""
    return {path.name for path in Path("/dev/shm").glob("*fedward*")}

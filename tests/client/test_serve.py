# SPDX-License-Identifier: Apache-2.0
"""The site process: what it answers, in which order, and what it refuses to start on."""

import fcntl
import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from client.membership import approval
from client.membership.approval import SignedPlan
from client.process import door, place, status
from client.process.events import Log
from client.process.handler import DEPLOYED
from client.process.serve import LOCK_FILE, MOST_AT_ONCE, Service, Serving, serve
from client.site import Site
from common import endorsement, envelope, wire
from common.envelope import Head, Shape
from common.errors import Exposed, FedwardError, PlanNotApproved, SecretFile, SimulatedSite, SiteAway, SiteRunning
from common.plan import Plan, digest_of, to_toml
from common.records import FIELDS, to_content, to_envelope
from common.wire import Content
from tests.client.hospitals import Hospitals, hospitals
from tests.client.processes import wait_for

STEP = wire.SECURE["KEYS"]
CONTROL = bytes(700)


@dataclass(frozen=True, slots=True)
class Answering:
    """A site process in this one."""

    home: Path
    socket: Path
    log: io.StringIO
    stopping: threading.Event

    def ask(self, message_type: str, content: Content) -> dict[str, object]:
        return dict(to_content(door.ask(self.socket, to_envelope(message_type, content), patience_s=60))[FIELDS])

    def hello(self, plan: Plan) -> dict[str, object]:
        return self.ask(wire.HELLO, wire.encode_hello(wire.Hello(plan=digest_of(plan))))

    def step(self, model: np.ndarray | None = None) -> dict[str, object]:
        return self.ask(STEP, wire.encode_secure_request(wire.SecureRequest(round=3, control=CONTROL, model=model)))

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


@pytest.fixture
def everybody(tmp_path: Path) -> Hospitals:
    return hospitals(tmp_path, ("north",))


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process does to itself is not for the process of the tests."""
    monkeypatch.setattr(place, "keep_to_oneself", lambda: None)


@contextmanager
def answering(home: Path, *, grace_s: float = 5) -> Iterator[Answering]:
    log, stopping = io.StringIO(), threading.Event()
    site = Answering(home, home.parent / "door" / "site.sock", log, stopping)
    serving = Serving(home=home, socket=site.socket, log=Log(who="site", form="json", to=log), grace_s=grace_s)
    with ThreadPoolExecutor(1) as thread:
        done = thread.submit(serve, serving, version="0", stopping=stopping)
        wait_for(lambda: "started" in log.getvalue() or done.done(), within_s=30)
        try:
            if done.done():
                done.result()
            yield site
        finally:
            stopping.set()
        done.result(30)


def renamed(plan: Plan) -> Plan:
    return replace(plan, plan=replace(plan.plan, name="another"))


def refuses_to_start(home: Path, error: type[FedwardError], match: str = "") -> None:
    with pytest.raises(error, match=match), answering(home):
        raise AssertionError("it started")


def test_it_says_its_name_to_who_knows_its_plan_and_a_code_to_who_does_not(everybody: Hospitals) -> None:
    with answering(everybody.first) as site:
        assert site.hello(everybody.plan) == {"version": 1, "type": "hello.reply", "site": "north"}
        assert site.hello(renamed(everybody.plan))["code"] == "E_PLAN_MISMATCH"
        assert status.read(site.home).refused[-1].code == "E_PLAN_MISMATCH"  # type: ignore[union-attr]


@pytest.mark.parametrize("message_type", [wire.TRAIN, wire.TRAIN_IDEAL, "query.other", "", "train.fsa1\n"])
def test_what_is_not_deployed_is_not_answered(everybody: Hospitals, message_type: str) -> None:
    assert message_type not in DEPLOYED
    with answering(everybody.first) as site:
        assert site.ask(message_type, wire.encode_hello(wire.Hello(plan="")))["code"] == "E_MSG_FORMAT"


def test_it_answers_again_for_a_plan_that_is_approved_while_it_runs(everybody: Hospitals) -> None:
    newer = replace(everybody.plan, plan=replace(everybody.plan.plan, version=everybody.plan.plan.version + 1))
    said = endorsement.sign(
        endorsement.unsigned(newer, roots=everybody.members.roots, minimum_epoch=1), everybody.members.root, roots=everybody.members.roots
    )
    with answering(everybody.first) as site:
        assert site.hello(newer)["code"] == "E_PLAN_MISMATCH"
        approval.approve(site.home, SignedPlan(text=to_toml(newer).encode(), endorsement=endorsement.render(said)), now=int(time.time()))
        assert site.hello(newer)["site"] == "north"


def test_a_vector_larger_than_the_plans_model_is_not_read(everybody: Hospitals) -> None:
    with answering(everybody.first) as site:
        assert site.step(np.zeros(10_000_000, np.float32))["code"] == "E_MSG_TOO_LARGE"
        assert "E_MSG_TOO_LARGE" in (site.home / "error.log").read_text()


@pytest.mark.parametrize("raw", [b"", b"FWE1", b"\x80\x04pickle", envelope.head_of(Head(message_type=STEP, fields={}))[:-1]])
def test_bytes_that_are_no_envelope_are_refused(everybody: Hospitals, raw: bytes) -> None:
    with answering(everybody.first) as site, grpc.insecure_channel(f"unix:{site.socket}") as channel:
        parts = list(channel.stream_stream(door.METHOD)(iter([raw]), timeout=30))
        assert envelope.open_head(parts[0]).fields["code"] == "E_MSG_FORMAT"


def test_a_sender_that_breaks_off_holds_nobody(everybody: Hospitals) -> None:
    shape = Shape(stype="fedward.f4", dtype="float32", size=10, num_bytes=40)
    begun = envelope.head_of(Head(message_type=STEP, fields={"a": 1}, vector=shape))
    with answering(everybody.first) as site:
        channel = grpc.insecure_channel(f"unix:{site.socket}")
        never = threading.Event()

        def parts() -> Iterator[bytes]:
            yield begun
            never.wait(20)

        call = channel.stream_stream(door.METHOD)(parts(), timeout=30)
        wait_for(lambda: status.read(site.home).state == "training", within_s=30)  # type: ignore[union-attr]
        call.cancel()
        never.set()
        channel.close()
        assert site.step()["type"] == "refusal"


def test_more_who_knock_than_a_mailbox_has_threads_are_sent_away_at_once(everybody: Hospitals) -> None:
    """Who took the mailbox could else have the site hold the beginnings of messages without end."""
    ends = threading.Event()

    def silence() -> Iterator[bytes]:
        ends.wait(30)
        yield from ()

    with answering(everybody.first) as site, grpc.insecure_channel(f"unix:{site.socket}") as channel:
        calls = [channel.stream_stream(door.METHOD)(silence(), timeout=30) for _ in range(MOST_AT_ONCE + 4)]
        wait_for(lambda: sum(call.done() for call in calls) >= 4, within_s=20)
        assert {call.code() for call in calls if call.done()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert sum(call.done() for call in calls) == 4
        ends.set()


class Slow:
    """Steps that take as long as they are told to, and how many were being answered at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        self.now = self.most = 0
        monkeypatch.setattr(Site, "secure", self._secure)

    def _secure(self, request: wire.SecureRequest) -> wire.SecureReply:
        self.now += 1
        self.most = max(self.most, self.now)
        self.begun.release()
        self.go.wait(30)
        self.now -= 1
        return wire.SecureReply(site="north", control=request.control)


def test_hello_is_answered_while_it_trains_and_steps_wait_for_each_other(everybody: Hospitals, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    with answering(everybody.first) as site, ThreadPoolExecutor(3) as threads:
        steps = [threads.submit(site.step) for _ in range(3)]
        assert slow.begun.acquire(timeout=20)
        found = status.read(site.home)
        assert found is not None
        assert (found.state, found.round) == ("training", 3)
        assert site.hello(everybody.plan)["site"] == "north"
        assert not any(step.done() for step in steps)
        slow.go.set()
        assert [step.result(30)["control"] for step in steps] == [CONTROL] * 3
        assert slow.most == 1
        wait_for(lambda: status.read(site.home).state == "waiting", within_s=30)  # type: ignore[union-attr]


def test_more_steps_than_it_keeps_waiting_are_sent_away_to_come_again(everybody: Hospitals, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)

    def tried(site: Answering) -> str:
        try:
            return str(site.step()["type"])
        except SiteAway:
            return "away"

    with answering(everybody.first) as site, ThreadPoolExecutor(8) as threads:
        steps = [threads.submit(tried, site) for _ in range(8)]
        wait_for(lambda: sum(step.done() for step in steps) >= 4, within_s=20)
        assert site.hello(everybody.plan)["site"] == "north"
        slow.go.set()
        assert sorted(step.result(30) for step in steps) == ["away"] * 4 + ["secure.reply"] * 4


def test_told_to_stop_it_lets_a_step_end_that_is_nearly_done(everybody: Hospitals, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    with ThreadPoolExecutor(1) as thread:
        with answering(everybody.first) as site:
            step = thread.submit(site.step)
            assert slow.begun.acquire(timeout=20)
            site.stopping.set()
            wait_for(lambda: status.read(site.home).state == "stopping", within_s=30)  # type: ignore[union-attr]
            slow.go.set()
            assert step.result(30)["type"] == "secure.reply"
        assert not site.socket.exists()
        assert status.read(everybody.first).state == "stopped"  # type: ignore[union-attr]


def test_told_to_stop_it_hands_over_an_answer_whose_step_has_ended(everybody: Hospitals, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, handed_over, left = Slow(monkeypatch), Service._out, threading.Event()

    def slowly(self: Service, message_type: str, content: Content) -> Iterator[bytes]:
        time.sleep(1)
        yield from handed_over(self, message_type, content)
        left.set()

    monkeypatch.setattr(Service, "_out", slowly)
    slow.go.set()
    with ThreadPoolExecutor(1) as thread:
        with answering(everybody.first) as site:
            step = thread.submit(site.step)
            assert slow.begun.acquire(timeout=20)
        assert left.is_set()
        assert step.result(30)["type"] == "secure.reply"


def test_told_to_stop_it_begins_no_other_step(everybody: Hospitals, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    with ThreadPoolExecutor(2) as threads, answering(everybody.first) as site:
        first = threads.submit(site.step)
        assert slow.begun.acquire(timeout=20)
        second = threads.submit(site.step)
        time.sleep(0.3)
        site.stopping.set()
        wait_for(lambda: status.read(site.home).state == "stopping", within_s=30)  # type: ignore[union-attr]
        slow.go.set()
        assert first.result(30)["type"] == "secure.reply"
        with pytest.raises(SiteAway):
            second.result(30)
        assert slow.most == 1
        assert not slow.begun.acquire(timeout=0.1)


def test_hello_is_heard_and_not_counted(everybody: Hospitals) -> None:
    with answering(everybody.first) as site:
        site.hello(everybody.plan)
        wait_for(lambda: status.read(site.home).heard, within_s=30)  # type: ignore[union-attr]
        assert status.read(site.home).answered == 0  # type: ignore[union-attr]
        assert [event["event"] for event in site.events()] == ["started"]


def test_its_log_is_lines_of_a_closed_set_of_fields(everybody: Hospitals) -> None:
    with answering(everybody.first) as site:
        site.step()
        assert [event["event"] for event in site.events()] == ["started", "refused"]
        assert set(site.events()[-1]) == {"at", "who", "event", "site", "type", "round", "code", "seconds"}
        site.ask("Doe^Jane", wire.encode_hello(wire.Hello(plan="")))
        assert "Doe" not in site.log.getvalue(), "a type that nobody knows is not repeated"


def _open_to_the_group(home: Path) -> None:
    home.chmod(0o750)


def _simulated(home: Path) -> None:
    with (home / "site.toml").open("a") as file:
        file.write("[simulation]\n")


def _approving_nothing(home: Path) -> None:
    (home / approval.APPROVED_FOLDER / approval.APPROVAL_FILE).unlink()


def _with_an_open_door(home: Path) -> None:
    (home.parent / "door").mkdir(mode=0o755)
    (home.parent / "door").chmod(0o755)


def _with_a_door_that_the_group_may_change(home: Path) -> None:
    (home.parent / "door").mkdir()
    (home.parent / "door").chmod(0o770)


def _with_a_door_of_somebody_else(home: Path) -> None:
    """Who owns the folder could put a link in the socket's place, and what it leads to would be opened to the group."""
    (home.parent / "door").mkdir(mode=0o750)
    if os.geteuid() == 0:
        os.chown(home.parent / "door", 64_002, -1)
    else:
        pytest.skip("only root can give a folder away")


def _in_a_group_that_is_none(home: Path) -> None:
    text = (home / "site.toml").read_text()
    (home / "site.toml").write_text(text.replace("[serve]", '[serve]\ngroup = "nobody-has-it"'))


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        (_open_to_the_group, SecretFile, "0750.*0700"),
        (_simulated, SimulatedSite, "simulation"),
        (_approving_nothing, PlanNotApproved, "approved no plan"),
        (_with_an_open_door, Exposed, "0755; expected 0750"),
        (_with_a_door_that_the_group_may_change, Exposed, "0770; expected 0750"),
        (_with_a_door_of_somebody_else, Exposed, "another user"),
        (_in_a_group_that_is_none, FedwardError, "no group 'nobody-has-it'"),
    ],
)
def test_it_does_not_start_where_it_could_not_keep_its_word(
    everybody: Hospitals, spoil: Callable[[Path], None], error: type[FedwardError], match: str
) -> None:
    spoil(everybody.first)
    refuses_to_start(everybody.first, error, match)
    assert not (everybody.first.parent / "door" / "site.sock").exists()


def test_a_home_and_a_socket_have_one_process(everybody: Hospitals, tmp_path: Path) -> None:
    another = hospitals(tmp_path / "elsewhere", ("north",)).first
    with answering(everybody.first) as site:
        refuses_to_start(everybody.first, SiteRunning, "another site process")
        taken = Serving(home=another, socket=site.socket, log=Log(who="site", to=io.StringIO()), grace_s=1)
        with pytest.raises(SiteRunning, match="answers at"):
            serve(taken, version="0", stopping=threading.Event())
        assert site.hello(everybody.plan)["site"] == "north"
        assert place.is_taken(site.home, LOCK_FILE)
    assert not place.is_taken(everybody.first, LOCK_FILE)


def test_who_looks_whether_a_site_runs_turns_no_start_away(tmp_path: Path) -> None:
    """As `fedward site metrics` does from its timer."""
    (tmp_path / LOCK_FILE).touch()
    descriptor = os.open(tmp_path / LOCK_FILE, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    look = threading.Timer(0.1, os.close, (descriptor,))
    look.start()
    with place.alone(tmp_path, LOCK_FILE, what="site process"):
        look.join()
        with pytest.raises(SiteRunning), place.alone(tmp_path, LOCK_FILE, what="site process"):
            pass


def test_a_socket_that_a_killed_process_left_is_no_hindrance(everybody: Hospitals) -> None:
    with answering(everybody.first) as site:
        pass
    import socket as sockets

    with sockets.socket(sockets.AF_UNIX) as left:
        left.bind(str(site.socket))
    with answering(everybody.first) as again:
        assert again.hello(everybody.plan)["site"] == "north"
        assert again.socket.stat().st_mode & 0o777 == 0o660
        assert again.socket.parent.stat().st_mode & 0o777 == 0o750


def test_a_link_in_the_sockets_place_opens_nothing_to_the_group(tmp_path: Path) -> None:
    key, link = tmp_path / "identity.key", tmp_path / "site.sock"
    key.write_bytes(b"secret")
    key.chmod(0o600)
    link.symlink_to(key)
    with pytest.raises(Exposed, match="no socket any more"):
        place.open_to_group(link, group=None)
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_path_that_no_socket_can_have_is_named(everybody: Hospitals, tmp_path: Path) -> None:
    with pytest.raises(Exposed, match="longer"):
        place.prepare_socket(tmp_path / ("x" * 120) / "site.sock", group=None)


def test_a_status_that_cannot_be_written_costs_no_answer(everybody: Hospitals) -> None:
    with answering(everybody.first) as site:
        (site.home / "status.json").unlink()
        (site.home / "status.json").mkdir()
        assert site.hello(everybody.plan)["site"] == "north"
        assert site.step()["type"] == "refusal"
        (site.home / "status.json").rmdir()


def test_nobody_at_the_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(SiteAway, match="does not answer"):
        door.ask(tmp_path / "site.sock", to_envelope(wire.HELLO, wire.encode_hello(wire.Hello(plan=""))), patience_s=5)

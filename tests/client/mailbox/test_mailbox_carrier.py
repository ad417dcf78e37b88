# SPDX-License-Identifier: Apache-2.0
"""One message through the mailbox: what is carried, what is refused there, and that every failure on the way is waited out."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.app.message import array

from client.mailbox.flower import NotAccepted, NotKnown, RunOver, Taken, reply_to
from client.mailbox.pending import MOST, PENDING_FOLDER
from common import wire
from common.envelope import Head
from tests.client.mailbox.made import MASK, FakeLink, at_the_socket, carrying, down, obliging, step
from tests.client.processes import wait_for

IN_PIECES = bytes(1 << 17)
"""A vector that is too large for an answer to travel whole."""


def pending(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / PENDING_FOLDER).iterdir())


def carried(folder: Path, link: FakeLink, *messages: Taken, answers: int | None = None) -> None:
    """Until there are so many answers."""
    with carrying(folder, link) as (carrier, _):
        for message in messages:
            carrier.take(message)
        wait_for(lambda: len(link.answers()) >= (len(messages) if answers is None else answers), within_s=20)
        wait_for(lambda: not pending(folder), within_s=30)


def test_a_step_reaches_the_site_and_its_answer_comes_back(tmp_path: Path) -> None:
    link = FakeLink()
    with at_the_socket(tmp_path / "site.sock") as site:
        message = link.message(MASK, step(b"abc", values=1000))
        carried(tmp_path, link, message)
    (answer,) = link.answers()
    assert (answer["to"], answer["site"], answer["control"]) == (message.message_id, "north", b"abc")
    (heard,) = site.heard
    assert len(heard.data) == 4000
    assert link.count("confirm") == 1


def test_a_whole_question_is_answered_whole_and_nothing_is_fetched_or_pushed(tmp_path: Path) -> None:
    link = FakeLink()
    with at_the_socket(tmp_path / "site.sock", vector=bytes(40_000)) as site:
        carried(tmp_path, link, link.message(MASK, step(b"abc", values=10_000), in_pieces=False))
    assert (link.answers()[0]["control"], len(site.heard[0].data)) == (b"abc", 40_000)
    assert link.calls == ["announce"]


def test_a_coordinator_that_invites_no_whole_answers_gets_pieces(tmp_path: Path) -> None:
    """It may be older than this mailbox."""
    link = FakeLink()
    with at_the_socket(tmp_path / "site.sock"):
        carried(tmp_path, link, link.message(MASK, step(b"abc"), label="1"))
    assert link.answers()[0]["control"] == b"abc"
    assert link.count("push") > 2


@pytest.mark.parametrize("first", [True, False])
def test_a_question_is_the_same_in_pieces_and_whole(tmp_path: Path, *, first: bool) -> None:
    link, go = FakeLink(), threading.Event()

    def slow(head: Head) -> dict[str, Any]:
        go.wait(20)
        return obliging(head)

    with at_the_socket(tmp_path / "site.sock", slow) as site, carrying(tmp_path, link) as (carrier, tally):
        carrier.take(link.message(MASK, step(), in_pieces=first))
        carrier.take(link.message(MASK, step(), in_pieces=not first, tried=1))
        go.set()
        wait_for(lambda: len(link.answers()) == 2, within_s=20)
    assert (len(site.heard), tally.counts.joined) == (1, 1)


def test_a_whole_question_that_is_too_large_is_refused(tmp_path: Path) -> None:
    link = FakeLink()
    with at_the_socket(tmp_path / "site.sock") as site:
        carried(tmp_path, link, link.message(MASK, step(values=1 << 17), in_pieces=False))
    assert link.answers()[0]["code"] == "E_MSG_FORMAT"
    assert not site.heard


def test_no_more_than_two_large_parts_are_on_the_link_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way when a thin link drops has to be sent again."""
    monkeypatch.setattr(array, "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE", 1 << 17)
    link = FakeLink(slow_s=0.02)
    with at_the_socket(tmp_path / "site.sock", vector=os.urandom(1 << 21)):
        carried(tmp_path, link, link.message(MASK, step(values=1 << 19)))
    assert link.most == 2
    assert link.count("fetch") > 16
    assert link.count("push") > 16


@pytest.mark.parametrize("message_type", ["train.delta", "train.ideal", "query.other", "evaluate", "train.fsa1x"])
def test_what_is_no_message_of_ours_is_refused_and_nothing_of_it_fetched(tmp_path: Path, message_type: str) -> None:
    link = FakeLink()
    with at_the_socket(tmp_path / "site.sock") as site:
        carried(tmp_path, link, link.message(message_type, step()))
    (answer,) = link.answers()
    assert (answer["type"], answer["code"], answer["site"]) == ("refusal", "E_MSG_FORMAT", "")
    assert not site.heard
    assert link.count("fetch") == 0


@pytest.mark.parametrize(
    "content", [RecordDict(), RecordDict({"fedward": ConfigRecord({"a": 1.5})}), RecordDict({"more": ConfigRecord({"a": 1})})]
)
def test_content_that_has_no_envelope_is_refused_before_the_site(tmp_path: Path, content: RecordDict) -> None:
    link = FakeLink()
    with at_the_socket(tmp_path / "site.sock") as site:
        carried(tmp_path, link, link.message(MASK, content))
    assert link.answers()[0]["code"] == "E_MSG_FORMAT"
    assert not site.heard


def test_objects_that_make_no_message_are_refused(tmp_path: Path) -> None:
    link = FakeLink()
    message = link.message(MASK, step())
    for name in link.objects:
        link.objects[name] = b"ConfigRecord\x00nonsense"
    with at_the_socket(tmp_path / "site.sock"):
        carried(tmp_path, link, message)
    assert link.answers()[0]["code"] == "E_MSG_FORMAT"


@pytest.mark.parametrize("call", ["fetch", "announce", "push"])
@pytest.mark.parametrize("trouble", [down(3), [NotKnown(), NotKnown()], [NotAccepted()]])
def test_every_failure_on_the_way_is_waited_out(tmp_path: Path, call: str, trouble: list[Exception]) -> None:
    link = FakeLink(trouble={call: list(trouble)})
    with at_the_socket(tmp_path / "site.sock", vector=IN_PIECES):
        carried(tmp_path, link, link.message(MASK, step()))
    assert len({answer["to"] for answer in link.answers()}) == 1
    assert not link.trouble[call]
    if call != "push" or not isinstance(trouble[0], NotAccepted):
        assert link.tried_again >= len(trouble), "what is sent for a second time is counted as such"


def test_a_session_that_is_over_is_begun_anew_with_the_same_reply(tmp_path: Path) -> None:
    link = FakeLink(trouble={"push": [NotAccepted()]})
    with at_the_socket(tmp_path / "site.sock", vector=IN_PIECES):
        carried(tmp_path, link, link.message(MASK, step()))
    first, second = link.announced
    assert first.push.messages_list[0].metadata.message_id == second.push.messages_list[0].metadata.message_id


def test_a_site_that_is_away_is_waited_for_and_nothing_is_answered_for_it(tmp_path: Path) -> None:
    link = FakeLink()
    with carrying(tmp_path, link) as (carrier, tally):
        carrier.take(link.message(MASK, step()))
        wait_for(lambda: tally.counts.site_away, within_s=30)
        assert not link.announced
        with at_the_socket(tmp_path / "site.sock"):
            wait_for(link.answers, within_s=20)
            wait_for(lambda: not tally.counts.site_away, within_s=30)
    assert link.answers()[0]["site"] == "north"
    assert '"site_away"' in (tmp_path / "log").read_text()


def test_a_question_asked_again_while_the_site_works_is_fetched_once_and_answered_twice(tmp_path: Path) -> None:
    link, go = FakeLink(), threading.Event()

    def slow(head: Head) -> dict[str, Any]:
        go.wait(20)
        return obliging(head)

    with at_the_socket(tmp_path / "site.sock", slow) as site, carrying(tmp_path, link) as (carrier, tally):
        messages = [link.message(MASK, step(), tried=number) for number in range(3)]
        carrier.take(messages[0])
        wait_for(lambda: site.heard, within_s=30)
        fetched = link.count("fetch")
        carrier.take(messages[1])
        carrier.take(messages[2])
        go.set()
        wait_for(lambda: len(link.answers()) == 3, within_s=20)
    assert {answer["to"] for answer in link.answers()} == {message.message_id for message in messages}
    assert (len(site.heard), link.count("fetch"), tally.counts.joined) == (1, fetched, 2)


def test_an_answer_that_was_lost_on_the_way_is_given_again_without_asking_the_site(tmp_path: Path) -> None:
    link = FakeLink()
    with at_the_socket(tmp_path / "site.sock") as site, carrying(tmp_path, link) as (carrier, _):
        for number in range(2):
            carrier.take(link.message(MASK, step(), tried=number))
            wait_for(lambda number=number: len(link.answers()) == number + 1, within_s=20)
    assert len(site.heard) == 1


def test_a_refusal_is_asked_for_again_since_the_site_may_have_changed_its_mind(tmp_path: Path) -> None:
    link = FakeLink()
    said = iter([{"version": 1, "type": "refusal", "site": "north", "code": "E_SITE_PAUSED"}])

    with (
        at_the_socket(tmp_path / "site.sock", lambda head: next(said, None) or obliging(head)),
        carrying(tmp_path, link) as (carrier, _),
    ):
        for number in range(2):
            carrier.take(link.message(MASK, step(), tried=number))
            wait_for(lambda number=number: len(link.answers()) == number + 1, within_s=20)
    assert [answer["type"] for answer in link.answers()] == ["refusal", "secure.reply"]


def test_hello_is_never_remembered(tmp_path: Path) -> None:
    link = FakeLink()
    hello = wire.encode_hello(wire.Hello(plan="a"))

    def say(head: Head) -> dict[str, Any]:
        return {"version": 1, "type": "hello.reply", "site": "north"}

    with at_the_socket(tmp_path / "site.sock", say) as site, carrying(tmp_path, link) as (carrier, _):
        for number in range(2):
            carrier.take(link.message(wire.HELLO, hello, tried=number))
            wait_for(lambda number=number: len(link.answers()) == number + 1, within_s=20)
    assert len(site.heard) == 2


def test_hello_does_not_wait_behind_steps(tmp_path: Path) -> None:
    link, go = FakeLink(), threading.Event()

    def say(head: Head) -> dict[str, Any]:
        if head.message_type != wire.HELLO:
            go.wait(20)
            return obliging(head)
        return {"version": 1, "type": "hello.reply", "site": "north"}

    with at_the_socket(tmp_path / "site.sock", say), carrying(tmp_path, link) as (carrier, _):
        for number in range(6):
            carrier.take(link.message(MASK, step(bytes([number]))))
        carrier.take(link.message(wire.HELLO, wire.encode_hello(wire.Hello(plan="a"))))
        wait_for(link.answers, within_s=30)
        assert link.answers()[0]["type"] == "hello.reply"
        go.set()
        wait_for(lambda: len(link.answers()) == 7, within_s=20)


@pytest.mark.parametrize("call", ["fetch", "announce", "push"])
def test_a_run_that_is_over_is_forgotten(tmp_path: Path, call: str) -> None:
    link = FakeLink(trouble={call: [RunOver() for _ in range(8)]})
    with at_the_socket(tmp_path / "site.sock", vector=IN_PIECES), carrying(tmp_path, link) as (carrier, tally):
        carrier.take(link.message(MASK, step()))
        wait_for(lambda: tally.counts.dropped, within_s=30)
        wait_for(lambda: not pending(tmp_path), within_s=30)
    assert not link.answers()


def test_a_message_nobody_waits_for_any_more_is_dropped(tmp_path: Path) -> None:
    link = FakeLink(trouble={"fetch": down(1000)})
    with carrying(tmp_path, link) as (carrier, tally):
        carrier.take(link.message(MASK, step(), ttl=0.5))
        wait_for(lambda: tally.counts.dropped, within_s=30)


def test_a_question_that_expires_does_not_take_the_one_asked_after_it_along(tmp_path: Path) -> None:
    link = FakeLink()
    with carrying(tmp_path, link) as (carrier, tally):
        carrier.take(link.message(MASK, step(), ttl=0.5))
        late = link.message(MASK, step(), tried=1)
        carrier.take(late)
        wait_for(lambda: tally.counts.site_away, within_s=30)
        time.sleep(0.6)
        with at_the_socket(tmp_path / "site.sock"):
            wait_for(link.answers, within_s=30)
    assert [answer["to"] for answer in link.answers()] == [late.message_id]


def test_messages_to_a_node_that_the_superlink_forgot_are_dropped(tmp_path: Path) -> None:
    link = FakeLink(trouble={"fetch": down(1000)})
    with carrying(tmp_path, link) as (carrier, tally):
        carrier.take(link.message(MASK, step()))
        link.node = 78
        wait_for(lambda: tally.counts.dropped, within_s=30)


def test_a_mailbox_that_ends_while_it_carries_is_taken_up_by_the_next(tmp_path: Path) -> None:
    """As after a kill: what was taken is on disk, and the answer is the same message to Flower, byte for byte."""
    link = FakeLink(trouble={"push": down(1000)})
    with at_the_socket(tmp_path / "site.sock", vector=IN_PIECES):
        message = link.message(MASK, step())
        with carrying(tmp_path, link) as (carrier, _):
            carrier.take(message)
            wait_for(lambda: link.announced, within_s=30)
        assert pending(tmp_path) == [message.message_id]
        link.trouble.clear()
        with carrying(tmp_path, link) as (carrier, _):
            carrier.take_up()
            wait_for(link.answers, within_s=20)
            wait_for(lambda: not pending(tmp_path), within_s=30)
    assert len({reply.push.SerializeToString(deterministic=True) for reply in link.announced}) == 1


def test_a_flood_of_messages_fills_neither_memory_nor_disk(tmp_path: Path) -> None:
    """A coordinator that never stops asking: the hospital's disk, on which the ledger lies too, is not its to fill."""
    link = FakeLink(trouble={"fetch": down(100_000)})
    with carrying(tmp_path, link) as (carrier, tally):
        for number in range(MOST + 50):
            carrier.take(link.message(MASK, step(b"%d" % (number // 2)), tried=number))
        assert len(pending(tmp_path)) == MOST
        assert (tally.counts.messages, tally.counts.dropped) == (MOST + 50, 50)


def test_what_lies_in_the_folder_and_is_no_message_is_cleared_away(tmp_path: Path) -> None:
    link = FakeLink()
    with carrying(tmp_path, link) as (carrier, tally):
        for name, content in (("a" * 64, b"\xff\xff"), ("b" * 64, b""), ("c" * 64, link.message(MASK, step()).raw)):
            (tmp_path / PENDING_FOLDER / name).write_bytes(content)
        (tmp_path / PENDING_FOLDER / "notes").write_bytes(b"of somebody")
        carrier.take_up()
        assert pending(tmp_path) == ["notes"]
        assert tally.counts.messages == 0


def test_a_reply_is_dated_like_its_question_whatever_this_clock_says() -> None:
    link = FakeLink()
    message = link.message(MASK, step(), ttl=60)
    metadata = reply_to(message, step(b"reply")).push.messages_list[0].metadata
    assert (metadata.created_at, metadata.ttl) == (message.message.metadata.created_at, 60)
    assert (metadata.src_node_id, metadata.dst_node_id, metadata.reply_to_message_id) == (77, 1, message.message_id)


def test_its_log_says_what_and_not_whose(tmp_path: Path) -> None:
    link = FakeLink()
    with at_the_socket(tmp_path / "site.sock"):
        carried(tmp_path, link, link.message(MASK, step()), link.message("query.Doe_Jane", step()))
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(line["event"] for line in lines) == ["answered", "refused"]
    assert "Doe" not in (tmp_path / "log").read_text()

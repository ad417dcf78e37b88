# SPDX-License-Identifier: Apache-2.0
"""Whatever goes wrong at a site, a code leaves: no words, no path, no exception that Flower would send with its text."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client import app as site_app
from client.home import SiteFile, SiteName
from client.process import embedded, handler
from client.process.handler import Desk
from client.site import Site
from common import wire
from common.backtrace import DEBUG_VARIABLE
from common.envelope import Envelope, Head, Shape, head_of, open_head
from common.errors import DataUnreadable, MessageFormat, MessageTooLarge, ShareDecrypt
from common.plan import digest_of, dump
from common.records import to_content
from common.secagg import complaints
from tests.journeys.made import made_scenario

NAME = "Doe^Jane"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home of a site called 'north', in a folder with a patient's name; its plan is approved."""
    folder = tmp_path / NAME / "home"
    folder.mkdir(parents=True)
    plan = made_scenario(private=False).plan
    (folder / "plan.toml").write_text(dump(plan))
    (folder / "site.toml").write_text(dump(SiteFile(site=SiteName(name="north"))))
    monkeypatch.setattr(TaskIdentity, "_run_id", 1)
    monkeypatch.setattr(TaskIdentity, "_node_id", 1)
    monkeypatch.setattr(TaskIdentity, "_task_id", 0)
    yield folder
    embedded.site_at.cache_clear()


def context(home: Path | None) -> Context:
    config = {} if home is None else {"home": str(home), "plan": str(home / "plan.toml")}
    return Context(run_id=1, node_id=7, node_config=config, state=RecordDict(), run_config={})


def asked(content: RecordDict | None = None) -> Message:
    return Message(content or wire.encode_hello(wire.Hello(plan=digest_of(made_scenario(private=False).plan))), 7, "query.hello")


def failing(home: Path, reply: Callable[[Site], RecordDict]) -> RecordDict:
    """What leaves when a site that was opened does this."""
    desk = Desk(home, lambda: embedded.site_at(home, home / "plan.toml"))
    answers = {"query.hello": lambda desk, _: reply(desk.site())}
    content = handler.guarded(lambda: handler.answered(desk, "query.hello", RecordDict(), answers=answers), lambda: home)
    assert refusal(Message(content, reply_to=asked()))
    return content


def refusal(message: Message) -> wire.Refusal:
    """What the coordinator gets; and no more than that is in it."""
    assert not message.has_error()
    assert set(message.content) == {"fedward"}
    assert set(message.content["fedward"]) == {"version", "type", "site", "code"}
    reply = wire.decode_hello_reply(message.content)
    assert isinstance(reply, wire.Refusal)
    return reply


def test_a_site_that_is_well_says_its_name(home: Path) -> None:
    assert wire.decode_hello_reply(site_app.hello(asked(), context(home)).content) == wire.HelloReply(site="north")


def test_our_own_words_stay_in_the_sites_folder(home: Path) -> None:
    def reply(site: Site) -> RecordDict:
        raise DataUnreadable(f"'{site.home}' is damaged.", fix="Mend it.")

    assert wire.decode_hello_reply(failing(home, reply)) == wire.Refusal(site="north", code="E_DATA_UNREADABLE")
    log = home / "error.log"
    assert log.read_text() == f"E_DATA_UNREADABLE '{home}' is damaged. Mend it.\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_complaint_leaves_beside_its_code_and_no_words_do(home: Path) -> None:
    def reply(site: Site) -> RecordDict:
        error = ShareDecrypt(f"what 'west' sealed for '{site.name}' does not open.", accused=("west",))
        error.complaint = b"signed"
        raise error

    desk = Desk(home, lambda: embedded.site_at(home, home / "plan.toml"))
    content = handler.guarded(lambda: reply(desk.site()), lambda: home)
    assert dict(content["fedward"]) == {"version": 1, "type": "refusal", "site": "north", "code": "E_SHARE_DECRYPT", "complaint": b"signed"}
    assert wire.decode_hello_reply(content) == wire.Refusal(site="north", code="E_SHARE_DECRYPT", complaint=b"signed")
    assert (home / "error.log").read_text() == "E_SHARE_DECRYPT what 'west' sealed for 'north' does not open.\n"


@pytest.mark.parametrize("complaint", [b"", b"x" * (complaints.LARGEST + 1), "words"], ids=["empty", "long", "text"])
def test_a_complaint_that_is_none_is_refused_by_name(complaint: bytes | str) -> None:
    content = wire.encode_refusal(wire.Refusal(site="north", code="E_SHARE_DECRYPT"))
    content["fedward"]["complaint"] = complaint  # type: ignore[index] # a config record
    with pytest.raises((MessageFormat, MessageTooLarge)):
        wire.decode_hello_reply(content)


def test_an_exception_that_nobody_foresaw_is_written_down_without_its_text(home: Path) -> None:
    def reply(site: Site) -> RecordDict:
        try:
            return {NAME: site}["another"]
        except KeyError as error:
            raise ValueError(f"no patient {NAME} at {site.home}") from error

    assert wire.decode_hello_reply(failing(home, reply)) == wire.Refusal(site="north", code="E_TRAIN_FAILED")
    line = (home / "error.log").read_text()
    assert NAME not in line
    assert "E_TRAIN_FAILED ValueError at tests/client/test_refusals.py:" in line
    assert "; from KeyError at tests/client/test_refusals.py:" in line


def test_who_asks_for_the_text_gets_it_in_a_file_of_their_own(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def reply(site: Site) -> RecordDict:
        raise ValueError(NAME)

    monkeypatch.setenv(DEBUG_VARIABLE, str(tmp_path / "debug.txt"))
    failing(home, reply)
    assert f"ValueError: {NAME}" in (tmp_path / "debug.txt").read_text()
    assert (tmp_path / "debug.txt").stat().st_mode & 0o777 == 0o600
    assert NAME not in (home / "error.log").read_text()


def _without_a_home(home: Path) -> Path | None:
    return None


def _absent(home: Path) -> Path:
    return home.with_name("nowhere")


def _without_its_file(home: Path) -> Path:
    (home / "site.toml").unlink()
    return home


def _damaged(home: Path) -> Path:
    (home / "site.toml").write_bytes(b"\xff" + NAME.encode())
    return home


def _named_after_a_patient(home: Path) -> Path:
    (home / "site.toml").write_text(f'[site]\nname = "{NAME}"\n')
    return home


@pytest.mark.parametrize("spoil", [_without_a_home, _absent, _without_its_file, _damaged, _named_after_a_patient])
def test_a_site_that_cannot_read_its_own_name_refuses_as_nobody(home: Path, spoil, caplog: pytest.LogCaptureFixture) -> None:
    """Not under its folder's name, which is this machine's business."""
    with caplog.at_level(logging.DEBUG):
        reply = refusal(site_app.hello(asked(), context(spoil(home))))
    assert reply.site == ""
    assert NAME not in caplog.text


def test_refusals_without_end_do_not_fill_the_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "LARGEST_ERRORS", 1000)

    def no(site: Site) -> RecordDict:
        raise DataUnreadable("words " * 20)

    for _ in range(40):
        failing(home, no)
    found = {path.name: path.stat().st_size for path in home.glob("error.log*")}
    assert set(found) == {"error.log", "error.log.before"} or set(found) == {"error.log.before"}
    assert sum(found.values()) < 2500


def test_a_stranger_whose_words_are_quoted_writes_no_line_of_their_own(home: Path) -> None:
    """Of a vector's kind an envelope says up to 255 letters, and a refusal quotes them."""
    kind = "x\x1b[2J\x1b[8m\nE_NOTHING all is well"
    head = Head(
        message_type="train.fsa1",
        fields={"version": wire.VERSION, "type": "secure", "round": 1, "control": b""},
        vector=Shape(stype=kind, dtype="float32", size=1, num_bytes=4),
    )
    content = to_content(Envelope(head=open_head(head_of(head)), data=bytes(4)))
    handler.guarded(lambda: wire.encode_hello(wire.decode_secure_request(content, 1)), lambda: home)
    (line,) = (home / handler.ERROR_FILE).read_text().splitlines()
    assert line.startswith("E_MSG_FORMAT")
    assert "all is well" in line
    assert line.isprintable()


def test_words_that_cannot_be_written_down_are_lost_and_not_sent(home: Path) -> None:
    """A full disk raises where the log is written; Flower would send that exception's text, which is a path."""
    (home / "error.log").mkdir()
    (home / "plan.toml").unlink()
    assert refusal(site_app.hello(asked(), context(home))) == wire.Refusal(site="north", code="E_DATA_NOT_FOUND")


@pytest.mark.parametrize("kind", ["hello.reply", "refusal"])
@pytest.mark.parametrize("site", [NAME, "/srv/north", "north\n", "n" * 65])
def test_no_field_of_letters_has_room_for_more_than_a_name(kind: str, site: str) -> None:
    encode = {
        "hello.reply": lambda: wire.encode_hello_reply(wire.HelloReply(site=site)),
        "refusal": lambda: wire.encode_refusal(wire.Refusal(site=site, code="E_DATA")),
    }
    with pytest.raises(MessageFormat, match="no site") as caught:
        encode[kind]()
    assert site not in str(caught.value)


@pytest.mark.parametrize("code", ["", "no such patient", f"E_{NAME}", "E_DATA: no patient", "KeyError"])
def test_a_refusals_code_is_a_code(code: str) -> None:
    with pytest.raises(MessageFormat, match="no code"):
        wire.encode_refusal(wire.Refusal(site="north", code=code))
    content = wire.encode_refusal(wire.Refusal(site="north", code="E_DATA"))
    content["fedward"] = ConfigRecord({**content["fedward"], "code": code})
    with pytest.raises(MessageFormat, match="no code"):
        wire.decode_hello_reply(content)


def test_only_a_refusal_comes_from_nobody() -> None:
    with pytest.raises(MessageFormat, match="no site"):
        wire.encode_hello_reply(wire.HelloReply(site=""))

# SPDX-License-Identifier: Apache-2.0
"""A DICOM archive that sends what nobody asked for, too much, nothing, or units of four gigabytes; and strangers at our own port."""

import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.dimse_primitives import C_GET
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from client.pacs import dimse
from client.pacs.failure import Failed
from client.pacs.guard import GuardedEntity, GuardedHandler, GuardedServer, Watch, cut
from common.errors import AddressTaken, FedwardError
from tests.client.pacs.hostile import raw_port
from tests.client.pacs.importing import Instance, contents, data_set_of, files_in, instance, typed, uids
from tests.client.pacs.orthanc import OURS, TITLE, free_port

Handler = Callable[[Any], Any]


def one(side: int = 32) -> Instance:
    study, series = uids(2)
    return instance(study, series, pixels=np.ones((side, side), dtype=np.uint16))


GOOD, OTHER = one(), one()
LARGE = instance(GOOD.study, GOOD.series, pixels=np.ones((2000, 2000), dtype=np.uint16))


def parsed(each: Instance) -> Dataset:
    return pydicom.dcmread(BytesIO(each.content))


def found(event: Any) -> Iterator[tuple[int, Dataset]]:
    """C-FIND: GOOD alone, whatever is asked."""
    level = event.identifier.QueryRetrieveLevel
    answer = Dataset()
    answer.QueryRetrieveLevel = level
    names = {"STUDY": ("StudyInstanceUID", GOOD.study), "SERIES": ("SeriesInstanceUID", GOOD.series), "IMAGE": ("SOPInstanceUID", GOOD.uid)}
    name, value = names[level]
    setattr(answer, name, value)
    if level == "IMAGE":
        answer.SOPClassUID = CTImageStorage
    yield 0xFF00, answer


def sends(*instances: Instance) -> Handler:
    def handle(event: Any) -> Iterator[Any]:
        yield len(instances)
        for each in instances:
            yield 0xFF00, parsed(each)

    return handle


def sends_late(event: Any) -> Iterator[Any]:
    yield 1
    time.sleep(3)
    yield 0xFF00, parsed(GOOD)


def answers(status: int) -> Handler:
    def handle(event: Any) -> Iterator[Any]:
        yield 1
        yield status, None

    return handle


@contextmanager
def lying(*, get: Handler | None = None, find: Handler = found, move: Handler | None = None) -> Iterator[int]:
    """An archive of pynetdicom's; its port."""
    entity = GuardedEntity(TITLE, Watch(timeout_s=60, largest=1 << 30))  # for its sockets, which are closed in the end
    models = [Verification, StudyRootQueryRetrieveInformationModelFind, StudyRootQueryRetrieveInformationModelGet]
    for model in [*models, *([StudyRootQueryRetrieveInformationModelMove] if move else [])]:
        entity.add_supported_context(model)
    entity.add_supported_context(CTImageStorage, ExplicitVRLittleEndian, scu_role=True, scp_role=True)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    handlers = [(evt.EVT_C_FIND, find), (evt.EVT_C_GET, get or sends(GOOD)), *([(evt.EVT_C_MOVE, move)] if move else [])]
    server = GuardedServer(entity, ("127.0.0.1", 0), TITLE, entity.supported_contexts, None, handlers, GuardedHandler)  # type: ignore[arg-type]
    server.addresses = frozenset({"127.0.0.1"})
    entity._servers.append(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        thread.join()
        for association in server.active_associations:
            cut(association)
            association.join(timeout=5)


def words(port: int) -> list[str]:
    return ["--dimse", f"127.0.0.1:{port}", "--called-aet", TITLE, "--everything", "--tries", "1", "--timeout", "1", "--largest-mib", "1"]


LIES: dict[str, tuple[str, Handler]] = {
    "another instance": ("other_instance", sends(OTHER)),
    "nothing, and success": ("not_sent", sends()),
    "more than one may be": ("too_large", sends(LARGE)),
    "nothing for long": ("silent", sends_late),
    "out of resources": ("busy", answers(0xA702)),
    "unable to process": ("pacs_error", answers(0xC123)),
    "not allowed": ("forbidden", answers(0x0124)),
    "does not match": ("refused", answers(0xA900)),
}


@pytest.mark.parametrize(("reason", "get"), LIES.values(), ids=LIES)
def test_a_lie_costs_one_instance_and_a_word(reason: str, get: Handler, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with lying(get=get) as port:
        account = typed(tmp_path, *words(port), fails=True)
    assert account["failed"] == {reason: 1}
    assert files_in(tmp_path) == []
    assert list((tmp_path / "import" / "incoming").iterdir()) == []


def test_the_same_archive_when_it_does_not_lie(tmp_path: Path) -> None:
    """The control."""
    with lying() as port:
        assert typed(tmp_path, *words(port))["received"] == 1
    assert {data_set_of(each) for each in contents(tmp_path)} == {data_set_of(GOOD.content)}


def test_what_nobody_asked_for_is_dropped_and_what_was_asked_for_kept(tmp_path: Path) -> None:
    with lying(get=sends(OTHER, GOOD, OTHER)) as port:
        assert typed(tmp_path, *words(port))["received"] == 1
    assert {data_set_of(each) for each in contents(tmp_path)} == {data_set_of(GOOD.content)}


def test_what_one_instance_does_to_the_connection_costs_no_other(tmp_path: Path) -> None:
    """Both are asked for at once, and one is too large; then each by itself."""
    series = {each.uid: each for each in (GOOD, LARGE)}
    asked: list[list[str]] = []

    def find(event: Any) -> Iterator[tuple[int, Dataset]]:
        for status, answer in found(event):
            yield status, answer
            if event.identifier.QueryRetrieveLevel == "IMAGE":
                answer.SOPInstanceUID = LARGE.uid
                yield status, answer

    def get(event: Any) -> Iterator[Any]:
        named = event.identifier.SOPInstanceUID
        asked.append([named] if isinstance(named, str) else sorted(named, key=lambda uid: uid != LARGE.uid))  # the large one first
        yield from sends(*(series[uid] for uid in asked[-1]))(event)

    with lying(find=find, get=get) as port:
        account = typed(tmp_path, *words(port), "--tries", "1", fails=True)
    assert (account["received"], account["failed"]) == (1, {"too_large": 1})
    assert [len(each) for each in asked] == [2, 1, 1]


def test_a_listing_that_names_a_path_is_refused(tmp_path: Path) -> None:
    def find(event: Any) -> Iterator[tuple[int, Dataset]]:
        for status, answer in found(event):
            answer.StudyInstanceUID = "../../etc/passwd"
            yield status, answer

    with lying(find=find) as port, pytest.raises(FedwardError) as refusal:
        typed(tmp_path, *words(port))
    assert refusal.value.code == "E_PACS_ANSWER"
    assert "passwd" not in str(refusal.value)


def test_a_listing_that_does_not_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dimse, "AT_MOST", 40)

    def find(event: Any) -> Iterator[tuple[int, Dataset]]:
        for number in range(10_000):
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.StudyInstanceUID = "STUDY", f"1.2.{number}"
            yield 0xFF00, answer

    with lying(find=find) as port, pytest.raises(FedwardError, match="more than 40 answers"):
        typed(tmp_path, *words(port))


def test_an_archive_that_is_at_it_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers C-GET with "pending" and no instance, far more often than any timeout."""
    monkeypatch.setattr(dimse, "_MOST_PENDING", 40)

    def get(event: Any) -> Iterator[Any]:
        pending = C_GET()
        pending.MessageIDBeingRespondedTo, pending.AffectedSOPClassUID = event.request.MessageID, event.request.AffectedSOPClassUID
        pending.Status, pending.NumberOfRemainingSuboperations = 0xFF00, 1
        until = time.monotonic() + 6
        while event.assoc.is_established and time.monotonic() < until:
            event.assoc.dimse.send_msg(pending, event.context.context_id)
            time.sleep(0.01)
        yield 0

    start = time.monotonic()
    with lying(get=get) as port:
        account = typed(tmp_path, *words(port), fails=True)
        took = time.monotonic() - start
    assert account["failed"] == {"silent": 1}
    assert took < 5


def test_an_answer_of_megabytes_is_no_answer(tmp_path: Path) -> None:
    def find(event: Any) -> Iterator[tuple[int, Dataset]]:
        for status, answer in found(event):
            answer.add_new("StudyDescription", "UT", "x" * (2 << 20))
            yield status, answer

    with lying(find=find) as port, pytest.raises(FedwardError, match="too_large") as refusal:
        typed(tmp_path, *words(port), "--largest-mib", "100")
    assert refusal.value.code == "E_PACS_AWAY"


def test_a_request_that_brings_crumbs_is_given_up_however_steadily_they_come() -> None:
    now = 0.0
    watch = Watch(timeout_s=1, largest=1 << 30, clock=lambda: now)

    def drip() -> None:
        nonlocal now
        for _ in range(100):
            now += 0.9
            assert not watch.is_over
            watch.came(200)

    with pytest.raises(Failed, match="slow"):
        drip()
    assert now < 12


def test_a_search_that_is_refused_is_told_with_its_status(tmp_path: Path) -> None:
    def find(event: Any) -> Iterator[tuple[int, None]]:
        yield 0xA900, None

    with lying(find=find) as port, pytest.raises(FedwardError, match="status A900"):
        typed(tmp_path, *words(port))


def test_an_archive_without_c_move_is_refused_by_name(tmp_path: Path) -> None:
    with lying() as port:
        account = typed(tmp_path, *words(port), "--move-to", f"127.0.0.1:{free_port()}", fails=True)
    assert (account["stopped"]["code"], account["failed"]) == ("E_PACS_REFUSED", {"not_reached": 1})


def test_a_destination_that_the_archive_does_not_know_is_refused_by_name(tmp_path: Path) -> None:
    def move(event: Any) -> Iterator[Any]:
        yield None, None

    with lying(move=move) as port:
        account = typed(tmp_path, *words(port), "--move-to", f"127.0.0.1:{free_port()}", fails=True)
    assert account["stopped"]["code"] == "E_PACS_REFUSED"
    assert f"'{OURS}'" in account["stopped"]["message"]


def test_only_the_archive_may_store_here_and_only_what_was_asked_for(tmp_path: Path) -> None:
    """While a C-MOVE runs, a stranger and the archive itself try to store something else; then the right instance comes."""
    ours = free_port()
    told: list[int | str] = []

    def store(title: str, each: Instance) -> int | str:
        entity = GuardedEntity(title, Watch(timeout_s=5, largest=1 << 30))
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", ours, ae_title=OURS)
        if not association.is_established:
            return "turned away"
        status = association.send_c_store(parsed(each)).get("Status", "cut")
        association.release()
        return int(status) if isinstance(status, int) else str(status)

    def move(event: Any) -> Iterator[Any]:
        told.extend([store("STRANGER", GOOD), store(TITLE, OTHER), store("NODE2", OTHER)])
        yield "127.0.0.1", ours
        yield 1
        yield 0xFF00, parsed(GOOD)

    with lying(move=move) as port:
        sender = ("--sender", "NODE2@127.0.0.1")
        account = typed(tmp_path, *words(port), "--timeout", "10", "--move-to", f"127.0.0.1:{ours}", *sender)
    assert told == ["turned away", 0xA900, 0xA900]
    assert account["received"] == 1
    assert {data_set_of(each) for each in contents(tmp_path)} == {data_set_of(GOOD.content)}


def test_a_port_that_is_taken_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(AddressTaken, match="cannot be listened on"):
        typed(tmp_path, *words(free_port()), "--move-to", f"127.0.0.1:{taken.getsockname()[1]}")


def unit_of_four_gigabytes(line: socket.socket) -> None:
    line.recv(4096)
    line.sendall(struct.pack(">BBL", 0x02, 0, 0xFFFFFFFF))
    for _ in range(4096):
        line.sendall(bytes(1 << 20))


def silence(line: socket.socket) -> None:
    line.recv(4096)
    time.sleep(2)


def half_a_unit(line: socket.socket) -> None:
    line.recv(4096)
    line.sendall(struct.pack(">BBL", 0x02, 0, 2000))
    for _ in range(40):
        line.sendall(b"\0")
        time.sleep(0.1)


def another_protocol(line: socket.socket) -> None:
    line.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize("speak", [unit_of_four_gigabytes, silence, half_a_unit, another_protocol])
def test_a_port_that_speaks_no_dicom_is_away_soon_and_costs_no_memory(speak: Callable[[socket.socket], None], tmp_path: Path) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with raw_port(speak) as port:
        with pytest.raises(FedwardError, match="does not answer a C-ECHO") as refusal:
            typed(tmp_path, *words(port))
        took = time.monotonic() - start
    assert refusal.value.code == "E_PACS_AWAY"
    assert took < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB
    assert not [thread for thread in threading.enumerate() if "Association" in thread.name]

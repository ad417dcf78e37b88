# SPDX-License-Identifier: Apache-2.0
"""A DICOMweb archive that breaks off, never ends, sends something else, or lists paths: each costs an instance and a word, no more."""

import json
import time
from pathlib import Path

import numpy as np
import pytest

from client.pacs import dicomweb, transfer
from common.errors import FedwardError
from tests.client.pacs.hostile import BOUNDARY, Answer, Request, closed, element, lying_web, part
from tests.client.pacs.importing import Instance, contents, files_in, instance, typed, uids

RELATED = f"multipart/related; boundary={BOUNDARY}"


def one() -> Instance:
    study, series = uids(2)
    return instance(study, series, pixels=np.arange(1024, dtype=np.uint16).reshape(32, 32))


GOOD, OTHER = one(), one()
SAME_STUDY_ELSEWHERE = GOOD.content.replace(GOOD.series.encode(), OTHER.series.encode()[: len(GOOD.series)].ljust(len(GOOD.series), b"7"))


def breaks_off(request: Request) -> None:
    request.head(200, Content_Type=RELATED, Content_Length="100000")
    request.wfile.write(part(GOOD.content)[:600])
    request.close_connection = True


def never_ends(request: Request) -> None:
    request.head(200, Content_Type=RELATED)
    request.wfile.write(part(b"")[:-2])
    while True:
        request.wfile.write(bytes(1 << 16))


def drips(request: Request) -> None:
    request.head(200, Content_Type=RELATED)
    for byte in closed(GOOD.content):
        request.wfile.write(bytes([byte]))
        time.sleep(0.1)


def in_crumbs(start: bytes, crumb: bytes, *, pause_s: float = 0.2) -> Answer:
    """What begins an answer, and then a crumb now and then, for as long as anybody waits; none of them is a byte of what was asked for."""

    def answer(request: Request) -> None:
        request.close_connection = True
        request.wfile.write(start)
        until = time.monotonic() + 6
        while time.monotonic() < until:
            request.wfile.write(crumb)
            time.sleep(pause_s)

    return answer


def chunked(body: bytes, kind: str = RELATED) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + (f"{len(body):x}\r\n".encode() + body + b"\r\n" if body else b"")


INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n"


def falls_silent(request: Request) -> None:
    request.head(200, Content_Type=RELATED)
    request.wfile.write(part(GOOD.content)[:600])
    time.sleep(3)


LIES: dict[str, tuple[str, Answer]] = {
    "another boundary than it announces": ("malformed", lambda r: r.for_ever(part(bytes(1 << 16)), content_type=f"{RELATED}X")),
    "a size that is announced": ("too_large", lambda r: r.whole(200, bytes(2 << 20), Content_Type=RELATED)),
    "a part that never ends": ("too_large", never_ends),
    "line ends for ever": ("malformed", lambda r: r.for_ever(b"\r\n" * 9999, content_type=RELATED)),
    "a header that never ends": ("malformed", lambda r: r.related(b"--" + BOUNDARY.encode() + b"\r\nX: " + b"y" * 100_000)),
    "two parts": ("malformed", lambda r: r.related(closed(GOOD.content, GOOD.content))),
    "no boundary": ("malformed", lambda r: r.whole(200, closed(GOOD.content), Content_Type="multipart/related")),
    "a page instead of an image": ("malformed", lambda r: r.whole(200, b"<html>log in</html>", Content_Type="text/html")),
    "compressed on the way": ("malformed", lambda r: r.related(closed(GOOD.content), Content_Encoding="gzip")),
    "no closing boundary": ("broken_off", lambda r: r.related(part(GOOD.content))),
    "the connection ends": ("broken_off", breaks_off),
    "a byte now and then": ("slow", drips),
    "a header's letters now and then": ("slow", in_crumbs(b"HTTP/1.1 200 OK\r\nX: ", b"y")),
    "patience, now and then": ("slow", in_crumbs(b"", INTERIM)),
    "patience, as fast as it can": ("malformed", in_crumbs(b"", INTERIM * 4096, pause_s=0)),
    "a piece's length now and then": ("slow", in_crumbs(chunked(b"") + b"5;", b"y")),
    "a whole part and a trailer now and then": ("slow", in_crumbs(chunked(closed(GOOD.content)) + b"0\r\nX: ", b"y")),
    "nothing more": ("silent", falls_silent),
    "another instance": ("other_instance", lambda r: r.related(closed(OTHER.content))),
    "another series": ("other_instance", lambda r: r.related(closed(SAME_STUDY_ELSEWHERE))),
    "no DICOM": ("not_dicom", lambda r: r.related(closed(b"GIF89a" + bytes(200)))),
    "a header of garbage": ("header", lambda r: r.related(closed(bytes(128) + b"DICM" + b"\xff" * 400))),
    "a redirection": ("redirected", lambda r: r.whole(302, b"", Location="http://192.0.2.1/elsewhere")),
    "not there": ("not_found", lambda r: r.whole(404, b"")),
    "not for you": ("forbidden", lambda r: r.whole(403, b"")),
    "a fault": ("pacs_error", lambda r: r.whole(500, b"")),
    "busy": ("busy", lambda r: r.whole(503, b"")),
    "not in that form": ("not_offered", lambda r: r.whole(406, b"")),
    "a bad request": ("refused", lambda r: r.whole(400, b"")),
}


@pytest.mark.parametrize(("reason", "sends"), LIES.values(), ids=LIES)
def test_a_lie_costs_one_instance_and_says_which(reason: str, sends: Answer, tmp_path: Path) -> None:
    with lying_web(GOOD, sends=sends) as archive:
        found = typed(
            tmp_path, "--dicomweb", archive.url, "--everything", "--tries", "1", "--timeout", "1", "--largest-mib", "1", fails=True
        )
    assert found["failed"] == {reason: 1}
    assert files_in(tmp_path) == []
    assert list((tmp_path / "import" / "incoming").iterdir()) == []


def test_the_same_archive_when_it_does_not_lie(tmp_path: Path) -> None:
    """The control, for both forms in which an instance may come, and one that is followed by more than it should be."""
    good: list[Answer] = [
        lambda r: r.related(closed(GOOD.content)),
        lambda r: r.whole(200, GOOD.content, Content_Type="application/dicom"),
        lambda r: r.related(b"\r\n" + closed(GOOD.content) + b"\r\n" + b"epilogue" * 50_000),
    ]
    for number, sends in enumerate(good):
        with lying_web(GOOD, sends=sends) as archive:
            assert typed(tmp_path / str(number), "--dicomweb", archive.url, "--everything", "--tries", "1")["received"] == 1
        assert contents(tmp_path / str(number)) == {GOOD.content}


def test_what_may_pass_is_asked_for_again_and_not_before_the_archive_wants(tmp_path: Path) -> None:
    answers: list[float] = []

    def busy_at_first(request: Request) -> None:
        answers.append(time.monotonic())
        if len(answers) == 1:
            request.whole(503, b"", Retry_After="2")
        else:
            request.related(closed(GOOD.content))

    with lying_web(GOOD, sends=busy_at_first) as archive:
        assert typed(tmp_path, "--dicomweb", archive.url, "--everything")["received"] == 1
    assert answers[1] - answers[0] >= 2


def test_an_archive_that_sends_nothing_any_more_ends_the_import_with_an_account(tmp_path: Path) -> None:
    study, series = uids(2)
    many = [instance(study, series, pixels=np.full((8, 8), value, dtype=np.uint16)) for value in range(9)]
    with lying_web(*many, sends=lambda r: r.whole(503, b"")) as archive:
        found = typed(tmp_path, "--dicomweb", archive.url, "--everything", "--tries", "1", fails=True)
    assert (found["stopped"]["code"], found["failed"]) == ("E_PACS_AWAY", {"busy": 3, "not_reached": 6})


def test_a_user_who_is_locked_out_in_the_middle_ends_the_import(tmp_path: Path) -> None:
    with lying_web(GOOD, OTHER, sends=lambda r: r.whole(401, b"")) as archive:
        found = typed(tmp_path, "--dicomweb", archive.url, "--everything", fails=True)
    assert (found["stopped"]["code"], found["failed"]) == ("E_PACS_REFUSED", {"not_reached": 2})


LISTINGS: dict[str, Answer] = {
    "a path for a UID": lambda r: r.whole(200, json.dumps([{"0020000D": element("../../etc/passwd")}]).encode()),
    "no UID": lambda r: r.whole(200, json.dumps([{"00080020": element("20240101")}]).encode()),
    "two UIDs": lambda r: r.whole(200, json.dumps([{"0020000D": {"Value": ["1.2", "1.3"]}}]).encode()),
    "a page": lambda r: r.whole(200, b"<html>log in</html>"),
    "another shape": lambda r: r.whole(200, b'{"studies": 7}'),
    "brackets for ever": lambda r: r.whole(200, b"[" * 60_000),
    "bytes for ever": lambda r: r.for_ever(b" " * 65536, content_type="application/dicom+json"),
    "studies for ever": lambda r: r.whole(
        200, json.dumps([{"0020000D": element(f"1.2.{r.query['offset']}.{n}")} for n in range(9)]).encode()
    ),
    "not found": lambda r: r.whole(404, b""),
    "elsewhere": lambda r: r.whole(307, b"", Location="http://192.0.2.1/"),
}


@pytest.mark.parametrize("lists", LISTINGS.values(), ids=LISTINGS)
def test_a_listing_that_cannot_be_believed_is_refused_before_anything_is_asked_for(
    lists: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicomweb, "_LARGEST_PAGE", 1 << 20)
    monkeypatch.setattr(dicomweb, "AT_MOST", 50)
    with lying_web(GOOD, sends=lambda r: r.related(closed(GOOD.content)), lists=lists) as archive:
        with pytest.raises(FedwardError) as refusal:
            typed(tmp_path, "--dicomweb", archive.url, "--everything")
        assert not any("/instances/" in path for path in archive.asked)
    assert refusal.value.code == "E_PACS_ANSWER"
    assert "passwd" not in str(refusal.value)


@pytest.mark.parametrize("anew", [True, False], ids=["others in each study", "the same in each study"])
def test_a_listing_of_too_many_ends_where_they_are_too_many(anew: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No single answer is too long, and together they would fill any memory."""
    monkeypatch.setattr(transfer, "AT_MOST", 50)

    def lists(request: Request) -> None:
        path = request.path.partition("?")[0].split("/")[1:]
        of_study = path[1] if anew and len(path) > 1 else "1"
        name, count = {1: ("0020000D", 40), 3: ("0020000E", 1), 5: ("00080018", 20)}[len(path)]
        found = [{name: element(f"{of_study}.{number}")} for number in range(1, count + 1)]
        request.whole(200, json.dumps(found if request.query["offset"] == "0" else []).encode())

    with lying_web(sends=lambda r: r.whole(404, b""), lists=lists) as archive:
        with pytest.raises(FedwardError, match="more than 50 instances") as refusal:
            typed(tmp_path, "--dicomweb", archive.url, "--everything")
        looked_into = {path.split("/")[2] for path in archive.asked if "/instances?" in path}
    assert refusal.value.code == "E_PACS_ANSWER"
    assert len(looked_into) == 3


def test_an_archive_that_ignores_pages_is_listed_once(tmp_path: Path) -> None:
    """It gives its whole list whatever the offset; the second time that brings nothing new."""
    with lying_web(GOOD, OTHER, sends=lambda r: r.related(closed(GOOD.content if GOOD.uid in r.path else OTHER.content))) as archive:
        listed = archive.list

        def without_pages(request: Request) -> None:
            request.path = request.path.partition("offset=")[0] + "offset=0"
            listed(request)

        archive.lists = without_pages
        assert typed(tmp_path, "--dicomweb", archive.url, "--everything")["received"] == 2


def test_an_archive_that_ignores_the_query_is_held_to_it(tmp_path: Path) -> None:
    def ignores(request: Request) -> None:
        if request.path.startswith("/studies?"):
            rows = [{"0020000D": element(each.study), "00100020": element(name, "LO")} for each, name in ((GOOD, "A"), (OTHER, "B"))]
            request.whole(200, json.dumps(rows if request.query["offset"] == "0" else []).encode())
        else:
            archive.list(request)

    with lying_web(GOOD, OTHER, sends=lambda r: r.related(closed(GOOD.content)), lists=ignores) as archive:
        found = typed(tmp_path, "--dicomweb", archive.url, "-q", "PatientID=A")
    assert (found["asked"], found["received"], found["contradicting"]) == (1, 1, 1)


def test_addresses_that_an_answer_names_are_not_followed(tmp_path: Path) -> None:
    with lying_web(GOOD, sends=lambda r: r.related(closed(GOOD.content))) as archive:
        typed(tmp_path, "--dicomweb", archive.url, "--everything")
        instances = [path for path in archive.asked if "/instances/" in path]
    assert instances == [f"/studies/{GOOD.study}/series/{GOOD.series}/instances/{GOOD.uid}"]

# SPDX-License-Identifier: Apache-2.0
"""What lands and what does not, the journal beside it, the account's sum, the pace, and what may be asked for."""

import json
import os
import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from client.pacs import header, query
from client.pacs.account import Account
from client.pacs.archive import Gaps
from client.pacs.failure import REMEDY, Failed, Reason
from client.pacs.journal import JOURNAL_FILE
from client.pacs.landing import Landing
from client.pacs.multipart import OnePart
from client.pacs.pace import LEAST_BYTES, Pace, Patience
from client.pacs.query import Level, Query
from client.pacs.wanted import Wanted, is_uid
from common.errors import DiskFull, PacsError, SiteRunning
from tests.client.imaging.conftest import encode, make_dataset
from tests.client.pacs.hostile import BOUNDARY, closed, lying_web
from tests.client.pacs.importing import Instance, files_in, instance, typed, uids

ROOT = Path(__file__).parents[3]
MIB = 1 << 20


def one() -> Instance:
    study, series = uids(2)
    return instance(study, series, pixels=np.arange(64, dtype=np.uint16).reshape(8, 8))


GOOD = one()


def wanted(each: Instance) -> Wanted:
    return Wanted(study=each.study, series=each.series, instance=each.uid)


def land(into: Path, each: Instance) -> Path:
    with Landing.opened(into, largest=MIB, reserve=0) as landing, landing.arriving(wanted(each)) as file:
        file.write(each.content)
        return landing.place_of(file.land().name)


def test_what_was_put_in_its_place_but_not_written_down_is_taken_in(tmp_path: Path) -> None:
    """A kill between the two."""
    path = land(tmp_path, GOOD)
    journal = tmp_path / "import" / JOURNAL_FILE
    title, line = journal.read_bytes().splitlines()
    journal.write_bytes(title + b"\n" + line[:20])  # and a power cut in the middle of the line
    with Landing.opened(tmp_path, largest=MIB, reserve=0) as landing:
        found = landing.arrived(wanted(GOOD))
        assert not landing.journal_was_damaged
    assert found is not None
    assert landing.place_of(found.name) == path
    assert journal.read_bytes().splitlines() == [title, line]


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o022, 0o000])
def test_the_group_reads_what_came_and_nothing_else_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """The site process is another user, and an administrator's shell may have any umask."""
    tmp_path.chmod(0o2750)  # as deploy/systemd makes it: what comes has the folder's group
    before = os.umask(umask)
    try:
        path = land(tmp_path, GOOD)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, tmp_path / "images", tmp_path / "import")]
    assert modes[:1] == [0o640]
    assert [mode & 0o777 for mode in modes[1:]] == [0o750, 0o750, 0o700]
    assert all(mode & stat.S_ISGID for mode in modes[1:3])


def test_what_lies_under_an_instances_name_and_is_another_does_not_count(tmp_path: Path) -> None:
    path = land(tmp_path, GOOD)
    (tmp_path / "import" / JOURNAL_FILE).unlink()
    path.write_bytes(one().content)
    with Landing.opened(tmp_path, largest=MIB, reserve=0) as landing:
        assert landing.arrived(wanted(GOOD)) is None


def test_a_link_under_an_instances_name_does_not_count(tmp_path: Path) -> None:
    path = land(tmp_path, GOOD)
    (tmp_path / "elsewhere").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with Landing.opened(tmp_path, largest=MIB, reserve=0) as landing:
        assert landing.arrived(wanted(GOOD)) is None


def test_names_are_keyed_anew_in_each_folder(tmp_path: Path) -> None:
    assert land(tmp_path / "a", GOOD).name != land(tmp_path / "b", GOOD).name


def test_a_second_import_into_one_folder_is_refused(tmp_path: Path) -> None:
    again = Landing.opened(tmp_path, largest=MIB, reserve=0)
    with Landing.opened(tmp_path, largest=MIB, reserve=0), pytest.raises(SiteRunning, match="another import"):
        again.__enter__()


def test_a_full_disk_is_not_reached(tmp_path: Path) -> None:
    with lying_web(GOOD, sends=lambda r: r.related(closed(GOOD.content))) as archive:
        found = typed(tmp_path, "--dicomweb", archive.url, "--everything", free="1000000", fails=True)
        assert not any("/instances/" in path for path in archive.asked)
    assert (found["stopped"]["code"], found["failed"]) == ("E_DISK_FULL", {"not_reached": 1})


def test_a_disk_that_fills_while_an_instance_comes_costs_that_instance(tmp_path: Path) -> None:
    with Landing.opened(tmp_path, largest=MIB, reserve=0) as landing:
        with landing.arriving(wanted(GOOD)) as file:
            landing._reserve = 1 << 60
            with pytest.raises(DiskFull):
                file.write(GOOD.content)
        assert list(landing.incoming.iterdir()) == []
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_a_header_is_read_in_every_encoding(syntax: str, tmp_path: Path) -> None:
    study, series, uid = uids(3)
    content = encode(
        make_dataset(np.ones((8, 8), np.uint16), syntax=syntax, StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID=uid)  # type: ignore[arg-type]
    )
    path = tmp_path / "file"
    path.write_bytes(content)
    header.check(path, Wanted(study=study, series=series, instance=uid))
    with pytest.raises(Failed, match="other_instance"):
        header.check(path, Wanted(study=study, series=series, instance=uid + "1"))


def test_an_old_uid_in_the_meta_group_does_not_count_against_a_file(tmp_path: Path) -> None:
    """As real files have it."""
    meta, rest = GOOD.content[:400], GOOD.content[400:]
    path = tmp_path / "file"
    path.write_bytes(meta.replace(GOOD.uid.encode(), one().uid.encode()[: len(GOOD.uid)].ljust(len(GOOD.uid), b"7"), 1) + rest)
    assert path.read_bytes() != GOOD.content
    header.check(path, wanted(GOOD))


@given(cut=st.integers(0, len(GOOD.content)), flip=st.integers(0, len(GOOD.content) - 1), to=st.integers(0, 255))
def test_a_header_that_was_cut_or_altered_costs_a_reason(tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, to: int) -> None:
    content = bytearray(GOOD.content)
    content[flip] = to
    path = tmp_path_factory.getbasetemp() / "altered"
    path.write_bytes(content[:cut])
    with suppress(Failed):  # anything else would end an import
        header.check(path, wanted(GOOD))


@given(content=st.binary(max_size=300), sizes=st.lists(st.integers(1, 40), min_size=1))
def test_a_part_is_the_same_in_whatever_pieces_it_comes(content: bytes, sizes: list[int]) -> None:
    body, got, at = closed(content), bytearray(), 0
    part = OnePart(BOUNDARY, got.extend)
    while at < len(body):
        size = sizes[at % len(sizes)]
        part.feed(body[at : at + size])
        at += size
    assert (bytes(got), part.is_over) == (content, True)


def test_an_account_that_does_not_add_up_is_refused() -> None:
    with pytest.raises(PacsError, match="3 asked for, but 1 received and 1 failed") as refusal:
        Account(asked=3, before=0, now=1, failed=Counter({Reason.BUSY: 1}), gaps=Gaps(), without_answer=0)
    assert refusal.value.code == "E_PACS"


def test_every_reason_says_what_to_do_and_is_on_the_page() -> None:
    page = (ROOT / "docs" / "pacs.md").read_text(encoding="utf-8")
    for reason in Reason:
        assert REMEDY[reason]
        assert f"`{reason.value}`" in page


def test_no_more_is_asked_for_in_a_second_than_allowed() -> None:
    now = 0.0
    waited: list[float] = []

    def wait(seconds: float) -> None:
        nonlocal now
        waited.append(seconds)
        now += seconds

    pace = Pace(4, clock=lambda: now, wait=wait)
    for count in (1, 1, 6, 1):
        pace.before(count)
    assert waited == [0.25, 0.25, 1.5]


def test_patience_lasts_while_enough_comes_and_no_longer() -> None:
    now = 0.0
    patience = Patience(10, clock=lambda: now)
    for second in range(100):
        now = float(second)
        patience.came(LEAST_BYTES // 9)
    now = 111.0
    with pytest.raises(Failed, match="slow"):
        patience.came(1)


@pytest.mark.parametrize(
    ("asked", "found", "matches"),
    [
        ("StudyDate=20240101-20240630", "20240630", True),
        ("StudyDate=20240101-20240630", "20240701", False),
        ("StudyDate=-20231231", "20240101", False),
        ("StudyDate=20240101-", "20240101", True),
        ("StudyTime=0800-0930", "093059", True),
        ("AccessionNumber=2024-17", "2024-17", True),
        ("AccessionNumber=2024-17", "20249", False),
        ("StudyDescription=*thorax*", "CT Thorax nativ", True),
        ("StudyDescription=CT [1]?", "CT [1]x", True),
        ("StudyDescription=CT [1]?", "CT 1x", False),
        ("PatientID=a1", "A1 ", True),
        ("PatientID=A1", "A12", False),
    ],
)
def test_answers_are_held_against_the_query(asked: str, found: str, matches: bool) -> None:
    (parsed,) = query.parse([asked])
    assert parsed.allows({asked.partition("=")[0]: (found,)}, Level.STUDY) is matches
    assert parsed.allows({}, Level.STUDY)


def test_a_modality_narrows_studies_and_is_asked_of_series() -> None:
    asked = Query(keys={"Modality": "CT", "StudyDate": "20240101"})
    assert asked.at(Level.STUDY) == {"StudyDate": "20240101", "ModalitiesInStudy": "CT"}
    assert asked.at(Level.SERIES) == {"Modality": "CT"}
    assert Query(keys={"Modality": "C*"}).at(Level.STUDY) == {}


@pytest.mark.parametrize(
    "words", [["Modality"], ["Modality="], ["PatientsShoe=42"], ["StudyInstanceUID=1.2/../3"], ["PatientID=a\\b"], ["PatientID=a\nb"]]
)
def test_what_cannot_be_asked_for_is_said_without_the_value(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter) as refusal:
        query.parse(words)
    assert "42" not in str(refusal.value)
    assert ".." not in str(refusal.value)


@pytest.mark.parametrize(
    "table", ["PatientID\nA\n\n,\n", "PatientID,StudyDate\nA,\n", "PatientsShoe\n42\n", 'PatientID\n"A\n', '"PatientID\nA\n']
)
def test_a_list_that_would_ask_for_everybody_or_for_nothing_known_is_refused(table: str) -> None:
    with pytest.raises(typer.BadParameter):
        query.parse([], table)


def test_a_list_is_a_query_for_each_row() -> None:
    rows = query.parse(["Modality=CT"], "\ufeffPatientID, StudyDate\nA,20240101\nB ,20240102\n")
    assert [dict(each.keys) for each in rows] == [
        {"Modality": "CT", "PatientID": "A", "StudyDate": "20240101"},
        {"Modality": "CT", "PatientID": "B", "StudyDate": "20240102"},
    ]


@pytest.mark.parametrize("text", ["", "1.2/3", "../1", "1..2", "1.2\\1.3", "1.2*", "1" * 65, "１.2", None])
def test_what_is_no_uid(text: str | None) -> None:
    assert not is_uid(text)


def test_only_listing_asks_for_no_instance(tmp_path: Path) -> None:
    with lying_web(GOOD, sends=lambda r: r.related(closed(GOOD.content))) as archive:
        typed_words = ("--dicomweb", archive.url, "--everything")
        assert typed(tmp_path, *typed_words, "--count-only") == {"listed": 1, "here": 0}
        assert not any("/instances/" in path for path in archive.asked)
        typed(tmp_path, *typed_words)
        assert typed(tmp_path, *typed_words, "--count-only") == {"listed": 1, "here": 1}


def test_a_journal_line_says_name_size_and_hash_and_nothing_else(tmp_path: Path) -> None:
    land(tmp_path, GOOD)
    line = json.loads((tmp_path / "import" / JOURNAL_FILE).read_bytes().splitlines()[1])
    assert (line.keys(), line["size"]) == ({"name", "sha256", "size"}, len(GOOD.content))

# SPDX-License-Identifier: Apache-2.0
"""Imports from a real Orthanc: three ways to the same pixels, a kill in the middle of each, and everything accounted for."""

import csv
import json
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.imaging.listing import walk
from common.errors import FedwardError, InsecureLink
from tests.client.pacs.importing import Instance, contents, data_set_of, files_in, instance, made, pixels_of, typed
from tests.client.pacs.orthanc import OURS, TITLE, Orthanc, free_port, needs_orthanc, running
from tests.client.processes import ending, fedward, wait_for

pytestmark = [needs_orthanc, pytest.mark.debian]
WAYS = ["dicomweb", "c-get", "c-move"]


@pytest.fixture(scope="module")
def stored() -> list[Instance]:
    return made()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, stored: list[Instance]) -> Iterator[Orthanc]:
    with running(tmp_path_factory.mktemp("archive")) as orthanc:
        orthanc.store(*(each.content for each in stored))
        yield orthanc


def words(way: str, archive: Orthanc) -> list[str]:
    move = ["--move-to", f"127.0.0.1:{archive.move_to}"] if way == "c-move" else []
    return ["--dicomweb", archive.web] if way == "dicomweb" else [*archive.classic, *move]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_brings_the_same_pixels_in_the_same_transfer_syntax(
    way: str, archive: Orthanc, stored: list[Instance], tmp_path: Path
) -> None:
    found = typed(tmp_path, *words(way, archive), "-q", "Modality=CT")
    assert (found["asked"], found["received_now"], found["failed"]) == (len(stored), len(stored), {})
    come = contents(tmp_path)
    assert sorted(pixels_of(each) for each in come) == sorted(pixels_of(each.content) for each in stored)
    assert {data_set_of(each) for each in come} == {data_set_of(each.content) for each in stored}
    if way == "dicomweb":
        assert come == {each.content for each in stored}


@pytest.mark.parametrize("way", WAYS)
def test_an_import_that_is_run_again_asks_for_what_is_new_and_nothing_else(way: str, stored: list[Instance], tmp_path: Path) -> None:
    (tmp_path / "orthanc").mkdir()
    with running(tmp_path / "orthanc") as archive:
        archive.store(*(each.content for each in stored[:6]))
        assert typed(tmp_path, *words(way, archive), "--everything")["received_now"] == 6
        before = {path: path.stat().st_mtime_ns for path in files_in(tmp_path)}
        archive.store(stored[6].content)
        found = typed(tmp_path, *words(way, archive), "--everything")
    assert (found["asked"], found["received"], found["received_now"]) == (7, 7, 1)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in files_in(tmp_path)}.items()


@pytest.mark.parametrize("way", WAYS)
def test_an_import_that_is_killed_goes_on_where_it_was(way: str, archive: Orthanc, stored: list[Instance], tmp_path: Path) -> None:
    command = ["site", "import", "--into", str(tmp_path), *words(way, archive), "-q", "Modality=CT", "--keep-free-gib", "0.1"]
    process = fedward(*command, "--per-second", "12", log=tmp_path / "log")
    try:
        wait_for(lambda: len(files_in(tmp_path)) >= 5, within_s=60)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    at_kill = {path: path.stat().st_mtime_ns for path in files_in(tmp_path)}
    assert 5 <= len(at_kill) < len(stored)
    found = typed(tmp_path, *words(way, archive), "-q", "Modality=CT")
    assert (found["received"], found["received_now"]) == (len(stored), len(stored) - len(at_kill))
    assert at_kill.items() <= {path: path.stat().st_mtime_ns for path in files_in(tmp_path)}.items()
    assert sorted(map(pixels_of, contents(tmp_path))) == sorted(pixels_of(each.content) for each in stored)
    assert list((tmp_path / "import" / "incoming").iterdir()) == []


def test_an_import_that_is_asked_to_end_tells_the_rest_and_names_nobody(archive: Orthanc, stored: list[Instance], tmp_path: Path) -> None:
    """SIGTERM: what runs is finished, and accounted for. Neither what it says nor what it leaves tells a patient or an instance."""
    command = ["site", "import", "--into", str(tmp_path), *words("c-get", archive), "--everything", "--keep-free-gib", "0.1"]
    process = fedward(*command, "--per-second", "4", log=tmp_path / "log")
    try:
        wait_for(lambda: files_in(tmp_path), within_s=60)
    finally:
        process.terminate()
        code = process.wait(30)
    assert code == 1
    told = (tmp_path / "log").read_text()
    assert "24 instances asked for" in told
    assert "not_reached" in told
    assert "E_" not in told
    left = told + "".join(str(path) for path in tmp_path.rglob("*")) + (tmp_path / "import" / "journal.jsonl").read_text()
    assert not any(secret in left for each in stored for secret in (each.uid, each.series, each.study, "MRN-", "ACC0"))


@pytest.mark.parametrize("way", ["dicomweb", "c-get"])
def test_only_what_matches_is_asked_for(way: str, archive: Orthanc, stored: list[Instance], tmp_path: Path) -> None:
    def asked(*query: str) -> int:
        return int(typed(tmp_path, *words(way, archive), *query)["asked"])

    assert asked("-q", "PatientID=MRN-0001") == 8
    assert asked("-q", "StudyDate=20240102-20240103") == 16
    assert asked("-q", "AccessionNumber=ACC2", "-q", f"SeriesInstanceUID={stored[-1].series}") == 4
    assert asked("-q", f"SOPInstanceUID={stored[0].uid}", "-q", "Modality=C?") == 1
    assert asked("-q", "Modality=MR") == 0


@pytest.mark.parametrize("way", ["dicomweb", "c-get"])
def test_a_list_of_accession_numbers_is_a_query_each(way: str, archive: Orthanc, tmp_path: Path) -> None:
    cohort = tmp_path / "cohort.csv"
    cohort.write_text("AccessionNumber\nACC0\nACC2\nACC9\n")
    found = typed(tmp_path, *words(way, archive), "--list", str(cohort))
    assert (found["asked"], found["received"], found["queries_without_answer"]) == (16, 16, 1)


@pytest.mark.parametrize("way", ["dicomweb", "c-move"])
def test_what_the_archive_listed_but_does_not_have_any_more_is_told(way: str, stored: list[Instance], tmp_path: Path) -> None:
    (tmp_path / "orthanc").mkdir()
    *_, last = sorted(stored[:8], key=lambda each: (each.series, each.uid))
    report = tmp_path / "report.csv"
    with running(tmp_path / "orthanc") as archive:
        archive.store(*(each.content for each in stored[:8]))
        command = ["site", "import", "--into", str(tmp_path), *words(way, archive), "--everything", "--keep-free-gib", "0.1", "--json"]
        process = fedward(*command, "--per-second", "4", "--tries", "2", "--report", str(report), log=tmp_path / "log")
        with ending(process):
            wait_for(lambda: files_in(tmp_path), within_s=60)
            archive.forget(last.uid)
            assert process.wait(30) == 1
    found = json.loads((tmp_path / "log").read_text())
    assert (found["asked"], found["received"], found["failed"]) == (8, 7, {"not_found" if way == "dicomweb" else "pacs_error": 1})
    rows = list(csv.DictReader(report.read_text().splitlines()))
    assert [row["sop_instance_uid"] for row in rows if row["status"] == "failed"] == [last.uid]
    assert stat.S_IMODE(report.stat().st_mode) == 0o600


@pytest.mark.parametrize("way", WAYS)
def test_a_series_that_the_archive_cannot_read_costs_itself_and_no_other(way: str, stored: list[Instance], tmp_path: Path) -> None:
    (tmp_path / "orthanc").mkdir()
    with running(tmp_path / "orthanc", MaximumStorageCacheSize=0) as archive:
        archive.store(*(each.content for each in stored[:8]))
        lost = next(path for path in (tmp_path / "orthanc" / "storage").glob("??/??/*") if path.read_bytes() == stored[1].content)
        lost.unlink()
        found = typed(tmp_path, *words(way, archive), "--everything", "--tries", "2", fails=True)
    assert (found["asked"], found["received"], found["unlisted"]) == (4, 4, 1)


def test_an_instance_that_grew_at_the_archive_is_larger_than_allowed(archive: Orthanc, tmp_path: Path) -> None:
    big = instance("1.2.3.4", "1.2.3.5", pixels=np.zeros((900, 900), dtype=np.uint16))
    (tmp_path / "orthanc").mkdir()
    with running(tmp_path / "orthanc") as own:
        own.store(big.content)
        found = typed(tmp_path, "--dicomweb", own.web, "--everything", "--largest-mib", "1", fails=True)
    assert found["failed"] == {"too_large": 1}
    assert files_in(tmp_path) == []


def test_a_user_whom_the_archive_does_not_know_is_refused_by_name(stored: list[Instance], tmp_path: Path) -> None:
    (tmp_path / "orthanc").mkdir()
    secret = tmp_path / "auth"
    secret.write_text("alice:wrong\n")
    secret.chmod(0o600)
    with running(tmp_path / "orthanc", AuthenticationEnabled=True, RegisteredUsers={"alice": "right"}) as archive:
        archive.store(stored[0].content, user=("alice", "right"))
        command = ("--dicomweb", archive.web, "--auth-file", str(secret), "--everything")
        with pytest.raises(FedwardError, match="may not search") as refusal:
            typed(tmp_path, *command)
        secret.write_text("alice:right\n")
        assert typed(tmp_path, *command)["received"] == 1
    assert refusal.value.code == "E_PACS_REFUSED"


@pytest.mark.parametrize(
    ("titles", "said"),
    [(("ARCHIVE", "NOBODY"), "does not take calls from 'NOBODY'"), (("OTHER", OURS), "does not take calls from 'FEDWARD' for 'OTHER'")],
)
def test_an_ae_title_that_the_archive_does_not_know_is_refused_by_name(
    archive: Orthanc, tmp_path: Path, titles: tuple[str, str], said: str
) -> None:
    with pytest.raises(FedwardError, match=said) as refusal:
        typed(tmp_path, "--dimse", f"127.0.0.1:{archive.dicom}", "--called-aet", titles[0], "--aet", titles[1], "--everything")
    assert refusal.value.code == "E_PACS_REFUSED"


def test_an_archive_that_is_not_there_is_away(tmp_path: Path) -> None:
    nobody = free_port()
    for way in (["--dicomweb", f"http://127.0.0.1:{nobody}/dicom-web"], ["--dimse", f"127.0.0.1:{nobody}", "--called-aet", TITLE]):
        with pytest.raises(FedwardError) as refusal:
            typed(tmp_path, *way, "--everything", "--tries", "1")
        assert refusal.value.code == "E_PACS_AWAY"


def test_a_plain_line_to_another_computer_is_taken_only_when_somebody_says_so(tmp_path: Path) -> None:
    for way in (["--dicomweb", "http://192.0.2.1/dicom-web"], ["--dimse", "192.0.2.1:104", "--called-aet", TITLE]):
        with pytest.raises(InsecureLink, match="without TLS"):
            typed(tmp_path, *way, "--everything")


def test_a_damaged_journal_is_written_anew_from_the_files(archive: Orthanc, stored: list[Instance], tmp_path: Path) -> None:
    typed(tmp_path, "--dicomweb", archive.web, "--everything")
    journal = tmp_path / "import" / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole.replace(b'"sha256"', b'"sha25"', 1))
    found = typed(tmp_path, "--dicomweb", archive.web, "--everything")
    assert (found["journal_was_damaged"], found["received"], found["received_now"]) == (True, len(stored), 0)
    assert sorted(journal.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_a_file_that_was_lost_or_cut_is_fetched_again(archive: Orthanc, stored: list[Instance], tmp_path: Path) -> None:
    typed(tmp_path, "--dicomweb", archive.web, "--everything")
    lost, cut, *_ = files_in(tmp_path)
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    assert typed(tmp_path, "--dicomweb", archive.web, "--everything")["received_now"] == 2
    assert contents(tmp_path) == {each.content for each in stored}


def test_what_was_imported_is_what_the_site_reads(archive: Orthanc, stored: list[Instance], tmp_path: Path) -> None:
    """Nothing but instances below images/."""
    typed(tmp_path, "--dicomweb", archive.web, "--everything")
    listing = walk(tmp_path / "images")
    assert (len(listing.files), sum(listing.rejected.values())) == (len(stored), 0)

# SPDX-License-Identifier: Apache-2.0
"""A round is committed when the journal says so, and a journal knows its run."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import DiskFull, RunFolderTaken, StorageError
from common.secagg.terms import Kind
from server.absences import Absence
from server.counts import CountedRound
from server.journal import CommittedRound, Journal


def opened(folder: Path, plan: str = "p", session: bytes = b"s") -> Journal:
    return Journal(folder / "journal.sqlite", plan=plan, session=session, power_cut_safe=True)


def done(number: int) -> CommittedRound:
    return CommittedRound(
        round=number,
        attempt=0,
        sites=("north", "south"),
        missing=(Absence(site="west", why="E_SILENT"),),
        fallen=(Absence(site="south", why="E_SITE_FAILED"),),
        checkpoint=f"round-{number}.safetensors",
        sha256="0" * 64,
        seconds=1.5,
        update_norm=0.25,
    )


def test_a_committed_round_is_read_back_whole(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.open_round(1, model="m", cohort=["north", "south", "west"])
    journal.commit(done(1))
    journal.close()
    assert opened(tmp_path).committed() == [done(1)]


def test_the_session_outlives_the_coordinator(tmp_path: Path) -> None:
    opened(tmp_path, session=b"first").close()
    assert opened(tmp_path, session=b"second").session == b"first"


def test_an_open_round_keeps_its_attempt_so_that_sites_answer_again(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    assert journal.open_round(1, model="m", cohort=["north"]) == 0
    journal.close()
    assert opened(tmp_path).open_round(1, model="m", cohort=["north"]) == 0


def test_a_failed_round_gets_a_new_attempt(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.open_round(1, model="m", cohort=["north"])
    journal.reopen(1)
    assert journal.open_round(1, model="m", cohort=["north"]) == 1


def test_an_open_round_is_not_committed(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.open_round(1, model="m", cohort=["north"])
    assert journal.committed() == []


def test_a_committed_round_is_not_opened_again(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.open_round(1, model="m", cohort=["north"])
    journal.commit(done(1))
    with pytest.raises(StorageError, match="round 1 is 'committed'"):
        journal.open_round(1, model="m", cohort=["north"])


def test_another_plan_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, plan="p").close()
    with pytest.raises(RunFolderTaken, match="belongs to plan p"):
        opened(tmp_path, plan="q")


def test_two_coordinators_cannot_share_a_journal(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.open_round(1, model="m", cohort=["north"])
    second = (
        "import sys; from pathlib import Path; from server.journal import Journal\n"
        "Journal(Path(sys.argv[1]) / 'journal.sqlite', plan='p', session=b's', power_cut_safe=True)"
    )
    other = subprocess.run([sys.executable, "-c", second, str(tmp_path)], capture_output=True, text=True, check=False)
    assert other.returncode != 0
    assert "in use by another coordinator" in other.stderr
    journal.close()


COUNTED = CountedRound(
    round=3,
    kind=Kind.EVAL,
    attempt=1,
    sites=("north", "south"),
    missing=(Absence(site="west", why="E_POLICY"),),
    fallen=(Absence(site="south", why="E_SILENT"),),
    steps=(-5, 0, 2**40),
    seconds=0.5,
)


def test_what_was_counted_is_read_back_whole_and_in_order(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    failed = CountedRound(round=3, kind=Kind.STAT, attempt=1, failure="E_COHORT_TOO_SMALL")
    for counted in (COUNTED, replace(COUNTED, round=1), failed):
        journal.counts.open(counted.round, counted.kind)
        journal.counts.close(counted)
    journal.close()
    assert opened(tmp_path).counts.closed() == [replace(COUNTED, round=1), failed, COUNTED]


def test_a_count_that_was_open_goes_on_with_its_attempt_and_a_closed_one_stays_as_it_is(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.counts.open(3, Kind.EVAL)
    journal.counts.reopen(3, Kind.EVAL)
    journal.close()
    journal = opened(tmp_path)
    journal.counts.open(3, Kind.EVAL)
    assert journal.counts.attempt(3, Kind.EVAL) == 1
    assert journal.counts.closed() == []
    journal.counts.close(COUNTED)
    journal.counts.close(replace(COUNTED, steps=(1, 2, 3)))
    journal.counts.open(3, Kind.EVAL)
    assert journal.counts.closed() == [COUNTED]


def test_a_journal_without_room_says_so_by_name_and_keeps_what_it_had(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.open_round(1, model="ab", cohort=["north"])
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull, match="no room left"):
        journal.open_round(2, model="cd", cohort=["a hospital with a long name"] * 10_000)
    assert journal.open_cohort(1) == ["north"]
    assert journal.open_cohort(2) == []
    journal._db.execute("PRAGMA max_page_count = 1000000")
    journal.open_round(2, model="cd", cohort=["north"])
    journal.close()

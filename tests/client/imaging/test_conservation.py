# SPDX-License-Identifier: Apache-2.0
"""What an intake found and what training opens are the same, or a site does not train."""

import json
import stat
from pathlib import Path

import pytest

from client.imaging import conservation
from client.imaging.conservation import ACCOUNT_FILE
from client.imaging.rejection import Reason
from client.imaging.report import IntakeReport
from common.errors import DataError, SnapshotMismatch

REPORT = IntakeReport(seen=10, used=7, rejected={Reason.MODALITY: 2, Reason.TIMEOUT: 1})


def test_an_account_that_adds_up_lets_training_begin(tmp_path: Path) -> None:
    conservation.write(REPORT, tmp_path, found=7, left_out=2)
    conservation.check(tmp_path, cases=5)
    assert stat.S_IMODE((tmp_path / ACCOUNT_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize("cases", [4, 6, 0])
def test_a_case_lost_or_added_since_is_refused(cases: int, tmp_path: Path) -> None:
    conservation.write(REPORT, tmp_path, found=7, left_out=2)
    with pytest.raises(SnapshotMismatch, match=f"found 7 cases and 2 were left out, but {cases} are prepared"):
        conservation.check(tmp_path, cases=cases)


def test_files_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    conservation.write(REPORT, tmp_path, found=7, left_out=0)
    content = json.loads((tmp_path / ACCOUNT_FILE).read_text())
    (tmp_path / ACCOUNT_FILE).write_text(json.dumps({**content, "seen": 11}))
    with pytest.raises(DataError, match="11 files seen, but 7 used and 3 rejected"):
        conservation.check(tmp_path, cases=7)


def test_who_withdraws_later_is_left_out_of_the_same_account(tmp_path: Path) -> None:
    conservation.write(REPORT, tmp_path, found=7, left_out=1)
    known = conservation.read(tmp_path)
    assert known is not None
    conservation.carry(known, tmp_path, left_out=2)
    conservation.check(tmp_path, cases=4)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"rejected": {"E_NONE": 1}}', b'{"rejected": 3}'])
def test_a_damaged_account_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ACCOUNT_FILE).write_bytes(content)
    with pytest.raises(SnapshotMismatch, match="damaged"):
        conservation.check(tmp_path, cases=1)
    with pytest.raises(SnapshotMismatch, match="damaged"):
        conservation.carry(content, tmp_path, left_out=0)


def test_where_there_is_no_account_nothing_is_claimed(tmp_path: Path) -> None:
    conservation.check(tmp_path, cases=3)
    assert conservation.read(tmp_path) is None

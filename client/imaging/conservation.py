# SPDX-License-Identifier: Apache-2.0
"""No file is lost between a hospital's folder and its training: the intake's account lies beside what was prepared, and is checked there.

    files seen  = files used + files rejected          (report.py, whenever an account is made or read)
    cases found = cases prepared + cases left out      (here, before training; left out are those of patients who withdrew)

Counts and codes only, 0600 like everything in that folder. Data that were prepared by something else than a site's own intake, as
simulations do, have no account, and nothing is claimed of them.
"""

import json
from pathlib import Path
from typing import Final

from client.imaging.rejection import Reason
from client.imaging.report import IntakeReport
from common.durable import OWNER_ONLY, write_atomically
from common.errors import SnapshotMismatch

ACCOUNT_FILE: Final = "intake.json"


def write(report: IntakeReport, folder: Path, *, found: int, left_out: int) -> None:
    """Put an account beside prepared data. Raises: DiskFull."""
    content = {
        "seen": report.seen,
        "used": report.used,
        "rejected": {reason.value: count for reason, count in report.rejected.items()},
        "cases_found": found,
        "cases_left_out": left_out,
    }
    write_atomically(folder / ACCOUNT_FILE, json.dumps(content).encode(), fsync=False, mode=OWNER_ONLY)


def read(folder: Path) -> bytes | None:
    """The account as it lies there, for `carry`."""
    path = folder / ACCOUNT_FILE
    return path.read_bytes() if path.is_file() else None


def carry(account: bytes, folder: Path, *, left_out: int) -> None:
    """The account of data of which more cases are left out now, without a new intake. Raises: SnapshotMismatch, DiskFull."""
    try:
        content = json.loads(account)
        content["cases_left_out"] += left_out
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged() from error
    write_atomically(folder / ACCOUNT_FILE, json.dumps(content).encode(), fsync=False, mode=OWNER_ONLY)


def check(folder: Path, *, cases: int) -> None:
    """Whether so many prepared cases are what the account lets expect. Raises: SnapshotMismatch, DataError."""
    content = read(folder)
    if content is None:
        return
    try:
        account = json.loads(content)
        rejected = {Reason(reason): int(count) for reason, count in account["rejected"].items()}
        IntakeReport(seen=int(account["seen"]), used=int(account["used"]), rejected=rejected)
        found, left_out = int(account["cases_found"]), int(account["cases_left_out"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged() from error
    if cases != found - left_out:
        raise SnapshotMismatch(
            f"the intake found {found} cases and {left_out} were left out, but {cases} are prepared.",
            fix="Some were lost or added since. Take a new snapshot: fedward site snapshot --help.",
        )


def _damaged() -> SnapshotMismatch:
    return SnapshotMismatch("the account of the last intake is damaged.", fix="Take a new snapshot: fedward site snapshot --help.")

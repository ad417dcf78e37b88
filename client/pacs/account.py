# SPDX-License-Identifier: Apache-2.0
"""The account of an import: asked = received + failed, each failure with a reason.

Counts and words are all that is printed. What happened to which instance is in the report, a CSV with UIDs for the operator alone (0600):
whoever may ask the archive can find a patient by a UID.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from client.pacs.archive import Gaps
from client.pacs.failure import REMEDY, Reason
from client.pacs.journal import Arrived
from client.pacs.wanted import Wanted
from common.durable import OWNER_ONLY, write_atomically
from common.errors import FedwardError, PacsError

COLUMNS: Final = ("status", "reason", "file", "bytes", "sha256", "sop_instance_uid", "series_instance_uid", "study_instance_uid")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Line:
    """What became of one instance: it has come, now or before, or it has not, for a reason."""

    wanted: Wanted
    came: Literal["now", "before"] | None
    arrived: Arrived | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Counts. `gaps` are about what was not asked for; `without_answer` about queries that nothing matches."""

    asked: int
    before: int
    now: int
    failed: Mapping[Reason, int]
    gaps: Gaps
    without_answer: int

    def __post_init__(self) -> None:
        if self.asked != self.before + self.now + sum(self.failed.values()) or min([self.before, self.now, *self.failed.values()]) < 0:
            raise PacsError(
                f"import: {self.asked} asked for, but {self.before + self.now} received and {sum(self.failed.values())} failed.",
                fix="This is a fault in fedward; what has come is whole. Please report the three numbers.",
            )

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; reasons sorted by how many instances they cost."""
        return {
            "asked": self.asked,
            "received": self.before + self.now,
            "received_now": self.now,
            "failed": {reason.value: count for reason, count in self._by_count()},
            "contradicting": self.gaps.contradicting,
            "unlisted": self.gaps.unlisted,
            "queries_without_answer": self.without_answer,
        }

    def lines(self) -> list[str]:
        """For people."""
        told = [
            f"{self.asked} instances asked for: {self.before + self.now} received ({self.before} of them before), "
            f"{sum(self.failed.values())} failed",
            *(f"{count:>7} {reason.value}: {REMEDY[reason]}" for reason, count in self._by_count()),
        ]
        if self.gaps.unlisted:
            told.append(f"{self.gaps.unlisted:>7} studies or series could not be listed by the archive; its log says more")
        if self.gaps.contradicting:
            told.append(f"{self.gaps.contradicting:>7} answers of the archive contradict the query; they were not followed")
        if self.without_answer:
            told.append(f"{self.without_answer:>7} queries had no answer: nothing in the archive, or nothing that this user may see")
        return told

    def _by_count(self) -> list[tuple[Reason, int]]:
        return sorted(self.failed.items(), key=lambda pair: (-pair[1], pair[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """How an import ended. `stopped` is why it ended early, if it did."""

    lines: Sequence[Line]
    gaps: Gaps
    without_answer: int
    stopped: FedwardError | None = None

    @property
    def account(self) -> Account:
        came = Counter(line.came for line in self.lines)
        return Account(
            asked=len(self.lines),
            before=came["before"],
            now=came["now"],
            failed=Counter(line.reason for line in self.lines if line.reason is not None),
            gaps=self.gaps,
            without_answer=self.without_answer,
        )

    @property
    def is_complete(self) -> bool:
        return self.stopped is None and not self.gaps.unlisted and all(line.reason is None for line in self.lines)

    def write_report(self, path: Path) -> None:
        """One row for each instance, for the operator's eyes. Raises: DiskFull."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(_row(line) for line in self.lines)
        write_atomically(path, text.getvalue().encode(), fsync=False, mode=OWNER_ONLY)


def _row(line: Line) -> tuple[str | int, ...]:
    here, wanted = line.arrived, line.wanted
    found = (f"{here.name[:2]}/{here.name}.dcm", here.size, here.sha256) if here else ("", "", "")
    return ("failed" if line.came is None else "received", line.reason or "", *found, wanted.instance, wanted.series, wanted.study)

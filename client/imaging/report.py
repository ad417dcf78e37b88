# SPDX-License-Identifier: Apache-2.0
"""The account of an intake: files in = images used + files rejected, each with a reason.

Counts and codes only: this is what may be printed. The equation is checked when a report is made, so an intake that lost a file cannot
finish quietly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.imaging.rejection import REMEDY, Reason
from common.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeReport:
    """`seen` files (or rows of an index), `used` of them, the others by reason. `unmatched_labels`: those without a used image."""

    seen: int
    used: int
    rejected: Mapping[Reason, int]
    unmatched_labels: int = 0

    def __post_init__(self) -> None:
        if self.seen != self.used + sum(self.rejected.values()) or min([self.used, *self.rejected.values()]) < 0:
            raise DataError(
                f"intake: {self.seen} files seen, but {self.used} used and {sum(self.rejected.values())} rejected.",
                fix="This is a fault in fedward; nothing was used. Please report the three numbers.",
            )

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: counts, reasons sorted by how many files they cost."""
        return {
            "seen": self.seen,
            "used": self.used,
            "rejected": dict(
                sorted(((reason.value, count) for reason, count in self.rejected.items()), key=lambda pair: (-pair[1], pair[0]))
            ),
            "unmatched_labels": self.unmatched_labels,
        }

    def lines(self) -> list[str]:
        """For people: one line for the sum, one for each reason with what to do about it."""
        reasons = sorted(self.rejected.items(), key=lambda pair: (-pair[1], pair[0]))
        return [
            f"{self.seen} files seen: {self.used} used, {self.seen - self.used} rejected",
            *(f"{count:>7} {reason.value}: {REMEDY[reason]}" for reason, count in reasons if count),
        ]

# SPDX-License-Identifier: Apache-2.0
"""The account of an intake: files in = images used + files rejected, each with a reason.

Counts and codes only: this is what may be printed. The equation is checked when a report is made, so an intake that lost a file cannot
finish quietly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.imaging.labels.account import LabelAccount
from client.imaging.rejection import REMEDY, Reason
from common.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeReport:
    """`seen` files (or rows of an index), `used` of them, the others by reason. `unmatched_labels`: those without a used image.

    `images`: what the model is shown of the used files, where that is not one each; `skipped`: frames of theirs that showed nothing;
    `unshown`: frames of theirs that the plan passes over, as it shows evenly many of a case. `cases`: how many rows the images make, where
    a plan shows several together. `lost_seconds`: second images that are named and cannot be read.
    """

    seen: int
    used: int
    rejected: Mapping[Reason, int]
    unmatched_labels: int = 0
    labels: LabelAccount | None = None
    images: int | None = None
    skipped: int = 0
    unshown: int = 0
    cases: int | None = None
    lost_seconds: int = 0

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
            **({} if self.labels is None else {"labels": self.labels.as_dict()}),
            "images": self.used if self.images is None else self.images,
            "skipped_frames": self.skipped,
            **({"unshown_frames": self.unshown} if self.unshown else {}),
            **({} if self.cases is None else {"cases": self.cases}),
            **({"lost_second_images": self.lost_seconds} if self.lost_seconds else {}),
        }

    def lines(self) -> list[str]:
        """For people: one line for the sum, one for each reason with what to do about it."""
        reasons = sorted(self.rejected.items(), key=lambda pair: (-pair[1], pair[0]))
        return [
            f"{self.seen} files seen: {self.used} used, {self.seen - self.used} rejected",
            *(
                [
                    f"{self.images:>7} images of the used files are shown to the model; left out: {self.skipped} frames that show nothing"
                    + (f", {self.unshown} that the plan's [input] sequence passes over" if self.unshown else "")
                ]
                if self.images is not None
                else []
            ),
            *([] if self.cases is None else [f"{self.cases:>7} cases of several images, of which the plan shows evenly many together"]),
            *(
                [f"{self.lost_seconds:>7} second images that the index names cannot be read: these patients are taken as having none"]
                if self.lost_seconds
                else []
            ),
            *(f"{count:>7} {reason.value}: {REMEDY[reason]}" for reason, count in reasons if count),
            *([] if self.labels is None else self.labels.lines()),
        ]

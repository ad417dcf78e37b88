# SPDX-License-Identifier: Apache-2.0
"""The rows of an inventory and what they add up to: a file each, used or not, and why.

What is counted may be printed; paths and facts may not, and stay in the site's own list.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from tempfile import TemporaryFile
from typing import Any

from client.imaging.labels.account import LabelAccount
from client.imaging.readers import Outcome, Task, read_all
from client.imaging.rejection import Reason
from client.imaging.report import IntakeReport
from client.imaging.request import Request
from client.imaging.volumes import Slice, sort_slices
from client.imaging.worker import Brief

SOUND = (None, Reason.NOT_SHOWN)
"""Why a file is not used that nothing is wrong with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file: its path below the root, why it is not used (None: it is), and what was found in it.

    `images`: how many of its images the model is shown.
    """

    path: str = field(repr=False)
    reason: Reason | None
    facts: Mapping[str, Any] = field(repr=False, default_factory=dict)
    patient: int | None = None
    series: int | None = None
    note: str = ""
    images: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is countable about the files that would be used, beside how many they are."""

    images: int
    patients: int
    under_two_issuers: int
    series: int
    series_with_gaps: int
    missing_slices: int
    duplicate_slices: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """A folder, examined. `has_labels`: whether labels were there to count by."""

    rows: tuple[Row, ...] = field(repr=False)
    report: IntakeReport
    findings: Findings
    has_labels: bool


def examine(request: Request, brief: Brief, paths: Sequence[str]) -> list[Outcome]:
    tasks = [Task(slot=slot, path=path) for slot, path in enumerate(paths)]
    with TemporaryFile() as nothing:  # a reader has an output, and these write none
        return read_all(request.root, nothing.fileno(), brief, tasks, workers=request.workers, progress=request.progress)


def reason_of(outcome: Outcome) -> Reason | None:
    told = outcome.reason or (outcome.told or {}).get("reason")
    return None if told is None else Reason(told)


def one_each(items: Sequence[Any], places: Sequence[Sequence[float | None]]) -> tuple[list[int], list[float | None]]:
    """For each image the number of its file, and its place."""
    numbers = [number for number, of_item in enumerate(places) for _ in of_item]
    return numbers, [place for of_item in places for place in of_item]


def shown_of(row: Row, images: int) -> Row:
    """A sound file of which so many images are shown."""
    return replace(row, images=images, reason=None if images else Reason.NOT_SHOWN)


def inventory_of(
    rows: Sequence[Row],
    *,
    has_labels: bool,
    unmatched: int,
    account: LabelAccount | None = None,
    cases: int | None = None,
    lost_seconds: int = 0,
) -> Inventory:
    used = [row for row in rows if row.reason is None]
    images, read = sum(row.images for row in used), [row for row in rows if row.reason in SOUND]
    report = IntakeReport(
        seen=len(rows),
        used=len(used),
        rejected=Counter(row.reason for row in rows if row.reason is not None),
        unmatched_labels=unmatched,
        labels=account,
        images=images if any(row.facts.get("images", 1) > 1 for row in read) else None,
        skipped=sum(row.facts.get("skipped", 0) for row in read),
        unshown=sum(row.facts.get("images", 1) for row in used) - images,
        cases=cases,
        lost_seconds=lost_seconds,
    )
    return Inventory(rows=tuple(rows), report=report, findings=_findings(read, images), has_labels=has_labels)


def _findings(read: Sequence[Row], images: int) -> Findings:
    of_series: defaultdict[int, list[Slice[tuple[int, int]]]] = defaultdict(list)
    for number, row in enumerate(read):
        for frame, (normal, place) in enumerate(row.facts.get("slices", ())):
            if row.series is not None:
                of_series[row.series].append(
                    Slice(name=(number, frame), normal=None if normal is None else (normal[0], normal[1], normal[2]), place_mm=place)
                )
    volumes = [sort_slices(slices) for slices in of_series.values()]
    return Findings(
        images=images,
        patients=len({row.patient for row in read if row.patient is not None}),
        under_two_issuers=len({row.patient for row in read if row.note}),
        series=len({row.series for row in read if row.series is not None}),
        series_with_gaps=sum(any(volume.missing for volume in each) for each in volumes),
        missing_slices=sum(volume.missing for each in volumes for volume in each),
        duplicate_slices=sum(volume.duplicates for each in volumes for volume in each),
    )

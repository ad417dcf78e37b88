# SPDX-License-Identifier: Apache-2.0
"""Every file of a folder accounted for, one by one: what an intake would say of it, and why, before anyone trains.

    fedward site check-data -> list -> examine each file in a limited process -> a row each -> counts, and the site's own list

The verdict on a file is the intake's own, by the same code in the same order. What is counted may be printed. The rows hold paths, and so
perhaps names: they go into a file for the site alone (0600), and nowhere else. Identifiers are in neither: patients and series are
numbered in the order of the listing, with a secret that is thrown away afterwards.
"""

import secrets
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from client.imaging import dicom_folder, index, picture_folder, slots
from client.imaging.identity import SECRET_BYTES, PatientSecret, patient_key
from client.imaging.index import Index, Item
from client.imaging.labels import LABELS, RULES, Labels, plain_path
from client.imaging.labels.account import LabelAccount
from client.imaging.listing import Listing
from client.imaging.readers import Outcome, Progress, Task, read_all
from client.imaging.rejection import Reason
from client.imaging.report import IntakeReport
from client.imaging.request import Request, list_folder
from client.imaging.volumes import Slice, sort_slices
from client.imaging.worker import Brief, Limits
from common.errors import DataNotFound
from common.plan import DetectionSpec, Plan, SegmentationSpec

NO_CACHE = Path()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One file: its path below the root, why it is not used (None: it is), and what was found in it."""

    path: str = field(repr=False)
    reason: Reason | None
    facts: Mapping[str, Any] = field(repr=False, default_factory=dict)
    patient: int | None = None
    series: int | None = None
    note: str = ""


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


def take(
    root: Path,
    plan: Plan,
    *,
    labels_file: Path | None = None,
    accept_burned_in: bool = False,
    limits: Limits | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Inventory:
    """Examine every file below `root` for a plan. Without labels there, files are examined as if each had one.

    Guarantees: one row for each file; report.seen == report.used + rejected, or DataError.
    Raises: DataNotFound, DataUnreadable, LabelsMismatch.
    """
    if not root.is_dir():
        raise DataNotFound(f"data folder '{root}' does not exist.", fix="Give the folder that holds the images.")
    request = Request(
        root=root,
        name=f"data folder '{root}'",
        plan=plan,
        cache=NO_CACHE,
        secret=PatientSecret(value=secrets.token_bytes(SECRET_BYTES)),
        limits=limits or Limits(),
        workers=workers,
        progress=progress,
        accept_burned_in=accept_burned_in,
    )
    if labels_file is None and (index_file := index.of_pictures(root)) is not None:
        return _of_pictures(request, index_file)
    rules_file = root / RULES
    usual = rules_file if rules_file.is_file() else root / LABELS
    return _of_dicom(request, labels_file or usual, must_exist=labels_file is not None)


def _of_dicom(request: Request, labels_file: Path, *, must_exist: bool) -> Inventory:
    dicom_folder.require_dicom(request.plan)
    listing = list_folder(request, skip=labels_file)
    has_labels = must_exist or labels_file.is_file()
    return examine_dicom(request, listing, dicom_folder.labels_of(request, listing, labels_file) if has_labels else None)


def examine_dicom(request: Request, listing: Listing, table: Labels | None) -> Inventory:
    """Every file of a listing, by the labels that are there; as if each had one, where there are none."""
    wanted = frozenset(table.by_item) if table is not None and table.key == "sop_instance_uid" else None
    brief = Brief(
        kind="inventory", input=request.plan.input, limits=request.limits, wanted=wanted, accept_burned_in=request.accept_burned_in
    )
    outcomes = _examine(request, brief, [file.path for file in listing.files])
    rows = [Row(path=path, reason=reason) for path, reason in listing.unopened]
    rows += _rows(request, table, [file.path for file in listing.files], outcomes)
    if table is None:
        return _inventory(rows, has_labels=False, unmatched=0)
    used = sum(row.reason is None for row in rows)
    return _inventory(rows, has_labels=True, unmatched=len(table.by_item) - used, account=table.account)


def _of_pictures(request: Request, index_file: Path) -> Inventory:
    """The rows of an index are accounted for, and every picture that no row names."""
    table = index.read(index_file, request.plan)
    left_out = index.unlisted(table, list_folder(request, skip=index_file))
    names = [item.name for item in table.items]
    outcomes = _examine_pictures(request, table)
    beside = _unusable_beside(request, table.items)
    keys = [picture_folder.patient_key_of(request, table, item) for item in table.items]
    numbers = _numbered(keys)
    rows = [Row(path="", reason=reason) for reason, count in table.rejected.items() for _ in range(count)]
    rows += [
        Row(
            path=name,
            reason=_reason(outcome) or beside.get(number),
            facts=outcome.told or {},
            patient=numbers[key],
        )
        for number, (name, outcome, key) in enumerate(zip(names, outcomes, keys, strict=True))
    ]
    rows += [Row(path=path, reason=Reason.NOT_LISTED) for path in left_out]
    return _inventory(rows, has_labels=True, unmatched=0)


def _examine_pictures(request: Request, table: Index) -> list[Outcome]:
    """Files are opened; rows of an archive are there or not; lines without an image need nothing."""
    brief = Brief(kind="picture inventory", input=request.plan.input, limits=request.limits, wanted=None)
    if table.key == "file":
        return _examine(request, brief, [item.name for item in table.items])
    there = len(picture_folder.unpack(request)) if table.key == "row" else None
    missing = [there is not None and int(item.name) >= there for item in table.items]
    return [Outcome(slot=0, reason=Reason.NO_FILE if lost else None, identity=None) for lost in missing]


def _unusable_beside(request: Request, items: Sequence[Item]) -> dict[int, Reason]:
    """Which items lack what they cannot do without, a mask or boxes that fit, and why; by the intake's own judgement."""
    task = request.plan.task
    if isinstance(task, DetectionSpec):
        return picture_folder.unfit_boxes(request, items)
    if not isinstance(task, SegmentationSpec):
        return {}
    paths = [plain_path(item.cells[task.mask_column]) for item in items]
    wanted = [number for number, path in enumerate(paths) if path and not picture_folder.is_volume(items[number])]
    brief = Brief(kind="mask", input=replace(request.plan.input, channels=1), limits=request.limits, wanted=None)
    with TemporaryFile() as output:
        tasks = [Task(slot=slot, path=paths[number]) for slot, number in enumerate(wanted)]
        read = read_all(request.root, output.fileno(), brief, tasks, workers=request.workers, progress=request.progress)
        shape = (1, request.plan.input.height, request.plan.input.width)
        beyond = {
            number: Reason.MASK_VALUES
            for number, outcome in zip(wanted, read, strict=True)
            if outcome.reason is None and not picture_folder.is_of_classes(slots.read(output.fileno(), outcome.slot, shape), task)
        }
    usable = {number for number, outcome in zip(wanted, read, strict=True) if outcome.reason is None}
    return {**{number: Reason.NO_MASK for number in range(len(items)) if number not in usable}, **beyond}


def _examine(request: Request, brief: Brief, paths: Sequence[str]) -> list[Outcome]:
    tasks = [Task(slot=slot, path=path) for slot, path in enumerate(paths)]
    with TemporaryFile() as nothing:  # a reader has an output, and these write none
        return read_all(request.root, nothing.fileno(), brief, tasks, workers=request.workers, progress=request.progress)


def _reason(outcome: Outcome) -> Reason | None:
    told = outcome.reason or (outcome.told or {}).get("reason")
    return None if told is None else Reason(told)


def _rows(request: Request, table: Labels | None, paths: Sequence[str], outcomes: Sequence[Outcome]) -> list[Row]:
    """In the order of the listing, as an intake goes through it: the first of two copies counts."""
    rows: list[Row] = []
    known: set[str] = set()
    patients: dict[str, int] = {}
    series: dict[str, int] = {}
    for path, outcome in zip(paths, outcomes, strict=True):
        facts, reason = outcome.told or {}, _reason(outcome)
        if table is not None and table.key == "path" and path not in table.by_item:
            reason = table.known.get(path, Reason.NO_LABEL)
        if reason is not None:
            rows.append(Row(path=path, reason=reason, facts=facts))
            continue
        issuer, patient_id, item, of_series = facts["whose"]
        patient = patients.setdefault(patient_key(request.secret, issuer, patient_id), len(patients) + 1)
        number = series.setdefault(of_series or item, len(series) + 1)
        reason = Reason.DUPLICATE if item in known else None
        known.add(item)
        rows.append(Row(path=path, reason=reason, facts=facts, patient=patient, series=number))
    return _noted(request, rows)


def _noted(request: Request, rows: Sequence[Row]) -> list[Row]:
    """The same PatientID under two issuers is two patients here, and perhaps one person."""
    issuers: defaultdict[str, set[str]] = defaultdict(set)
    ids = [patient_key(request.secret, "", row.facts["whose"][1]) if row.reason is None else "" for row in rows]
    for key, row in zip(ids, rows, strict=True):
        if key:
            issuers[key].add(row.facts["whose"][0].strip())
    return [
        Row(
            path=row.path,
            reason=row.reason,
            facts={name: fact for name, fact in row.facts.items() if name != "whose"},
            patient=row.patient,
            series=row.series,
            note=f"PatientID stands under {len(issuers[key])} issuers" if key and len(issuers[key]) > 1 else "",
        )
        for key, row in zip(ids, rows, strict=True)
    ]


def _numbered(keys: Sequence[str]) -> dict[str, int]:
    return {key: number for number, key in enumerate(dict.fromkeys(keys), start=1)}


def _inventory(rows: Sequence[Row], *, has_labels: bool, unmatched: int, account: LabelAccount | None = None) -> Inventory:
    used = [row for row in rows if row.reason is None]
    images = sum(row.facts.get("images", 1) for row in used)
    report = IntakeReport(
        seen=len(rows),
        used=len(used),
        rejected=Counter(row.reason for row in rows if row.reason is not None),
        unmatched_labels=unmatched,
        labels=account,
        images=images if images > len(used) else None,
        skipped=sum(row.facts.get("skipped", 0) for row in used),
    )
    return Inventory(rows=tuple(rows), report=report, findings=_findings(used, images), has_labels=has_labels)


def _findings(used: Sequence[Row], images: int) -> Findings:
    of_series: defaultdict[int, list[Slice[tuple[int, int]]]] = defaultdict(list)
    for number, row in enumerate(used):
        for frame, (normal, place) in enumerate(row.facts.get("slices", ())):
            if row.series is not None:
                of_series[row.series].append(
                    Slice(name=(number, frame), normal=None if normal is None else (normal[0], normal[1], normal[2]), place_mm=place)
                )
    volumes = [sort_slices(slices) for slices in of_series.values()]
    return Findings(
        images=images,
        patients=len({row.patient for row in used if row.patient is not None}),
        under_two_issuers=len({row.patient for row in used if row.note}),
        series=len({row.series for row in used if row.series is not None}),
        series_with_gaps=sum(any(volume.missing for volume in each) for each in volumes),
        missing_slices=sum(volume.missing for each in volumes for volume in each),
        duplicate_slices=sum(volume.duplicates for each in volumes for volume in each),
    )

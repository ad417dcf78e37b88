# SPDX-License-Identifier: Apache-2.0
"""Every file of a folder accounted for, one by one: what an intake would say of it, and why, before anyone trains.

    fedward site check-data -> list -> examine each file in a limited process -> a row each -> counts, and the site's own list

The verdict on a file is the intake's own, by the same code in the same order. What is counted may be printed. The rows hold paths, and so
perhaps names: they go into a file for the site alone (0600), and nowhere else. Identifiers are in neither: patients and series are
numbered in the order of the listing, with a secret that is thrown away afterwards.
"""

import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.imaging import cases, dicom_folder, index, picture_inventory
from client.imaging.identity import SECRET_BYTES, PatientSecret, patient_key
from client.imaging.labels import LABELS, RULES, Labels
from client.imaging.listing import Listing
from client.imaging.readers import Outcome, Progress
from client.imaging.rejection import Reason
from client.imaging.request import Request, list_folder
from client.imaging.rows import SOUND, Inventory, Row, examine, inventory_of, one_each, reason_of, shown_of
from client.imaging.worker import Brief, Limits
from common.errors import DataNotFound
from common.plan import Plan, SegmentationSpec

NO_CACHE = Path()


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
    if labels_file is None and (table := index.of_pictures(root)) is not None:
        return picture_inventory.take(request, table)
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
    outcomes = examine(request, brief, [file.path for file in listing.files])
    rows = [Row(path=path, reason=reason) for path, reason in listing.unopened]
    rows += _rows(request, table, [file.path for file in listing.files], outcomes)
    cases_of, rows = _in_cases(request, table, rows)
    rows = _noted(request, rows)
    if table is None:
        return inventory_of(rows, has_labels=False, unmatched=0, cases=cases_of)
    read = sum(row.reason in SOUND for row in rows)
    return inventory_of(rows, has_labels=True, unmatched=len(table.by_item) - read, account=table.account, cases=cases_of)


def _in_cases(request: Request, table: Labels | None, rows: Sequence[Row]) -> tuple[int | None, list[Row]]:
    """Under a plan that shows several images of a series together: how many cases there are, and which files none is shown of.

    Raises: LabelsMismatch, if images of one case are not labelled alike.
    """
    plan = request.plan
    if plan.input.sequence == 1:
        return None, list(rows)
    used = [row for row in rows if row.reason is None]
    items, places = one_each(used, [row.facts["places"] for row in used])
    found = cases.by_series(
        [str(used[item].patient) for item in items], list(map(str, items)), [str(used[item].series) for item in items], places
    )
    if isinstance(plan.task, SegmentationSpec):
        return len(items), list(rows)
    if table is not None:
        truth = [table.by_item[row.path if table.key == "path" else row.facts["whose"][2]] for row in used]
        cases.require_one_truth(found, [truth[item] for item in items], where="labels")
    shown = Counter(items[row] for row in np.unique(cases.evenly(found, plan.input.sequence)).tolist())
    left = iter(shown_of(row, shown[number]) for number, row in enumerate(used))
    return len(found), [next(left) if row.reason is None else row for row in rows]


def _rows(request: Request, table: Labels | None, paths: Sequence[str], outcomes: Sequence[Outcome]) -> list[Row]:
    """In the order of the listing, as an intake goes through it: the first of two copies counts."""
    rows: list[Row] = []
    known: set[str] = set()
    patients: dict[str, int] = {}
    series: dict[str, int] = {}
    for path, outcome in zip(paths, outcomes, strict=True):
        facts, reason = outcome.told or {}, reason_of(outcome)
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
        rows.append(Row(path=path, reason=reason, facts=facts, patient=patient, series=number, images=facts["images"]))
    return rows


def _noted(request: Request, rows: Sequence[Row]) -> list[Row]:
    """The same PatientID under two issuers is two patients here, and perhaps one person."""
    issuers: defaultdict[str, set[str]] = defaultdict(set)
    ids = [patient_key(request.secret, "", row.facts["whose"][1]) if row.reason in SOUND else "" for row in rows]
    for key, row in zip(ids, rows, strict=True):
        if key:
            issuers[key].add(row.facts["whose"][0].strip())
    return [
        replace(
            row,
            facts={name: fact for name, fact in row.facts.items() if name != "whose"},
            note=f"PatientID stands under {len(issuers[key])} issuers" if key and len(issuers[key]) > 1 else "",
        )
        for key, row in zip(ids, rows, strict=True)
    ]

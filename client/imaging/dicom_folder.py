# SPDX-License-Identifier: Apache-2.0
"""A folder of DICOM files and its labels, as a `Dataset`.

Every file below the root is read for its identity; those with a label are decoded into the cache. Whose image a file is comes from the
file alone, its label from the CSV alone, and the two meet over a keyed name.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from client.imaging import cache, labels
from client.imaging.cache import Cached, Contents
from client.imaging.dataset import Dataset, Images
from client.imaging.identity import PatientSecret, item_key, patient_key
from client.imaging.labels import Labels
from client.imaging.listing import Listing
from client.imaging.readers import Outcome, Task, read_all
from client.imaging.rejection import Reason
from client.imaging.report import IntakeReport
from client.imaging.request import Request, list_folder, nothing_usable
from client.imaging.splits import split_of
from client.imaging.worker import Brief
from common.errors import DataError, LabelsMismatch


def open_folder(request: Request, labels_file: Path) -> tuple[Dataset, IntakeReport]:
    """Read, or find in the cache, every labelled image. Raises: LabelsMismatch, DataNotFound, DataUnreadable, DiskFull."""
    table = labels.read(labels_file, request.plan.task)
    listing = list_folder(request, skip=labels_file)
    tasks, unlabelled = _tasks(listing, table)
    cached = cache.open_or_build(
        request.cache,
        request.cache_key(listing, table.key, *sorted(table.by_item)),
        request.shape,
        lambda output: _fill(request, table, tasks, listing.rejected + unlabelled, output),
        capacity=min(len(tasks), len(table.by_item)),
    )
    return _join(request, table, cached)


def _tasks(listing: Listing, table: Labels) -> tuple[list[Task], Counter[Reason]]:
    """What to open. Labels by path say beforehand which files are worth it; labels by UID only once a header is read."""
    paths = [file.path for file in listing.files if table.key != "path" or file.path in table.by_item]
    unlabelled = Counter({Reason.NO_LABEL: len(listing.files) - len(paths)})
    return [Task(slot=slot, path=path) for slot, path in enumerate(paths)], +unlabelled


def _fill(request: Request, table: Labels, tasks: Sequence[Task], rejected: Counter[Reason], output: int) -> Contents:
    brief = Brief(
        kind="dicom",
        input=request.plan.input,
        limits=request.limits,
        wanted=frozenset(table.by_item) if table.key == "sop_instance_uid" else None,
    )
    outcomes = read_all(request.root, output, brief, tasks, workers=request.workers, progress=request.progress)
    contents = _contents(request.secret, table, tasks, outcomes, rejected)
    if not contents.slots:
        raise _why_nothing(request.name, table, contents.rejected)
    return contents


def _contents(
    secret: PatientSecret, table: Labels, tasks: Sequence[Task], outcomes: Sequence[Outcome], rejected: Counter[Reason]
) -> Contents:
    """Identifiers become keyed names here, and go no further."""
    rejected = rejected.copy()
    rows: dict[str, tuple[int, str, str]] = {}  # by SOPInstanceUID: a copy of an image is not a second image
    for task, outcome in zip(tasks, outcomes, strict=True):
        identity = outcome.identity
        if identity is None:
            rejected[outcome.reason or Reason.CRASHED] += 1
        elif identity.sop_instance_uid in rows:
            rejected[Reason.DUPLICATE] += 1
        else:
            name = task.path if table.key == "path" else identity.sop_instance_uid
            patient = patient_key(secret, identity.issuer, identity.patient_id)
            rows[identity.sop_instance_uid] = (outcome.slot, item_key(secret, table.key, name), patient)
    slots, items, patients = zip(*rows.values(), strict=True) if rows else ((), (), ())
    return Contents(slots=slots, items=items, patients=patients, seen=len(rows) + rejected.total(), rejected=rejected)


def _join(request: Request, table: Labels, cached: Cached) -> tuple[Dataset, IntakeReport]:
    by_key = {item_key(request.secret, table.key, name): label for name, label in table.by_item.items()}
    label_of_row = [by_key[item] for item in cached.items]
    labels.check_classes(label_of_row, request.plan.task)
    patient_keys, patients = np.unique(np.array(cached.patients), return_inverse=True)
    keys = tuple(map(str, patient_keys))
    split_of_patient = np.array([split_of(key, request.fractions) for key in keys], dtype=np.int8)
    dataset = Dataset(
        images=Images(cached.images, np.arange(len(cached.items))),
        labels=np.array(label_of_row, dtype=np.int64),
        patients=patients.astype(np.int32),
        patient_keys=keys,
        splits=split_of_patient[patients],
        unit_source="patient_id",
    )
    report = IntakeReport(
        seen=cached.seen, used=len(dataset), rejected=cached.rejected, unmatched_labels=len(table.by_item) - len(set(cached.items))
    )
    return dataset, report


def _why_nothing(name: str, table: Labels, rejected: Counter[Reason]) -> DataError:
    if not rejected[Reason.NO_LABEL]:
        return nothing_usable(name, rejected)
    others = ", ".join(f"{reason.value} {count}" for reason, count in rejected.most_common() if reason is not Reason.NO_LABEL)
    looked = f"{rejected[Reason.NO_LABEL]} readable files looked for theirs by column '{table.key}'"
    paths_or_uids = "their paths start below it" if table.key == "path" else "their UIDs are SOPInstanceUIDs (0008,0018)"
    return LabelsMismatch(
        f"labels: {len(table.by_item)} images are labelled in column '{table.column}', {rejected.total()} files lie in {name}, "
        f"and not one file has a label ({looked}{'; ' + others if others else ''}).",
        fix=f"Check that the labels belong to this folder, and that {paths_or_uids}.",
    )

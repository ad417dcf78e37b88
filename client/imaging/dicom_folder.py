# SPDX-License-Identifier: Apache-2.0
"""A folder of DICOM files and its labels, as a `Dataset`.

Every file below the root is read for its identity; those with a label are decoded into the cache. Whose image a file is comes from the
file alone, its label from the CSV alone, and the two meet over a keyed name.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from client.imaging import cache, cases, labels
from client.imaging.cache import Cached, Contents
from client.imaging.dataset import Dataset, Images, whole
from client.imaging.identity import PatientSecret, item_key, patient_key
from client.imaging.labels import Labels
from client.imaging.labels.gather import gather
from client.imaging.labels.gather_masks import gather_masks
from client.imaging.labels.memory import Memory
from client.imaging.labels.survey import Surveyor, in_children
from client.imaging.listing import Listing
from client.imaging.readers import Outcome, Task, read_all, roomy
from client.imaging.rejection import Reason
from client.imaging.report import IntakeReport
from client.imaging.request import Request, list_folder, nothing_usable
from client.imaging.splits import split_of
from client.imaging.worker import Brief
from common.errors import DataError, LabelsMismatch
from common.plan import ClassificationSpec, Plan, SegmentationSpec


def open_folder(request: Request, labels_file: Path) -> tuple[Dataset, IntakeReport]:
    """Read, or find in the cache, every labelled image. Raises: LabelsMismatch, DataNotFound, DataUnreadable, DiskFull."""
    listing = list_folder(request, skip=labels_file)
    table = labels_of(request, listing, labels_file)
    paths, unlabelled = _wanted(listing, table)
    cached = cache.open_or_build(
        request.cache,
        request.cache_key(listing, table.key, *sorted(table.by_item), *sorted(map("\0".join, table.known.items()))),
        request.shape,
        lambda output: _fill(request, table, paths, listing.rejected + unlabelled, output),
        capacity=min(len(paths), len(table.by_item)),
    )
    return _join(request, table, cached)


def require_dicom(plan: Plan) -> None:
    """Raises: LabelsMismatch, for a plan whose truth no labels of DICOM files can say."""
    if not isinstance(plan.task, ClassificationSpec | SegmentationSpec):
        raise LabelsMismatch(
            f"plan '{plan.name}': what a plan of the kind '{plan.task.kind}' asks cannot be said of DICOM files.",
            fix="Classes come from labels.csv or labels.toml, outlines from labels.toml; for anything else export pictures with index.csv.",
        )


def labels_of(request: Request, listing: Listing, labels_file: Path) -> Labels:
    """What the labels file says, or, where it is a labels.toml, what the sources that it names say. Raises: LabelsMismatch among others."""
    task, has_rules = request.plan.task, labels_file.suffix == ".toml"
    if isinstance(task, ClassificationSpec) and not has_rules:
        return labels.read(labels_file, task)
    require_dicom(request.plan)
    if not has_rules:
        raise LabelsMismatch(
            f"{labels_file.name}: it cannot say where an outline is, and the plan is of the kind '{task.kind}'.",
            fix=f"Outlines come from {labels.RULES}, which names the SEG objects.",
        )
    tell = in_children(request.root, request.plan.input, request.limits, workers=request.workers)
    memory = Memory(folder=request.cache, fingerprint=request.secret.fingerprint) if request.cache.parts else None
    surveyor = Surveyor(root=request.root, secret=request.secret, tell=tell, memory=memory)
    if isinstance(task, SegmentationSpec):
        return gather_masks(surveyor, listing, labels_file, task, request.plan.input)
    assert isinstance(task, ClassificationSpec)  # as `require_dicom` has it
    return gather(surveyor, listing, labels_file, task).labels


def _wanted(listing: Listing, table: Labels) -> tuple[list[str], Counter[Reason]]:
    """What to open. Labels by path say beforehand which files are worth it; labels by UID only once a header is read."""
    paths = [file.path for file in listing.files if table.key != "path" or file.path in table.by_item]
    opened = frozenset(paths)
    unlabelled = Counter(table.known.get(file.path, Reason.NO_LABEL) for file in listing.files if file.path not in opened)
    return paths, +unlabelled


def _fill(request: Request, table: Labels, paths: Sequence[str], rejected: Counter[Reason], output: int) -> Contents:
    brief = Brief(
        kind="dicom",
        input=request.plan.input,
        limits=request.limits,
        wanted=frozenset(table.by_item) if table.key == "sop_instance_uid" else None,
        accept_burned_in=request.accept_burned_in,
    )
    tasks = roomy(request.root, brief, paths, workers=request.workers)
    outcomes = read_all(request.root, output, brief, tasks, workers=request.workers, progress=request.progress)
    contents = _contents(request.secret, table, tasks, outcomes, rejected)
    if not contents.slots:
        raise _why_nothing(request.name, table, contents.rejected)
    return contents


def _contents(
    secret: PatientSecret, table: Labels, tasks: Sequence[Task], outcomes: Sequence[Outcome], rejected: Counter[Reason]
) -> Contents:
    """Identifiers become keyed names here, and go no further."""
    rejected, seen = rejected.copy(), rejected.total() + len(tasks)
    known: set[str] = set()  # by SOPInstanceUID: a copy of an image is not a second image
    rows: list[tuple[int, str, str, str, float | None, int]] = []
    for task, outcome in zip(tasks, outcomes, strict=True):
        identity = outcome.identity
        if identity is None:
            rejected[outcome.reason or Reason.CRASHED] += 1
        elif identity.sop_instance_uid in known:
            rejected[Reason.DUPLICATE] += 1
        else:
            known.add(identity.sop_instance_uid)
            item = item_key(secret, table.key, task.path if table.key == "path" else identity.sop_instance_uid)
            patient = patient_key(secret, identity.issuer, identity.patient_id)
            series = item_key(secret, "series", identity.series_uid or identity.sop_instance_uid)
            skipped = [outcome.skipped, *[0] * len(outcome.places)]
            rows += [(outcome.slot + number, item, patient, series, place, skipped[number]) for number, place in enumerate(outcome.places)]
    columns = zip(*rows, strict=True) if rows else ((), (), (), (), (), ())
    slots, items, patients, of_series, places, left_out = columns
    return Contents(
        slots=slots, items=items, patients=patients, seen=seen, rejected=rejected, series=of_series, places=places, skipped=left_out
    )


def _join(request: Request, table: Labels, cached: Cached) -> tuple[Dataset, IntakeReport]:
    by_key = {item_key(request.secret, table.key, name): label for name, label in table.by_item.items()}
    label_of_row = [by_key[item] for item in cached.items]
    if isinstance(request.plan.task, ClassificationSpec):
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
        items=tuple(cached.items),
        parts=_parts(request, table, cached),
    )
    if request.plan.input.sequence > 1:
        dataset = _in_cases(dataset, cached, request.plan)
    return dataset, _report(table, cached, dataset)


def _report(table: Labels, cached: Cached, dataset: Dataset) -> IntakeReport:
    """Files that gave the model an image are used; those of which a case shows others instead are not, and have their own reason."""
    read = set(cached.items)
    used, images = cases.shown(cached.items, dataset.images.rows)
    several = len(cached.items) > len(read)
    in_cases = dataset.images.rows.ndim > 1
    return IntakeReport(
        seen=cached.seen,
        used=len(used),
        rejected=cached.rejected + Counter({Reason.NOT_SHOWN: len(read) - len(used)}),
        unmatched_labels=len(table.by_item) - len(read),
        images=images if several else None,
        unshown=sum(item in used for item in cached.items) - images,
        cases=len(dataset) if in_cases else None,
        skipped=sum(cached.skipped),
        labels=table.account,
    )


def _in_cases(data: Dataset, cached: Cached, plan: Plan) -> Dataset:
    """One row for each series, of evenly many of its images; or one for each image with its neighbours, where areas are to be found."""
    found = cases.by_series(cached.patients, cached.items, cached.series, cached.places)
    if isinstance(plan.task, SegmentationSpec):
        return replace(data, images=Images(cached.images, cases.neighbours(found, plan.input.sequence)))
    cases.require_one_truth(found, data.labels.tolist(), where="labels")
    one_each = data.subset(np.array([rows[0] for rows in found]))
    return replace(one_each, images=Images(cached.images, cases.evenly(found, plan.input.sequence)))


def _parts(request: Request, table: Labels, cached: Cached) -> dict[str, Images]:
    """The masks, row by row, for a plan that outlines things."""
    if not table.masks:
        return {}
    by_key = {item_key(request.secret, table.key, name): mask for name, mask in table.masks.items()}
    return {"mask": whole(np.stack([by_key[item] for item in cached.items]))}


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

# SPDX-License-Identifier: Apache-2.0
"""A folder of pictures (PNG, JPEG, NIfTI) and its `index.csv`, as a `Dataset`.

The index says whose each picture is, what it shows and on which side of the split it lies; the pictures only give pixels. Files go
through the same limited workers as DICOM; the rows of an `images.npz` are one array already and are fitted where they are.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.imaging import cache, index, labels, parts, sample, slots
from client.imaging.cache import Contents
from client.imaging.dataset import Dataset, Images, whole
from client.imaging.identity import item_key, patient_key
from client.imaging.index import ARCHIVE, LARGEST_ARCHIVE, Index, Item
from client.imaging.labels import plain_path
from client.imaging.listing import Listing, read_beneath
from client.imaging.readers import Outcome, Task, read_all, roomy
from client.imaging.rejection import Reason, Rejected
from client.imaging.report import IntakeReport
from client.imaging.request import Request, list_folder, nothing_usable
from client.imaging.splits import split_of
from client.imaging.worker import Brief, Kind
from common.errors import DataUnreadable
from common.plan import ClassificationSpec, DetectionSpec, InputSpec, SegmentationSpec


def open_folder(request: Request, index_file: Path) -> tuple[Dataset, IntakeReport]:
    """Read, or find in the cache, every picture of the index. Raises: LabelsMismatch, PatientStraddles, DataUnreadable, DiskFull."""
    table = index.read(index_file, request.plan)
    patients = [patient_key_of(request, table, item) for item in table.items]
    names = [item_key(request.secret, table.key, item.name) for item in table.items]
    listing = list_folder(request, skip=index_file)
    if left_out := len(index.unlisted(table, listing)):
        table = replace(table, rows=table.rows + left_out, rejected=table.rejected + Counter({Reason.NOT_LISTED: left_out}))
    if table.key == "line":
        return _join(request, table, table.items, patients, whole(np.empty((len(table.items), 0), dtype=np.uint16)), {}, table.rejected, 0)
    cached = cache.open_or_build(
        request.cache,
        request.cache_key(listing, table.key, *names, *patients),
        request.shape,
        lambda output: _fill(request, table, names, patients, output),
        capacity=len(table.items),
    )
    by_name = dict(zip(names, table.items, strict=True))
    items = [by_name[name] for name in cached.items]
    beside, kept, why = _pictures_beside(request, listing, items)
    used = [item for item, keep in zip(items, kept, strict=True) if keep]
    lost = {items[number].name: reason for number, reason in why.items()}  # images of one file have one mask
    rejected = cached.rejected + Counter(lost.values())
    owners = [owner for owner, keep in zip(cached.patients, kept, strict=True) if keep]
    return _join(request, table, used, owners, Images(cached.images, np.flatnonzero(kept)), beside, rejected, cached.skipped)


def _pictures_beside(
    request: Request, listing: Listing, items: Sequence[Item]
) -> tuple[dict[str, NDArray[np.uint16]], NDArray[np.bool_], dict[int, Reason]]:
    """Masks and second images, each read like the first; and which items have what they cannot do without, and why others do not."""
    task, image, kept = request.plan.task, request.plan.input, np.ones(len(items), dtype=np.bool_)
    found: dict[str, NDArray[np.uint16]] = {}
    why: dict[int, Reason] = {}
    if isinstance(task, DetectionSpec):
        why = unfit_boxes(request, items)
    if isinstance(task, SegmentationSpec):
        paths = ["" if is_volume(item) else item.cells[task.mask_column] for item in items]
        masks, there = _beside(request, listing, paths, replace(image, channels=1), "mask")
        why = dict.fromkeys(np.flatnonzero(~there), Reason.NO_MASK)
        why |= {number: Reason.MASK_VALUES for number in range(len(items)) if there[number] and not is_of_classes(masks[number], task)}
        masks = np.minimum(masks[:, 0], len(task.classes) - 1)
    kept[list(why)] = False
    if isinstance(task, SegmentationSpec):
        found["mask"] = masks[kept]
    if image.second is not None:
        second = replace(image, window=image.second.window)
        pictures, present = _beside(request, listing, [item.cells[index.SECOND] for item in items], second, "picture")
        found |= {"second": pictures[kept], "present": present[kept, np.newaxis].astype(np.uint8)}
    return found, kept, why


def is_volume(item: Item) -> bool:
    """Whether an item's file is NIfTI, of which a picture can be no mask: it may have many slices, and is turned on the way in."""
    return item.name.casefold().endswith((".nii", ".nii.gz"))


def is_of_classes(mask: NDArray[np.uint16], task: SegmentationSpec) -> bool:
    """Whether a mask's values are the plan's classes; of two, whatever is not 0 is the second."""
    return len(task.classes) == 2 or int(mask.max()) < len(task.classes)


def unfit_boxes(request: Request, items: Sequence[Item]) -> dict[int, Reason]:
    """Which items have boxes that training could not be given: beside the picture, or too many. Raises: LabelsMismatch, DataNotFound."""
    assert isinstance(request.plan.task, DetectionSpec)
    boxes = parts.read_boxes(request.root / parts.BOXES, request.plan.task)
    return {
        number: Reason.BOXES for number, item in enumerate(items) if not parts.boxes_fit(item, boxes.get(item.name, []), request.plan.task)
    }


def _beside(
    request: Request, listing: Listing, paths: Sequence[str], spec: InputSpec, kind: Kind
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """These pictures in the plan's size, a row for each path; zeros, and False, for one that is empty or cannot be read."""
    wanted = [(row, plain_path(path)) for row, path in enumerate(paths) if path]
    shape = (spec.channels, spec.height, spec.width)

    def fill(output: int) -> Contents:
        brief = Brief(kind=kind, input=spec, limits=request.limits, wanted=None)
        tasks = [Task(slot=slot, path=path) for slot, (_, path) in enumerate(wanted)]
        outcomes = read_all(request.root, output, brief, tasks, workers=request.workers, progress=request.progress)
        used = tuple(outcome.slot for outcome in outcomes if outcome.reason is None)
        rejected = Counter(outcome.reason for outcome in outcomes if outcome.reason is not None)
        return Contents(
            slots=used, items=tuple(str(slot) for slot in used), patients=("",) * len(used), seen=len(wanted), rejected=rejected
        )

    key = request.cache_key(listing, kind, str(spec), *(path for _, path in wanted))
    cached = cache.open_or_build(request.cache, key, shape, fill, capacity=len(wanted))
    pictures, present = np.zeros((len(paths), *shape), dtype=np.uint16), np.zeros(len(paths), dtype=np.bool_)
    rows = np.array([wanted[int(slot)][0] for slot in cached.items], dtype=np.int64)
    pictures[rows], present[rows] = cached.images, True
    return pictures, present


def patient_key_of(request: Request, table: Index, item: Item) -> str:
    """Whose a row's picture is, by the column that says so; its own, where none does."""
    if table.unit_source == "patient_id":
        return patient_key(request.secret, "", item.patient)
    return request.secret.keyed(table.unit_source.encode(), item.patient or item.name)


def _fill(request: Request, table: Index, names: Sequence[str], patients: Sequence[str], output: int) -> Contents:
    fits = _fit_files if table.key == "file" else _fit_rows
    outcomes = fits(request, table.items, output)
    used = [
        (row, outcome.slot + number)
        for row, outcome in enumerate(outcomes)
        if outcome.reason is None
        for number in range(len(outcome.places))
    ]
    rejected = table.rejected + Counter(outcome.reason for outcome in outcomes if outcome.reason is not None)
    if not used:
        raise nothing_usable(request.name, rejected)
    return Contents(
        slots=tuple(slot for _, slot in used),
        items=tuple(names[row] for row, _ in used),
        patients=tuple(patients[row] for row, _ in used),
        seen=table.rows,
        rejected=rejected,
        skipped=sum(outcome.skipped for outcome in outcomes),
    )


def _fit_files(request: Request, items: Sequence[Item], output: int) -> list[Outcome]:
    brief = Brief(kind="picture", input=request.plan.input, limits=request.limits, wanted=None)
    tasks = roomy(request.root, brief, [item.name for item in items], workers=request.workers)
    return read_all(request.root, output, brief, tasks, workers=request.workers, progress=request.progress)


def _fit_rows(request: Request, items: Sequence[Item], output: int) -> list[Outcome]:
    images = unpack(request)
    outcomes: list[Outcome] = []
    for slot, item in enumerate(items):
        if int(item.name) < len(images):
            slots.write(output, slot, sample.of_bytes(images[int(item.name)], request.plan.input))
            outcomes.append(Outcome(slot=slot, reason=None, identity=None))
        else:
            outcomes.append(Outcome(slot=slot, reason=Reason.NO_FILE, identity=None))
        if request.progress is not None:
            request.progress(slot + 1, len(items))
    return outcomes


def unpack(request: Request) -> NDArray[np.uint8]:
    descriptor = os.open(request.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return index.unpack(read_beneath(descriptor, ARCHIVE, largest=LARGEST_ARCHIVE))
    except Rejected as rejected:
        raise DataUnreadable(
            f"{request.name}: its index names rows, and {ARCHIVE} is not readable there ({rejected.reason.value}).",
            fix=f"Put {ARCHIVE} beside {index.INDEX}, or use a column 'file'.",
        ) from rejected
    finally:
        os.close(descriptor)


def _join(
    request: Request,
    table: Index,
    items: Sequence[Item],
    owners: Sequence[str],
    shown: Images,
    beside: dict[str, NDArray[np.uint16]],
    rejected: Counter[Reason],
    skipped: int,
) -> tuple[Dataset, IntakeReport]:
    """`items`, `owners` (keyed patients), the images `shown` and what lies `beside` them, row by row.

    Sequences become one row each, or one for each image with its neighbours, where areas or boxes are to be found.
    """
    plan, rows, read = request.plan, list(items), len({item.name for item in items})
    if plan.input.sequence > 1:
        placed = isinstance(plan.task, SegmentationSpec | DetectionSpec)
        length = plan.input.sequence
        firsts, chosen = parts.neighbours(rows, length) if placed else parts.sequences(rows, length, plan.task)
        rows, owners, shown = [rows[first] for first in firsts], [owners[first] for first in firsts], Images(shown.base, shown.rows[chosen])
        beside = {name: array[firsts] for name, array in beside.items()}
    if isinstance(plan.task, ClassificationSpec):
        labels.check_classes((item.label for item in rows), plan.task)
    boxes = parts.read_boxes(request.root / parts.BOXES, plan.task) if isinstance(plan.task, DetectionSpec) else {}
    patient_keys, patients = np.unique(np.array(owners), return_inverse=True)
    keys = tuple(map(str, patient_keys))
    by_patient = np.array([split_of(key, request.fractions) for key in keys], dtype=np.int8)
    sites = tuple(sorted({item.site for item in rows})) if table.has_sites else None
    dataset = Dataset(
        images=shown,
        labels=np.array([item.label for item in rows], dtype=np.int64),
        patients=patients.astype(np.int32),
        patient_keys=keys,
        splits=np.array([item.split for item in rows], dtype=np.int8) if table.has_splits else by_patient[patients],
        unit_source=table.unit_source,
        sites=sites,
        site_index=None if sites is None else np.array([sites.index(item.site) for item in rows], dtype=np.int32),
        parts={**parts.of_items(rows, plan, boxes), **{name: whole(array) for name, array in beside.items()}},
        items=tuple(item_key(request.secret, table.key, item.name) for item in rows),
    )
    several = len(items) if len(items) > read else None
    together = len(dataset) if plan.input.sequence > 1 else None
    lost = sum(bool(item.cells[index.SECOND]) for item in rows) - int(beside["present"].sum()) if plan.input.second is not None else 0
    return dataset, IntakeReport(
        seen=table.rows, used=read, rejected=rejected, images=several, skipped=skipped, cases=together, lost_seconds=lost
    )

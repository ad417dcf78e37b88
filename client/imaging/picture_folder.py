# SPDX-License-Identifier: Apache-2.0
"""A folder of pictures (PNG, JPEG, NIfTI) and its `index.csv`, as a `Dataset`.

The index says whose each picture is, what it shows and on which side of the split it lies; the pictures only give pixels. Files go
through the same limited workers as DICOM; the rows of an `images.npz` are one array already and are fitted where they are.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from client.imaging import beside, cache, cases, index, labels, parts, sample, slots
from client.imaging.cache import Cached, Contents
from client.imaging.dataset import Dataset, Images, whole
from client.imaging.identity import item_key, patient_key, unit_key
from client.imaging.index import ARCHIVE, LARGEST_ARCHIVE, Index, Item, Table
from client.imaging.listing import Listing, read_beneath
from client.imaging.parts import Boxes
from client.imaging.readers import Outcome, read_all, roomy
from client.imaging.rejection import Reason, Rejected
from client.imaging.report import IntakeReport
from client.imaging.request import Request, list_folder, nothing_usable
from client.imaging.splits import split_of
from client.imaging.worker import Brief, Kind
from common.errors import DataUnreadable
from common.plan import ClassificationSpec, DetectionSpec, InputSpec, Plan, SegmentationSpec


def open_folder(request: Request, written: Table) -> tuple[Dataset, IntakeReport]:
    """Read, or find in the cache, every picture of the index. Raises: LabelsMismatch, PatientStraddles, DataUnreadable, DiskFull."""
    table = index.read(written, request.plan)
    patients = [patient_key_of(request, table, item) for item in table.items]
    names = [item_key(request.secret, table.key, item.name) for item in table.items]
    listing = list_folder(request, skip=written.path)
    if left_out := index.unlisted(table, listing):
        more = Counter(reason for _, reason in left_out)
        table = replace(table, rows=table.rows + more.total(), rejected=table.rejected + more)
    boxes = boxes_of(request)
    if table.key == "line":
        nothing = whole(np.empty((len(table.items), 0), dtype=np.uint16))
        return _join(request, table, table.items, patients, nothing, _Beside(), table.rejected, 0, boxes)
    cached = cache.open_or_build(
        request.cache,
        request.cache_key(listing, table.key, str(beside.is_drawn_on(request.plan)), *names, *patients),
        request.shape,
        lambda output: _fill(request, table, names, patients, output),
        capacity=len(table.items),
    )
    by_name = dict(zip(names, table.items, strict=True))
    items = [by_name[name] for name in cached.items]
    there = _beside(request, listing, items, cached, boxes)
    used = [item for item, keep in zip(items, there.kept, strict=True) if keep]
    lost = {items[number].name: reason for number, reason in there.why.items()}
    rejected = cached.rejected + Counter(lost.values())
    owners = [owner for owner, keep in zip(cached.patients, there.kept, strict=True) if keep]
    images, skipped = Images(cached.images, np.flatnonzero(there.kept)), sum(np.array(cached.skipped)[there.kept].tolist())
    return _join(request, table, used, owners, images, there, rejected, skipped, boxes)


def boxes_of(request: Request) -> Boxes:
    """The boxes of the folder, for a plan that asks for them. Raises: LabelsMismatch, DataNotFound."""
    task = request.plan.task
    return parts.read_boxes(request.root / parts.BOXES, task) if isinstance(task, DetectionSpec) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Beside:
    """What lies beside the images that are kept, row by row; and which are not, and why."""

    found: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    kept: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=np.bool_))
    why: dict[int, Reason] = field(default_factory=dict)


def _beside(request: Request, listing: Listing, items: Sequence[Item], cached: Cached, boxes: Boxes) -> _Beside:
    """Masks and second images, each read like the first; and which items have what they cannot do without, and why others do not."""
    task, image = request.plan.task, request.plan.input
    found: dict[str, NDArray[np.generic]] = {}
    why: dict[int, Reason] = {}
    if isinstance(task, DetectionSpec):
        why = beside.unfit_boxes(items, cached.grids, boxes, task)
    if isinstance(task, SegmentationSpec):
        cells = [item.cells[task.mask_column] for item in items]
        rows, masks = _read_beside(request, listing, cells, cached.places, replace(image, channels=1), "mask")
        why = beside.unfit_masks(rows, masks, lambda row: masks.images[row], items, cached.grids, task)
    kept = np.ones(len(items), dtype=np.bool_)
    kept[list(why)] = False
    if isinstance(task, SegmentationSpec):
        found["mask"] = np.minimum(masks.images[rows[kept], 0], len(task.classes) - 1)
    if image.second is not None:
        second = replace(image, window=image.second.window)
        rows, pictures = _read_beside(request, listing, [item.cells[index.SECOND] for item in items], cached.places, second, "picture")
        rows = rows[kept]
        present = rows != beside.NONE
        shown = np.zeros((len(rows), *request.shape), dtype=np.uint16)
        shown[present] = pictures.images[rows[present]]
        found |= {"second": shown, "present": present[:, np.newaxis].astype(np.uint8)}
    return _Beside(found=found, kept=kept, why=why)


def _read_beside(
    request: Request, listing: Listing, cells: Sequence[str], places: Sequence[float | None], spec: InputSpec, kind: Kind
) -> tuple[NDArray[np.int64], Cached]:
    """The files that cells name, in the plan's size; and for each cell which row of them it means."""
    files = beside.files_of(cells)
    found = cache.open_or_build(
        request.cache,
        request.cache_key(listing, kind, str(spec), *files),
        (spec.channels, spec.height, spec.width),
        lambda output: beside.read(request, files, spec, kind, output),
        capacity=len(cells),
    )
    return beside.matched(found, files, cells, places), found


def patient_key_of(request: Request, table: Index, item: Item) -> str:
    """Whose a row's picture is, by the column that says so; its own, where none does."""
    if table.unit_source == "patient_id":
        return patient_key(request.secret, "", item.patient)
    return unit_key(request.secret, table.unit_source, item.patient or item.name)


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
        places=tuple(place for outcome in outcomes if outcome.reason is None for place in outcome.places),
        grids=tuple(outcome.grid for outcome in outcomes if outcome.reason is None for _ in outcome.places),
        skipped=tuple(
            outcome.skipped * (not number) for outcome in outcomes if outcome.reason is None for number in range(len(outcome.places))
        ),
    )


def _fit_files(request: Request, items: Sequence[Item], output: int) -> list[Outcome]:
    drawn_on = beside.is_drawn_on(request.plan)
    brief = Brief(kind="picture", input=request.plan.input, limits=request.limits, wanted=None, drawn_on=drawn_on)
    tasks = roomy(request.root, brief, [item.name for item in items], workers=request.workers)
    return read_all(request.root, output, brief, tasks, workers=request.workers, progress=request.progress)


def _fit_rows(request: Request, items: Sequence[Item], output: int) -> list[Outcome]:
    images = unpack(request)
    outcomes: list[Outcome] = []
    for slot, item in enumerate(items):
        if int(item.name) < len(images):
            slots.write(output, slot, sample.of_bytes(images[int(item.name)], request.plan.input))
            outcomes.append(Outcome(slot=slot, reason=None, identity=None, grid=images.shape[1:3]))
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
    there: _Beside,
    rejected: Counter[Reason],
    skipped: int,
    boxes: Boxes,
) -> tuple[Dataset, IntakeReport]:
    """`items`, `owners` (keyed patients), the images `shown` and what is `there` beside them, row by row.

    Sequences become one row each, or one for each image with its neighbours, where areas or boxes are to be found.
    """
    plan, files, found = request.plan, [item.name for item in items], there.found
    firsts, chosen = arranged(items, plan)
    rows, owners = [items[first] for first in firsts], [owners[first] for first in firsts]
    if plan.input.sequence > 1:
        shown = Images(shown.base, shown.rows[chosen])
        found = {name: array[firsts] for name, array in found.items()}
    if isinstance(plan.task, ClassificationSpec):
        labels.check_classes((item.label for item in rows), plan.task)
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
        parts={**parts.of_items(rows, plan, boxes), **{name: whole(array) for name, array in found.items()}},
        items=tuple(item_key(request.secret, table.key, item.name) for item in rows),
    )
    used, images = cases.shown(files, chosen)
    read = len(set(files))
    lost = sum(bool(item.cells[index.SECOND]) for item in rows) - int(found["present"].sum()) if plan.input.second is not None else 0
    return dataset, IntakeReport(
        seen=table.rows,
        used=len(used),
        rejected=rejected + Counter({Reason.NOT_SHOWN: read - len(used)}),
        images=images if len(files) > read else None,
        skipped=skipped,
        unshown=sum(file in used for file in files) - images,
        cases=len(dataset) if plan.input.sequence > 1 else None,
        lost_seconds=lost,
    )


def arranged(items: Sequence[Item], plan: Plan) -> tuple[list[int], NDArray[np.int64]]:
    """The first row of each case, and the rows of the images that are shown of it, (N, T); without sequences each row is a case, (N,).

    Raises: LabelsMismatch.
    """
    length = plan.input.sequence
    if length == 1:
        return list(range(len(items))), np.arange(len(items))
    if beside.is_drawn_on(plan):
        return parts.neighbours(items, length)
    return parts.sequences(items, length, plan.task)

# SPDX-License-Identifier: Apache-2.0
"""A folder of pictures and its `index.csv`, as a `Dataset`.

The index says whose each picture is, what it shows and on which side of the split it lies; the pictures only give pixels. Files go
through the same limited workers as DICOM; the rows of an `images.npz` are one array already and are fitted where they are.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.imaging import cache, index, labels, sample, slots
from client.imaging.cache import Cached, Contents
from client.imaging.dataset import Dataset, Images
from client.imaging.identity import item_key, patient_key
from client.imaging.index import ARCHIVE, LARGEST_ARCHIVE, Index, Item
from client.imaging.listing import read_beneath
from client.imaging.readers import Task, read_all
from client.imaging.rejection import Reason, Rejected
from client.imaging.report import IntakeReport
from client.imaging.request import Request, list_folder, nothing_usable
from client.imaging.splits import split_of
from client.imaging.worker import Brief
from common.errors import DataUnreadable


def open_folder(request: Request, index_file: Path) -> tuple[Dataset, IntakeReport]:
    """Read, or find in the cache, every picture of the index. Raises: LabelsMismatch, PatientStraddles, DataUnreadable, DiskFull."""
    table = index.read(index_file, request.plan.task)
    patients = [_patient_key(request, table, item) for item in table.items]
    names = [item_key(request.secret, table.key, item.name) for item in table.items]
    listing = list_folder(request, skip=index_file)
    cached = cache.open_or_build(
        request.cache,
        request.cache_key(listing, table.key, *names, *patients),
        request.shape,
        lambda output: _fill(request, table, names, patients, output),
        capacity=len(table.items),
    )
    return _join(request, table, dict(zip(names, table.items, strict=True)), cached)


def _patient_key(request: Request, table: Index, item: Item) -> str:
    if table.unit_source == "patient_id":
        return patient_key(request.secret, "", item.patient)
    return request.secret.keyed(table.unit_source.encode(), item.patient or item.name)


def _fill(request: Request, table: Index, names: Sequence[str], patients: Sequence[str], output: int) -> Contents:
    fits = _fit_files if table.key == "file" else _fit_rows
    reasons = fits(request, table.items, output)
    used = [slot for slot, reason in enumerate(reasons) if reason is None]
    rejected = table.rejected + Counter(reason for reason in reasons if reason is not None)
    if not used:
        raise nothing_usable(request.name, rejected)
    return Contents(
        slots=tuple(used),
        items=tuple(names[slot] for slot in used),
        patients=tuple(patients[slot] for slot in used),
        seen=table.rows,
        rejected=rejected,
    )


def _fit_files(request: Request, items: Sequence[Item], output: int) -> list[Reason | None]:
    brief = Brief(kind="picture", input=request.plan.input, limits=request.limits, wanted=None)
    tasks = [Task(slot=slot, path=item.name) for slot, item in enumerate(items)]
    outcomes = read_all(request.root, output, brief, tasks, workers=request.workers, progress=request.progress)
    return [outcome.reason for outcome in outcomes]


def _fit_rows(request: Request, items: Sequence[Item], output: int) -> list[Reason | None]:
    images = _unpack(request)
    reasons: list[Reason | None] = []
    for slot, item in enumerate(items):
        if int(item.name) < len(images):
            slots.write(output, slot, sample.of_bytes(images[int(item.name)], request.plan.input))
            reasons.append(None)
        else:
            reasons.append(Reason.NO_FILE)
        if request.progress is not None:
            request.progress(slot + 1, len(items))
    return reasons


def _unpack(request: Request) -> NDArray[np.uint8]:
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


def _join(request: Request, table: Index, items: dict[str, Item], cached: Cached) -> tuple[Dataset, IntakeReport]:
    rows = [items[name] for name in cached.items]
    labels.check_classes((item.label for item in rows), request.plan.task)
    patient_keys, patients = np.unique(np.array(cached.patients), return_inverse=True)
    keys = tuple(map(str, patient_keys))
    by_patient = np.array([split_of(key, request.fractions) for key in keys], dtype=np.int8)
    sites = tuple(sorted({item.site for item in rows})) if table.has_sites else None
    dataset = Dataset(
        images=Images(cached.images, np.arange(len(rows))),
        labels=np.array([item.label for item in rows], dtype=np.int64),
        patients=patients.astype(np.int32),
        patient_keys=keys,
        splits=np.array([item.split for item in rows], dtype=np.int8) if table.has_splits else by_patient[patients],
        unit_source=table.unit_source,
        sites=sites,
        site_index=None if sites is None else np.array([sites.index(item.site) for item in rows], dtype=np.int32),
    )
    return dataset, IntakeReport(seen=cached.seen, used=len(dataset), rejected=cached.rejected)

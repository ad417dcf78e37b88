# SPDX-License-Identifier: Apache-2.0
"""A whole made federation on disk: one folder a hospital, its DICOM files and `labels.csv` in it.

    folder/hospital_00/001000_1.dcm
                       labels.csv        sop_instance_uid,label

Patients are made in parallel and written beside the target under a hidden name; only when everything is there is the folder renamed.
So a folder of that name is whole, or it is not there: a run that was interrupted leaves nothing that could be mistaken for data.
"""

import errno
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import DiskFull, RunFolderTaken
from simulations.phantoms import hospital as hospitals
from simulations.phantoms.patient import make_patient
from simulations.phantoms.spec import PhantomSpec

Progress = Callable[[int, int], None]  # slices written, slices in all
StartMethod = Literal["spawn", "fork"]

LABELS = "labels.csv"
HEADER = "sop_instance_uid,label"
PATIENTS_PER_TASK = 20
HEADER_BYTES = 1_500  # of a file, beside its pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Ward:
    """Some patients of one hospital, one worker's piece of work: [first, last)."""

    hospital: int
    first: int
    last: int


def write(
    spec: PhantomSpec,
    folder: Path,
    *,
    workers: int = 1,
    start_method: StartMethod = "spawn",
    progress: Progress | None = None,
) -> None:
    """Make the federation that `spec` names in `folder`, which must not exist yet.

    Guarantees: the same spec gives the same bytes, whatever the number of workers; the folder appears at once and whole.
    Raises: RunFolderTaken, if the folder exists; DiskFull, if it would not fit.
    """
    if folder.exists():
        raise RunFolderTaken(f"phantoms: {folder} exists already.", fix="Name another folder, or remove this one.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _check_room(spec, folder.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_hospitals(spec, partial, workers, start_method, progress)
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise DiskFull(f"phantoms: {folder.parent} is full.", fix="Free some room, or name a folder elsewhere.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_ward(spec: PhantomSpec, folder: Path, ward: Ward) -> list[str]:
    """Write one ward's files into the hospital's folder; returns its lines of `labels.csv`."""
    hospital = hospitals.draw(spec.seed, ward.hospital)
    findings = hospitals.draw_findings(hospital, spec.patients_per_hospital, spec.seed)
    lines = []
    for patient in range(ward.first, ward.last):
        for file in make_patient(spec, hospital, patient, has_nodule=findings[patient]):
            (folder / hospital.name / file.name).write_bytes(file.content)
            lines.append(f"{file.sop_instance_uid},{file.label}")
    return lines


def _write_hospitals(spec: PhantomSpec, folder: Path, workers: int, start_method: StartMethod, progress: Progress | None) -> None:
    names = [hospitals.draw(spec.seed, index).name for index in range(spec.hospitals)]
    for name in names:
        (folder / name).mkdir()
    wards, in_all = list(_wards(spec)), spec.num_slices
    labels: list[list[str]] = [[HEADER] for _ in names]
    written = 0
    for ward, lines in zip(wards, _each_ward(spec, folder, wards, workers, start_method), strict=True):
        labels[ward.hospital].extend(lines)
        written += len(lines)
        if progress is not None:
            progress(written, in_all)
    for name, lines in zip(names, labels, strict=True):
        (folder / name / LABELS).write_text("\n".join(lines) + "\n", encoding="ascii")


def _wards(spec: PhantomSpec) -> Iterable[Ward]:
    for hospital in range(spec.hospitals):
        for first in range(0, spec.patients_per_hospital, PATIENTS_PER_TASK):
            yield Ward(hospital=hospital, first=first, last=min(first + PATIENTS_PER_TASK, spec.patients_per_hospital))


def _each_ward(spec: PhantomSpec, folder: Path, wards: list[Ward], workers: int, start_method: StartMethod) -> Iterable[list[str]]:
    """Each ward's label lines, in the order of `wards`."""
    if workers <= 1:
        yield from (write_ward(spec, folder, ward) for ward in wards)
        return
    context = multiprocessing.get_context(start_method)
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = [pool.submit(write_ward, spec, folder, ward) for ward in wards]
        try:
            yield from (job.result() for job in jobs)
        finally:
            for job in jobs:
                job.cancel()


def _check_room(spec: PhantomSpec, where: Path) -> None:
    needed = spec.num_slices * (spec.size_px**2 * 2 + HEADER_BYTES)
    free = shutil.disk_usage(where).free
    if free < needed:
        raise DiskFull(
            f"phantoms: {where} has {free >> 20} MiB free, {needed >> 20} MiB are needed.",
            fix="Free some room, or ask for fewer patients or smaller slices.",
        )

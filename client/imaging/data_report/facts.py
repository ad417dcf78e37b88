# SPDX-License-Identifier: Apache-2.0
"""Everything that the page is made of, gathered from a folder: a case for each file, the account of an intake, and some samples.

The verdict on a file and its label come from the code that an intake runs. Patients are numbered by a secret that is thrown away.
"""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Final

import numpy as np
from numpy.typing import NDArray

from client.imaging import dicom_folder, inventory, slots
from client.imaging.dataset import Dataset
from client.imaging.identity import SECRET_BYTES, PatientSecret
from client.imaging.index import of_pictures
from client.imaging.intake import DataSource, open_dataset
from client.imaging.labels import LABELS, RULES, Labels
from client.imaging.labels.gather import gather as gather_labels
from client.imaging.labels.survey import Pictured, Surveyor, in_children
from client.imaging.listing import Listing
from client.imaging.readers import Progress, read_all, roomy
from client.imaging.rejection import Reason
from client.imaging.report import IntakeReport
from client.imaging.request import Request, list_folder
from client.imaging.rows import Findings, Row
from client.imaging.worker import Brief, Limits
from common.errors import DataError, DataNotFound, LabelsMismatch, PlanError
from common.plan import ClassificationSpec, Plan

MOST_SAMPLES: Final = 360
"""Images that are looked at for intensities and shown: enough for a curve, few enough to wait for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One file, or one line of an index: what its header says, whose it is by number, and what the plan makes of it."""

    patient: str = field(repr=False)
    reason: Reason | None
    label: int | None = None
    years: int | None = None
    about: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_used(self) -> bool:
        return self.reason is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Images as the plan has them, (M, C, H, W) uint16, each with its case."""

    pixels: NDArray[np.uint16]
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A folder, for the page. `problem`: why the plan could not be tried on it at all, with what to do."""

    plan: Plan
    classes: tuple[str, ...]
    cases: tuple[Case, ...]
    samples: Samples
    report: IntakeReport | None
    findings: Findings | None
    problem: str = ""
    has_headers: bool = True
    has_labels: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a page is to be made of; `beside` is where decoded samples may lie meanwhile: where the page itself will."""

    root: Path
    plan: Plan
    labels: Path | None
    beside: Path
    accept_burned_in: bool = False
    limits: Limits = field(default_factory=Limits)
    workers: int | None = None
    progress: Progress | None = None


def gather(wish: Wish) -> Facts:
    """Raises: DataNotFound, DataUnreadable, DiskFull, EngineError. Labels that cannot be used are a fact, not an error."""
    if not wish.root.is_dir():
        raise DataNotFound(f"data folder '{wish.root}' does not exist.", fix="Give the folder that holds the images.")
    if wish.labels is None and of_pictures(wish.root) is not None:
        return _of_pictures(wish)
    return _of_dicom(wish)


def _classes(plan: Plan) -> tuple[str, ...]:
    return plan.task.classes if isinstance(plan.task, ClassificationSpec) else ()


def _of_dicom(wish: Wish) -> Facts:
    request = Request(
        root=wish.root,
        name="this folder",
        plan=wish.plan,
        cache=inventory.NO_CACHE,
        secret=PatientSecret(value=secrets.token_bytes(SECRET_BYTES)),
        limits=wish.limits,
        workers=wish.workers,
        progress=wish.progress,
        accept_burned_in=wish.accept_burned_in,
    )
    usual = wish.root / (RULES if (wish.root / RULES).is_file() else LABELS)
    labels_file = wish.labels or usual
    listing = list_folder(request, skip=labels_file)
    tell = in_children(wish.root, wish.plan.input, request.limits, workers=wish.workers, progress=wish.progress)
    surveyor = Surveyor(root=wish.root, secret=request.secret, tell=tell)
    table, images, problem = _labels(request, surveyor, listing, labels_file)
    if images is None:
        images = surveyor.folder(listing).images
    pictured = {image.path: image for image in images}
    try:
        taken = inventory.examine_dicom(request, listing, table)
    except LabelsMismatch as error:  # slices of one case, labelled apart
        table, problem = None, str(error)
        taken = inventory.examine_dicom(request, listing, None)
    label_of = _labels_by_path(table, pictured.values(), surveyor)
    cases = {row.path: _case(row, pictured.get(row.path), label_of.get(row.path)) for row in taken.rows}
    return Facts(
        plan=wish.plan,
        classes=_classes(wish.plan),
        cases=tuple(cases.values()),
        samples=_decode(request, wish.beside, _chosen(cases)),
        report=taken.report,
        findings=taken.findings,
        problem=problem,
        has_labels=table is not None,
    )


def _labels(
    request: Request, surveyor: Surveyor, listing: Listing, labels_file: Path
) -> tuple[Labels | None, tuple[Pictured, ...] | None, str]:
    """The labels, if they can be used; the headers, if they were read for them; and what is wrong with the labels otherwise."""
    try:
        if not labels_file.is_file():
            return None, None, ""
        if labels_file.suffix == ".toml" and isinstance(request.plan.task, ClassificationSpec):
            gathered = gather_labels(surveyor, listing, labels_file, request.plan.task)
            return gathered.labels, gathered.survey.images, ""
        return dicom_folder.labels_of(request, listing, labels_file), None, ""
    except (DataError, PlanError) as error:  # labels.toml is refused in the words that a plan is
        return None, None, str(error)


def _case(row: Row, image: Pictured | None, label: int | None) -> Case:
    if image is None:
        return Case(patient="", reason=row.reason)
    return Case(patient=image.patient, reason=row.reason, label=label, years=image.years, about=image.about)


def _labels_by_path(table: Labels | None, images: Iterable[Pictured], surveyor: Surveyor) -> dict[str, int]:
    if table is None:
        return {}
    if table.key == "path":
        return dict(table.by_item)
    by_name = {surveyor.name_of(item): label for item, label in table.by_item.items()}
    return {image.path: by_name[image.item] for image in images if image.item in by_name}


def _chosen(cases: Mapping[str, Case]) -> dict[str, Case]:
    """Some used files: of each class as many, and of as many patients as there are."""
    by_class: dict[int | None, list[str]] = defaultdict(list)
    seen: dict[str, int] = defaultdict(int)
    turns = []
    for path, case in cases.items():
        if case.is_used:
            turns.append((seen[case.patient], case.patient, path))  # a patient's second image comes after everybody's first
            seen[case.patient] += 1
    for _, _, path in sorted(turns):
        by_class[cases[path].label].append(path)
    dealt = [path for row in zip_longest(*by_class.values()) for path in row if path is not None]
    return {path: cases[path] for path in dealt[:MOST_SAMPLES]}


def _decode(request: Request, beside: Path, chosen: Mapping[str, Case]) -> Samples:
    """The first image of each chosen file, as the plan has it."""
    brief = Brief(kind="dicom", input=request.plan.input, limits=request.limits, wanted=None, accept_burned_in=request.accept_burned_in)
    tasks = roomy(request.root, brief, list(chosen), workers=request.workers)
    size = slots.sample_bytes(request.shape)
    found: list[tuple[Case, NDArray[np.uint16]]] = []
    with TemporaryFile(dir=beside) as output:
        for task, outcome in zip(tasks, read_all(request.root, output.fileno(), brief, tasks, workers=request.workers), strict=True):
            if outcome.identity is not None:
                output.seek(slots.HEADER_BYTES + task.slot * size)
                found.append((chosen[task.path], np.frombuffer(output.read(size), dtype=slots.SAMPLE_DTYPE).reshape(request.shape)))
    return _samples(found, request.shape)


def _samples(found: Sequence[tuple[Case, NDArray[np.uint16]]], shape: tuple[int, ...]) -> Samples:
    pixels = np.stack([image for _, image in found]) if found else np.empty((0, *shape), dtype=np.uint16)
    return Samples(pixels=pixels, cases=tuple(case for case, _ in found))


def _of_pictures(wish: Wish) -> Facts:
    """Pictures have no header: what is known of them stands in their index."""
    classes = _classes(wish.plan)
    empty = Samples(pixels=np.empty((0, 1, 1, 1), dtype=np.uint16), cases=())
    with TemporaryDirectory(dir=wish.beside, prefix=".fedward-") as folder:
        secret = PatientSecret(value=secrets.token_bytes(SECRET_BYTES))
        source = DataSource(root=wish.root, called="this folder")
        try:
            data, report = open_dataset(
                source, wish.plan, cache=Path(folder), key=secret, limits=wish.limits, workers=wish.workers, progress=wish.progress
            )
        except DataError as error:
            return Facts(
                plan=wish.plan, classes=classes, cases=(), samples=empty, report=None, findings=None, problem=str(error), has_headers=False
            )
        cases = tuple(_pictured_case(data, row, has_classes=bool(classes)) for row in range(len(data)))
        chosen = [int(path) for path in _chosen({str(row): case for row, case in enumerate(cases)})]
        has_image = wish.plan.input.has_image
        samples = _samples([(cases[row], _first_image(data, row)) for row in chosen], _first_image(data, 0).shape) if has_image else empty
    return Facts(plan=wish.plan, classes=classes, cases=cases, samples=samples, report=report, findings=None, has_headers=False)


def _pictured_case(data: Dataset, row: int, *, has_classes: bool) -> Case:
    return Case(patient=str(data.patients[row]), reason=None, label=int(data.labels[row]) if has_classes else None)


def _first_image(data: Dataset, row: int) -> NDArray[np.uint16]:
    """(C, H, W), of a sequence its first."""
    image = data.images[row]
    return np.array(image[0] if image.ndim == 4 else image)

# SPDX-License-Identifier: Apache-2.0
"""From a folder to a `Dataset`, with every file accounted for.

    list -> (cache: read, decode, fit, keep) -> join with labels -> split by patient -> Dataset

Two kinds of folder, told apart by what lies in them: DICOM files with `labels.csv` or `labels.toml`, or pictures with `index.csv`. What is
decoded does not depend on what the labels say, only on which images have one: correcting a label does not decode again, and no pixel of a
patient without a label enters the cache.

seen = used + rejected, always: a hospital must not find out later that its model was trained on half of its images.
"""

from dataclasses import dataclass
from pathlib import Path

from client.imaging import dicom_folder, picture_folder
from client.imaging.dataset import Dataset
from client.imaging.identity import PatientSecret
from client.imaging.index import INDEX, of_pictures
from client.imaging.labels import LABELS, RULES
from client.imaging.readers import Progress
from client.imaging.report import IntakeReport
from client.imaging.request import Request
from client.imaging.splits import Fractions
from client.imaging.worker import Limits
from client.policy import ImageRules
from common.errors import DataNotFound
from common.plan import Plan

__all__ = ["DataSource", "Fractions", "IntakeReport", "Limits", "limits_of", "open_dataset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """A folder of images. `labels`: what labels DICOM files, if not `labels.toml`, or else `labels.csv`, in the folder itself.

    `called` is how messages name the folder: by its path, unless it was found rather than typed, since a path may be a patient's name.
    `accept_burned_in`: the site's policy on pictures that say themselves that a patient's data are written into them.
    """

    root: Path
    labels: Path | None = None
    called: str | None = None
    accept_burned_in: bool = False

    @property
    def name(self) -> str:
        return self.called or f"data folder '{self.root}'"


def limits_of(rules: ImageRules) -> Limits:
    """What one file may cost at a site, by its policy."""
    return Limits(memory_bytes=rules.memory_gib << 30, cpu_seconds=float(rules.seconds), file_bytes=rules.file_gib << 30)


def open_dataset(
    source: DataSource,
    plan: Plan,
    *,
    cache: Path,
    key: PatientSecret,
    fractions: Fractions | None = None,
    limits: Limits | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[Dataset, IntakeReport]:
    """Open a folder for a plan: at once from the cache if it was opened before, else by reading every file (`workers`: one per core).

    Guarantees: the same folder, plan and secret give the same rows in the same order; report.seen == report.used + rejected.
    Raises: DataNotFound, DataUnreadable, LabelsMismatch, PatientStraddles, DiskFull.
    """
    if not source.root.is_dir():
        raise DataNotFound(f"{source.name} does not exist.", fix="Give the folder that holds the images.")
    request = Request(
        root=source.root,
        name=source.name,
        plan=plan,
        cache=cache,
        secret=key,
        fractions=fractions or Fractions(),
        limits=limits or Limits(),
        workers=workers,
        progress=progress,
        accept_burned_in=source.accept_burned_in,
    )
    rules_file = source.root / RULES
    labels_file = source.labels or (rules_file if rules_file.is_file() else source.root / LABELS)
    if source.labels is None and (table := of_pictures(source.root)) is not None:
        return picture_folder.open_folder(request, table)
    dicom_folder.require_dicom(plan)
    if not labels_file.is_file():
        raise DataNotFound(
            f"{source.name}: no labels. Neither {source.labels or f'{LABELS} nor {RULES}'} nor {INDEX} is there.",
            fix=f"DICOM: add {LABELS} with the columns sop_instance_uid and {_asked(plan)}. Pictures: add {INDEX}.",
        )
    return dicom_folder.open_folder(request, labels_file)


def _asked(plan: Plan) -> str:
    """The columns of labels that a plan asks for, as a person would list them."""
    return " and ".join(f"'{column}'" for column in plan.task.columns) or "nothing else"

# SPDX-License-Identifier: Apache-2.0
"""Patients of every site, dealt into folds: in fold k those of part k are judged, and all others trained on.

    tune/stage/sites/north/data        what the site has
    tune/folds/0/north/                the same images, other sides; 1/north/, ...

A patient, with all images of theirs, is in one part at their site, and stays there for every trial; so no model is judged by a patient whom
it was trained on, and every trial is judged by the same ones. With one fold a part of the patients is kept for judging, and nobody else is
ever judged. Pixels lie on the disk once: a fold is links to them, with columns and a manifest of its own.
"""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.home import PREPARED_FOLDER
from client.imaging import manifest
from client.imaging.dataset import Dataset
from client.imaging.prepared import COLUMNS_FILE, load_prepared, save_prepared
from client.imaging.splits import Split
from common.errors import TooFewPatients
from common.plan import Plan
from simulations.partition import class_of_patients, folds_of, kept_for_validation
from simulations.stage import Stage, merge

FOLDS = "folds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One fold of every site. `units`: what each site trains on.

    `judged`: patients of each class who are judged, of all sites together, where sites count them.
    """

    number: int
    folder: Path
    units: Mapping[str, int]
    judged: tuple[int, ...]

    def data_of(self, site: str) -> Path:
        return self.folder / site

    def judged_data(self) -> Dataset:
        """Everyone who is judged, of all sites: what only a simulator can look at."""
        parts = {site: load_prepared(self.data_of(site)) for site in self.units}
        return merge({site: data.subset(data.rows_of(Split.VALIDATION)) for site, data in parts.items()})


def deal(stage: Stage, num_folds: int, folder: Path) -> tuple[Fold, ...]:
    """Make the folds of a stage, or find them as they were made. Raises: TooFewPatients, naming the site."""
    return tuple(_fold(stage, number, num_folds, folder / FOLDS / str(number)) for number in range(num_folds))


def sides(data: Dataset, number: int, num_folds: int, validation: float, seed: tuple[int, int]) -> NDArray[np.int8]:
    """The side of each row in one fold, (N,): the same seed gives the same folds. Raises: TooFewPatients."""
    rng = np.random.default_rng([*seed, num_folds])
    if num_folds == 1:
        return kept_for_validation(data, validation, rng)
    return np.where(folds_of(data, num_folds, rng) == number, Split.VALIDATION, Split.TRAIN).astype(np.int8)


def _fold(stage: Stage, number: int, num_folds: int, folder: Path) -> Fold:
    plan, spec = stage.scenario.plan, stage.scenario.simulation
    units, judged = {}, np.zeros(len(plan.task.classes), dtype=np.int64)
    for place, site in enumerate(stage.sites):
        source = stage.home(site) / PREPARED_FOLDER
        if not (folder / site / COLUMNS_FILE).exists():
            data = load_prepared(source)
            try:
                dealt = sides(data, number, num_folds, spec.validation, (plan.training.seed, place))
            except TooFewPatients as error:
                raise TooFewPatients(f"site '{site}': {error.message}", fix=error.fix) from error
            _save(replace(data, splits=dealt), source, folder / site)
        units[site] = _units(plan, folder / site)
        if plan.is_private:
            judged += _judged(load_prepared(folder / site), len(judged))
    return Fold(number=number, folder=folder, units=units, judged=tuple(map(int, judged)))


def _units(plan: Plan, folder: Path) -> int:
    found = manifest.read(folder)
    return found.training_patients if plan.privacy.unit == "patient" else found.training_records


def _judged(data: Dataset, num_classes: int) -> NDArray[np.int64]:
    """Patients of each class on the side that is judged."""
    side = data.subset(data.rows_of(Split.VALIDATION))
    return np.bincount(class_of_patients(side, np.unique(side.patients)), minlength=num_classes)


def _save(data: Dataset, source: Path, folder: Path) -> None:
    """The data set with other sides; what is not changed by that is a link. The columns come last, as `save_prepared` has them."""
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    save_prepared(data, beside)
    for file in source.glob("*.npy"):
        (beside / file.name).unlink()
        os.link(file, beside / file.name)
    beside.replace(folder)

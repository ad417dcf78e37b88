# SPDX-License-Identifier: Apache-2.0
"""How patients are spread over sites, and which are held out.

Everything here moves whole patients: the images of one are never on two sites, nor on both sides of a hold-out. Where a data set has no
patient ids each image counts as its own patient, and the report says so. All functions are pure; the generator is an argument.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.imaging.splits import Split
from common.errors import LabelsMismatch, TooFewPatients
from common.roster import is_name
from simulations.scenario import SimulationSpec

Rows = NDArray[np.int64]
Patients = NDArray[np.int32]

MIN_PATIENTS = 2
_DIRICHLET_TRIES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Rows of a data set for each site by name, and the rows that only the simulator sees."""

    sites: dict[str, Rows]
    holdout: Rows


def spread(data: Dataset, spec: SimulationSpec, rng: np.random.Generator) -> Spread:
    """Hold patients out, deal the rest to sites. Raises: TooFewPatients, LabelsMismatch."""
    data = _numbered_by_appearance(data)
    training, holdout = _hold_out(data, spec, rng)
    match spec.partition:
        case "by-site":
            sites = _by_site(data, training, spec.sites)
        case "iid":
            sites = _named(_iid(data, training, spec.sites, rng))
        case "dirichlet":
            assert spec.alpha is not None
            sites = _named(_dirichlet(data, training, spec.sites, spec.alpha, rng))
    return Spread(sites=sites, holdout=holdout)


def number_kept(patients: int, fraction: float) -> int:
    """How many of so many patients `kept_for_validation` keeps."""
    return math.floor(patients * fraction + 0.5)


def kept_for_validation(data: Dataset, fraction: float, rng: np.random.Generator) -> NDArray[np.int8]:
    """The side of each row, (N,): of every class about that part of the patients is for validation, the others for training."""
    data = _numbered_by_appearance(data)
    patients = _shuffled_by_class(data, np.unique(data.patients), rng)
    kept = np.diff(np.floor(np.arange(patients.size + 1) * fraction + 0.5)) > 0
    return np.where(np.isin(data.patients, patients[kept]), Split.VALIDATION, Split.TRAIN).astype(np.int8)


def folds_of(data: Dataset, num_folds: int, rng: np.random.Generator) -> Rows:
    """The fold of each row, (N,): whole patients, about as many images of each class in every fold. Raises: TooFewPatients."""
    data = _numbered_by_appearance(data)
    patients = np.unique(data.patients)
    if patients.size < num_folds:
        raise TooFewPatients(f"{patients.size} patients for {num_folds} folds.", fix="Use fewer folds, or bring more data.")
    fold_of = np.zeros(int(data.patients.max()) + 1, dtype=np.int64)
    fold_of[patients] = _folds(data, patients, num_folds, rng)
    return fold_of[data.patients]


def _numbered_by_appearance(data: Dataset) -> Dataset:
    """The same rows, patients numbered in the order of their first images.

    The intake numbers them by keyed hash, and the key is another one with each cache: the same plan and seed would spread them differently.
    """
    _, first, patient = np.unique(data.patients, return_index=True, return_inverse=True)
    return replace(data, patients=np.argsort(np.argsort(first)).astype(np.int32)[patient])


def class_of_patients(data: Dataset, patients: Patients) -> Rows:
    """Each patient's class: the one that most of its images have, the higher one in a tie."""
    counts = np.zeros((len(data.patient_keys), int(data.labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (data.patients, data.labels), 1)
    last = counts.shape[1] - 1
    classes: Rows = last - np.argmax(counts[:, ::-1], axis=1)
    return classes[patients]


def _hold_out(data: Dataset, spec: SimulationSpec, rng: np.random.Generator) -> tuple[Rows, Rows]:
    if spec.holdout == "split":
        held = np.flatnonzero(data.splits != Split.TRAIN)
        if held.size in (0, len(data)):
            raise LabelsMismatch(
                'holdout = "split" follows the data\'s own split, but these data have only one part.',
                fix='Add a split column (train, val, test) to index.csv, or set holdout = "fold".',
            )
    else:
        patients = np.unique(data.patients)
        held = np.flatnonzero(np.isin(data.patients, patients[_folds(data, patients, spec.folds, rng) == spec.fold]))
    training = np.setdiff1d(np.arange(len(data)), held)
    if np.unique(data.patients[training]).size < spec.sites * MIN_PATIENTS:
        raise TooFewPatients(
            f"{np.unique(data.patients[training]).size} patients are left for {spec.sites} sites, {MIN_PATIENTS} each are needed.",
            fix="Lower --sites, or bring more data.",
        )
    return training, held


def _folds(data: Dataset, patients: Patients, num_folds: int, rng: np.random.Generator) -> Rows:
    """Each patient's fold, so that folds have about as many images of each class, and of patients, as each other.

    Patients bring one image or fifty. Dealt out by number alone, a fold can get half of a class's images, and training then lacks them. So
    those with most images are placed first, each in the fold that has fewest of its class so far; ties fall at random.
    """
    images = np.bincount(data.patients)[patients]
    classes = class_of_patients(data, patients)
    fold_of = np.empty(patients.size, dtype=np.int64)
    for label in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == label))
        load = np.zeros((num_folds, 2), dtype=np.int64)  # images, patients
        tie = rng.permutation(num_folds)
        for patient in members[np.argsort(-images[members], kind="stable")]:
            fold = np.lexsort((tie, load[:, 1], load[:, 0]))[0]
            fold_of[patient] = fold
            load[fold] += images[patient], 1
    return fold_of


def _by_site(data: Dataset, training: Rows, num_sites: int) -> dict[str, Rows]:
    if data.sites is None or data.site_index is None:
        raise LabelsMismatch(
            'partition = "by-site" needs to know which site an image comes from; these data do not say.',
            fix='Add a site column to index.csv, or set [simulation] partition = "iid" or "dirichlet".',
        )
    names = [data.sites[index] for index in np.unique(data.site_index[training])]
    if len(names) != num_sites:
        raise LabelsMismatch(
            f"the data come from {len(names)} sites, the simulation asks for {num_sites}.",
            fix=f'Use --sites {len(names)}, or [simulation] partition = "iid" or "dirichlet".',
        )
    label_of = {_enrolled(name): name for name in names}
    if len(label_of) < len(names):
        raise LabelsMismatch(
            f"{len(names)} sites in these data have {len(label_of)} names, capitals aside.", fix="Give each site a name of its own."
        )
    if odd := sum(not is_name(name) for name in label_of):
        raise LabelsMismatch(
            f"{odd} of the {len(names)} sites in these data have names that no site can have; they are not shown here, since they could be "
            "patients'.",
            fix="Use up to 64 letters, digits, dots, hyphens and underscores for each site. It will be public.",
        )
    return {name: training[np.asarray(data.sites)[data.site_index[training]] == label_of[name]] for name in sorted(label_of)}


def _enrolled(label: str) -> str:
    """A hospital's folder or label as a roster spells it: without capitals.

    >>> _enrolled("St_Mary")
    'st_mary'
    """
    return label.lower()


def _iid(data: Dataset, training: Rows, num_sites: int, rng: np.random.Generator) -> list[Rows]:
    patients = _shuffled_by_class(data, np.unique(data.patients[training]), rng)
    return [training[np.isin(data.patients[training], patients[site::num_sites])] for site in range(num_sites)]


def _dirichlet(data: Dataset, training: Rows, num_sites: int, alpha: float, rng: np.random.Generator) -> list[Rows]:
    """Hsu et al. 2019 (arXiv 1909.06335), by patient: each class is cut into sites' shares drawn from a Dirichlet distribution."""
    patients = np.unique(data.patients[training])
    classes = class_of_patients(data, patients)
    for _ in range(_DIRICHLET_TRIES):
        owner = np.empty(patients.size, dtype=np.int64)
        for label in np.unique(classes):
            members = rng.permutation(np.flatnonzero(classes == label))
            shares = rng.dirichlet(np.full(num_sites, alpha))
            owner[members] = np.searchsorted(np.cumsum(shares)[:-1], (np.arange(members.size) + 0.5) / members.size)
        if np.bincount(owner, minlength=num_sites).min() >= MIN_PATIENTS:
            return [training[np.isin(data.patients[training], patients[owner == site])] for site in range(num_sites)]
    raise TooFewPatients(
        f"no Dirichlet({alpha:g}) spread in {_DIRICHLET_TRIES} gives each of {num_sites} sites {MIN_PATIENTS} patients.",
        fix="Raise alpha, or lower --sites.",
    )


def _shuffled_by_class(data: Dataset, patients: Patients, rng: np.random.Generator) -> Patients:
    """Patients in random order, grouped by class, so that taking every n-th is balanced by class."""
    order = rng.permutation(patients)
    return order[np.argsort(class_of_patients(data, order), kind="stable")]


def _named(parts: list[Rows]) -> dict[str, Rows]:
    width = max(2, len(str(len(parts) - 1)))
    return {f"site_{number:0{width}d}": rows for number, rows in enumerate(parts)}

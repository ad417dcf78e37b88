# SPDX-License-Identifier: Apache-2.0
"""Folds of patients: whole patients, each held out once, and folds that are like each other even where patients are not."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.imaging.dataset import Dataset, Images
from simulations.partition import spread
from simulations.scenario import SimulationSpec

FOLDS = 5


def data_of(images_of: list[int]) -> Dataset:
    """Patients of so many images each; every second one is of class 1."""
    patients = np.repeat(np.arange(len(images_of), dtype=np.int32), images_of)
    return Dataset(
        images=Images(np.zeros((patients.size, 1, 1, 1), dtype=np.uint16), np.arange(patients.size)),
        labels=(patients % 2).astype(np.int64),
        patients=patients,
        patient_keys=tuple(f"p{number}" for number in range(len(images_of))),
        splits=np.zeros(patients.size, dtype=np.int8),
        unit_source="patient_id",
    )


def _holdouts(data: Dataset, seed: int) -> list[np.ndarray]:
    specs = [SimulationSpec(sites=2, partition="iid", holdout="fold", folds=FOLDS, fold=fold) for fold in range(FOLDS)]
    return [spread(data, spec, np.random.default_rng(seed)).holdout for spec in specs]


@given(st.lists(st.integers(1, 60), min_size=20, max_size=80), st.integers(0, 2**32))
def test_every_patient_is_held_out_exactly_once(images_of: list[int], seed: int) -> None:
    data = data_of(images_of)
    holdouts = _holdouts(data, seed)
    held = np.concatenate([np.unique(data.patients[rows]) for rows in holdouts])
    assert sorted(held) == list(range(len(images_of)))
    assert sum(rows.size for rows in holdouts) == len(data)


@given(st.lists(st.integers(1, 60), min_size=20, max_size=80), st.integers(0, 2**32))
def test_no_fold_has_more_of_a_class_than_another_by_over_the_largest_patient(images_of: list[int], seed: int) -> None:
    data = data_of(images_of)
    counts = np.stack([np.bincount(data.labels[rows], minlength=2) for rows in _holdouts(data, seed)])
    largest = [max(images_of[label::2]) for label in (0, 1)]
    assert (counts.max(axis=0) - counts.min(axis=0) <= largest).all()


def test_patients_alike_are_dealt_out_evenly() -> None:
    data = data_of([3] * 40)
    assert [rows.size for rows in _holdouts(data, 0)] == [24] * FOLDS


def test_another_seed_holds_out_other_patients() -> None:
    data = data_of([3] * 40)
    assert set(_holdouts(data, 0)[0]) != set(_holdouts(data, 1)[0])


@pytest.mark.parametrize("partition", ["iid", "dirichlet"])
def test_the_same_seed_spreads_the_same_under_another_patient_secret(partition: Literal["iid", "dirichlet"]) -> None:
    """Patients are numbered by keyed hash; another secret gives them other numbers, and must not give them other sites."""
    data = data_of(list(range(1, 41)))
    renumbered = replace(data, patients=np.random.default_rng(7).permutation(40).astype(np.int32)[data.patients])
    spec = SimulationSpec(sites=3, partition=partition, alpha=1.0 if partition == "dirichlet" else None, holdout="fold", folds=FOLDS)
    one, other = (spread(each, spec, np.random.default_rng(3)) for each in (data, renumbered))
    np.testing.assert_array_equal(one.holdout, other.holdout)
    assert {site: rows.tolist() for site, rows in one.sites.items()} == {site: rows.tolist() for site, rows in other.sites.items()}

# SPDX-License-Identifier: Apache-2.0
"""Folds of every site's patients: each patient is judged in exactly one, is trained on in the others, and never leaves their site."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.imaging import manifest
from client.imaging.prepared import PIXELS_FILE
from client.imaging.splits import Split
from common.errors import TooFewPatients
from simulations.stage import HOLDOUT, Stage
from simulations.tuning.folds import deal, sides
from tests.journeys.made import made_scenario, made_stage
from tests.simulations.test_folds import data_of


@given(st.lists(st.integers(1, 9), min_size=10, max_size=60), st.integers(2, 5), st.integers(0, 2**32))
def test_every_patient_is_judged_in_exactly_one_fold_with_all_their_images(images_of: list[int], num_folds: int, seed: int) -> None:
    data = data_of(images_of)
    dealt = np.stack([sides(data, number, num_folds, 0.2, (seed, 0)) for number in range(num_folds)])
    assert ((dealt == Split.VALIDATION).sum(axis=0) == 1).all()
    assert ((dealt == Split.TRAIN).sum(axis=0) == num_folds - 1).all()
    for patient in range(len(images_of)):
        assert len(np.unique(dealt[:, data.patients == patient], axis=1)[0]) == 1


@given(st.lists(st.integers(1, 9), min_size=10, max_size=60), st.integers(0, 2**32))
def test_with_one_fold_a_part_of_the_patients_is_judged(images_of: list[int], seed: int) -> None:
    data = data_of(images_of)
    dealt = sides(data, 0, 1, 0.2, (seed, 0))
    judged = {int(patient) for patient in data.patients[dealt == Split.VALIDATION]}
    trained = {int(patient) for patient in data.patients[dealt == Split.TRAIN]}
    assert not judged & trained
    assert len(judged) == pytest.approx(0.2 * len(images_of), abs=1)


def test_folds_do_not_depend_on_the_secret_that_numbers_patients() -> None:
    data = data_of(list(range(1, 31)))
    renumbered = replace(data, patients=np.random.default_rng(7).permutation(30).astype(np.int32)[data.patients])
    for number in range(3):
        np.testing.assert_array_equal(sides(data, number, 3, 0.2, (1, 2)), sides(renumbered, number, 3, 0.2, (1, 2)))


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(TooFewPatients, match="3 patients for 5 folds"):
        sides(data_of([1, 2, 3]), 0, 5, 0.2, (0, 0))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return made_stage(tmp_path_factory.mktemp("folds") / "stage", made_scenario(private=True))


def test_no_patient_of_a_site_is_on_two_sides_or_at_another_site(stage: Stage) -> None:
    folds = deal(stage, 3, stage.folder.parent)
    for site in stage.sites:
        everyone = {row.key for row in manifest.read(stage.home(site) / "data").patients}
        judged: list[str] = []
        for fold in folds:
            found = manifest.read(fold.data_of(site))
            assert {row.key for row in found.patients} == everyone
            judged += [row.key for row in found.patients if row.split == Split.VALIDATION]
        assert sorted(judged) == sorted(everyone), "each once"


def test_who_is_held_out_for_the_final_score_is_in_no_fold(stage: Stage) -> None:
    held_out = {row.key for row in manifest.read(stage.folder / HOLDOUT).patients}
    assert held_out
    for fold in deal(stage, 3, stage.folder.parent):
        for site in stage.sites:
            assert not held_out & {row.key for row in manifest.read(fold.data_of(site)).patients}


def test_pixels_lie_on_the_disk_once_and_folds_are_found_again_as_they_were(stage: Stage, tmp_path: Path) -> None:
    folds = deal(stage, 2, stage.folder.parent / "again")
    site = stage.sites[0]
    pixels = (stage.home(site) / "data" / PIXELS_FILE).stat().st_ino
    assert all((fold.data_of(site) / PIXELS_FILE).stat().st_ino == pixels for fold in folds)
    before = [(fold.data_of(site) / manifest.MANIFEST_FILE).read_bytes() for fold in folds]
    assert [(fold.units, fold.judged) for fold in deal(stage, 2, stage.folder.parent / "again")] == [(f.units, f.judged) for f in folds]
    assert [(fold.data_of(site) / manifest.MANIFEST_FILE).read_bytes() for fold in folds] == before
    assert before[0] != before[1]

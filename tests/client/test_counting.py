# SPDX-License-Identifier: Apache-2.0
"""What a site counts: each unit once, a patient by all images of theirs, and nobody's absence stops the answer."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from client.counting import judged, measured, noised
from client.imaging.dataset import Dataset, Images
from client.release import counts_on_lattice
from client.training import predict
from common.counting import evaluation, form_of
from common.errors import NoPatientId
from common.models import initial_weights
from common.plan import Plan
from common.secagg.terms import Kind
from tests.common.counting.plans import counting_plan
from tests.common.secagg.federation import seeded

PATIENT = counting_plan(("height = 64\nwidth = 64", "height = 16\nwidth = 16"))
RECORD = counting_plan(("height = 64\nwidth = 64", "height = 16\nwidth = 16"), ('"patient"', '"record"'))
IMAGES_OF = (1, 7, 3, 1, 12, 2, 2, 5)


@pytest.fixture
def data() -> Dataset:
    """Eight patients with one to twelve images, in no order."""
    rng = np.random.default_rng(1)
    patients = rng.permutation(np.repeat(np.arange(len(IMAGES_OF)), IMAGES_OF))
    pixels = rng.integers(0, 2**16, (len(patients), 1, 16, 16)).astype(np.uint16)
    return Dataset(
        images=Images(pixels, np.arange(len(patients))),
        labels=rng.integers(0, 2, len(patients)),
        patients=patients.astype(np.int32),
        patient_keys=tuple("abcdefgh"),
        splits=np.zeros(len(patients), dtype=np.int8),
        unit_source="patient_id",
    )


def both(plan: Plan, data: Dataset) -> dict[Kind, NDArray[np.int64]]:
    return {Kind.EVAL: judged(initial_weights(plan), data, plan), Kind.STAT: measured(data, plan)}


@pytest.mark.parametrize("patient", range(len(IMAGES_OF)))
def test_taking_a_patient_away_moves_a_count_by_what_is_charged_for_however_many_images_they_have(data: Dataset, patient: int) -> None:
    whole, without = both(PATIENT, data), both(PATIENT, data.subset(data.patients != patient))
    for kind, counts in whole.items():
        form = form_of(PATIENT, kind)
        assert 0 < np.linalg.norm(counts - without[kind]) <= form.clip_steps
    assert np.abs(whole[Kind.EVAL] - without[Kind.EVAL]).sum() == form_of(PATIENT, Kind.EVAL).steps


@pytest.mark.parametrize("row", [0, 11, 32])
def test_with_records_as_units_one_image_moves_a_count_by_as_much(data: Dataset, row: int) -> None:
    rest = np.arange(len(data)) != row
    whole, without = both(RECORD, data), both(RECORD, data.subset(rest))
    for kind, counts in whole.items():
        assert 0 < np.linalg.norm(counts - without[kind]) <= form_of(RECORD, kind).clip_steps
    assert whole[Kind.EVAL].sum() == len(data) * form_of(RECORD, Kind.EVAL).steps


def test_a_patient_is_judged_by_the_mean_over_their_images(data: Dataset) -> None:
    weights = initial_weights(PATIENT)
    probabilities = predict(weights, data, PATIENT)[:, 1]
    table = (judged(weights, data, PATIENT) // form_of(PATIENT, Kind.EVAL).steps).reshape(2, -1)
    expected = np.zeros_like(table)
    edges = np.array(evaluation.edges(PATIENT))
    for patient in range(len(IMAGES_OF)):
        mine = data.patients == patient
        expected[int(data.labels[mine].any()), np.searchsorted(edges[1:-1], probabilities[mine].mean(), side="right")] += 1
    assert np.array_equal(table, expected)


def test_every_patient_counts_alike_in_the_intensity(data: Dataset) -> None:
    form = form_of(PATIENT, Kind.STAT)
    counts = measured(data, PATIENT) / form.steps
    of_each = [data.images[:][data.patients == patient] / 65535 for patient in range(len(IMAGES_OF))]
    means, squares = np.array([each.mean() for each in of_each]), np.array([np.square(each).mean() for each in of_each])
    assert counts[:2].sum() == len(IMAGES_OF)
    assert counts[2] == pytest.approx((means - 0.5).sum(), abs=len(IMAGES_OF) / form.steps)
    assert counts[3] == pytest.approx((squares - 0.5).sum(), abs=len(IMAGES_OF) / form.steps)


def test_a_site_without_patients_counts_nobody_and_answers_all_the_same(data: Dataset) -> None:
    nobody = data.subset(np.zeros(len(data), dtype=bool))
    for kind, counts in both(PATIENT, nobody).items():
        form = form_of(PATIENT, kind)
        assert not counts.any()
        assert counts.shape == (len(form.cells),)
        words = counts_on_lattice(noised(counts, form, seeded(kind)), form.grid, weight=1).words
        assert words.any()


def test_the_noise_is_on_every_cell_and_as_wide_as_the_form_says(data: Dataset) -> None:
    form = form_of(PATIENT, Kind.EVAL)
    counts = judged(initial_weights(PATIENT), data, PATIENT)
    draws = np.stack([noised(counts, form, seeded("draw", number)).values - counts for number in range(2000)])
    assert np.abs(draws.std(axis=0) / form.noise_sd(1) / form.steps - 1).max() < 0.1
    assert draws.std() == pytest.approx(form.noise_sd(1) * form.steps, rel=0.02)


def test_weights_of_the_roster_scale_no_count(data: Dataset) -> None:
    form = form_of(PATIENT, Kind.EVAL)
    counts = noised(judged(initial_weights(PATIENT), data, PATIENT), form, seeded(0))
    light, heavy = (counts_on_lattice(counts, form.grid, weight=weight) for weight in (1, 4))
    assert np.array_equal(light.words, heavy.words)
    assert heavy.weight == 4


def test_data_that_tell_no_patients_apart_are_not_counted_by_patient(data: Dataset) -> None:
    unnamed = replace(data, unit_source="none")
    with pytest.raises(NoPatientId):
        measured(unnamed, PATIENT)

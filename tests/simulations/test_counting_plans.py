# SPDX-License-Identifier: Apache-2.0
"""Plans that count, for people; and the patients whom a simulation keeps for it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from client.imaging.dataset import Dataset, Images
from client.imaging.splits import Split
from simulations import scenario
from simulations.partition import kept_for_validation, number_kept
from simulations.plan_cli import TEMPLATE, in_words
from tests.common.counting.plans import counting_plan


def test_the_templates_comments_are_a_plan_once_their_marks_are_taken_away() -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    assert scenario.parse(text).plan.evaluation is None
    # Only what is counted: other keys of the template are for other images, and some of them exclude each other.
    counted = re.compile(r"(?m)^# \[(?:evaluation|statistics)\].*(?:\n#.*)*")
    asked = scenario.parse(counted.sub(lambda block: re.sub(r"(?m)^# (?=\[|\w+ = )", "", block[0]), text)).plan
    assert asked.evaluation is not None
    assert asked.statistics is not None
    assert [*asked.evaluation_rounds] == [11, 21, 31, 41, 51]


def test_a_plan_says_in_words_what_it_counts_and_what_for() -> None:
    words = "\n".join(in_words(counting_plan()))
    assert (
        "3 of the models, the last among them, judged on patients whom no site trains on; noised counts, epsilon 1 of the plan's" in words
    )
    assert "classes and intensity of the training data, once, noised, for epsilon 0.5" in words
    assert "judged" not in "\n".join(in_words(scenario.load(scenario.find("default")).plan))


def test_a_plan_says_in_words_which_images_it_takes() -> None:
    plan = counting_plan()
    assert "Of these" not in "\n".join(in_words(plan))
    chosen = replace(plan.input, frames="each", spacing_mm=0.5, laterality="L", views=("PA", "AP"), tissue=0.25, orientation="stored")
    assert (
        "Of these: each of several frames; pixels of 0.5 mm; as they were stored, not turned; side L only; views PA, AP only; "
        "tiles with at least 25% of tissue." in in_words(replace(plan, input=chosen))
    )


def dataset(patients: np.ndarray, labels: np.ndarray) -> Dataset:
    return Dataset(
        images=Images(np.zeros((len(patients), 1, 2, 2), dtype=np.uint16), np.arange(len(patients))),
        labels=labels,
        patients=patients.astype(np.int32),
        patient_keys=tuple(f"key {number}" for number in range(patients.max() + 1)),
        splits=np.zeros(len(patients), dtype=np.int8),
        unit_source="patient_id",
    )


@pytest.mark.parametrize("fraction", [0.1, 0.34, 0.5, 0.9])
def test_that_part_of_the_patients_of_every_class_is_kept_and_nobody_is_on_both_sides(fraction: float) -> None:
    rng = np.random.default_rng(0)
    patients = rng.permutation(np.repeat(np.arange(200), rng.integers(1, 5, 200)))
    data = dataset(patients, (patients % 5 == 0).astype(np.int64))
    sides = kept_for_validation(data, fraction, np.random.default_rng(1))
    kept = np.unique(patients[sides == Split.VALIDATION])
    assert not set(kept) & set(patients[sides == Split.TRAIN])
    assert len(kept) == number_kept(200, fraction)
    assert (kept % 5 == 0).sum() == pytest.approx(40 * fraction, abs=1)


def test_the_same_patients_are_kept_however_they_are_numbered() -> None:
    """Keyed ids, and with them the order of patients, are others with each cache."""
    patients = np.random.default_rng(2).integers(0, 30, 100)
    renumbered = np.random.default_rng(3).permutation(30)[patients]
    labels = patients % 2
    one, other = (kept_for_validation(dataset(each, labels), 0.3, np.random.default_rng(4)) for each in (patients, renumbered))
    assert np.array_equal(one, other)

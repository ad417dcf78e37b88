# SPDX-License-Identifier: Apache-2.0
"""What is read off noised counts: right without noise, inside its interval with it, and unsaid where noise is all there is."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from common.counting import Counted, evaluation, form_of, intervals
from common.counting.evaluation import EvaluationFigures
from common.counting.intervals import nearest
from common.plan import Plan
from common.secagg.terms import Kind
from tests.common.counting.plans import THREE, counting_plan

PLAN = counting_plan(("threshold = 0.5", "threshold = 0.4"), ("every = 1", "every = 1\nbins = 100"))
COARSE = counting_plan(("threshold = 0.5", "threshold = 0.4"))


def patients(seed: int, negatives: int, positives: int, *, sure: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores of a model that is neither blind nor perfect; `sure` of itself or less so."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [negatives, positives])
    score = 1 / (1 + np.exp(-sure * rng.normal(1.5 * labels - 0.75, 1.0)))
    return np.stack([1 - score, score], axis=1).astype(np.float32), labels


def judged(plan: Plan, probabilities: NDArray[np.float32], labels: NDArray[np.int64], *, noise_sd: float = 0.0, seed: int = 0) -> Counted:
    exact = evaluation.count(plan, probabilities, labels) / form_of(plan, Kind.EVAL).steps
    return Counted(values=exact + np.random.default_rng(seed).normal(0, noise_sd, exact.size), num_sites=4, noise_sd=noise_sd)


def test_without_noise_the_figures_are_those_of_the_patients() -> None:
    probabilities, labels = patients(1, 400, 300)
    found = evaluation.figures(PLAN, judged(PLAN, probabilities, labels))
    said = probabilities[:, 1] >= 0.4
    assert found.auc is not None
    assert found.balanced_accuracy is not None
    assert found.accuracy is not None
    specificity, sensitivity = found.recall
    assert specificity is not None
    assert sensitivity is not None
    assert found.auc.value == pytest.approx(roc_auc_score(labels, probabilities[:, 1]), abs=0.002)
    assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, said))
    assert found.accuracy.value == pytest.approx((said == labels).mean())
    assert specificity.value == pytest.approx((~said)[labels == 0].mean())
    assert sensitivity.value == pytest.approx(said[labels == 1].mean())
    assert found.units == 700


@pytest.mark.parametrize(("sure", "lost"), [(3.0, 0.01), (1.0, 0.01), (0.3, 0.06), (0.03, 0.4)])
def test_bins_cost_area_downwards_only_and_the_interval_knows_it(sure: float, lost: float) -> None:
    """A model that is sure of nothing has all its patients in a few bins: what they hide is said, and not passed over."""
    probabilities, labels = patients(2, 4000, 4000, sure=sure)
    found, exact = evaluation.figures(COARSE, judged(COARSE, probabilities, labels)), roc_auc_score(labels, probabilities[:, 1])
    assert found.auc is not None
    assert found.tied is not None
    assert 0 <= exact - found.auc.value < lost
    assert exact - found.auc.value <= found.tied.value / 2
    assert found.auc.low <= exact <= found.auc.high
    assert found.auc.high >= found.auc.value + found.tied.value / 2


def test_of_more_classes_the_confusion_matrix_is_read() -> None:
    plan = counting_plan(THREE)
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 500)
    raw = rng.random((500, 3)) + 0.4 * np.eye(3)[labels]
    probabilities = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    found = evaluation.figures(plan, judged(plan, probabilities, labels))
    assert found.auc is None
    assert found.balanced_accuracy is not None
    assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, probabilities.argmax(axis=1)))


@pytest.mark.parametrize(("negatives", "positives", "noise_sd"), [(150, 100, 0.0), (150, 100, 2.0), (1500, 800, 25.0), (800, 800, 25.0)])
def test_intervals_hold_what_they_promise(negatives: int, positives: int, noise_sd: float) -> None:
    """Over many samples of patients and many draws of noise, the true figure of the model is inside nine times in ten or more."""
    trials, inside = 150, {"auc": 0, "balanced_accuracy": 0}
    everyone = patients(99, 200_000, 200_000)
    truth = evaluation.figures(COARSE, judged(COARSE, *everyone))
    for trial in range(trials):
        found = evaluation.figures(COARSE, judged(COARSE, *patients(trial, negatives, positives), noise_sd=noise_sd, seed=1000 + trial))
        for name in inside:
            estimate, true = getattr(found, name), getattr(truth, name)
            assert estimate is not None
            inside[name] += estimate.low <= true.value <= estimate.high
    assert min(inside.values()) >= 0.9 * trials, inside


def test_the_noise_widens_the_interval() -> None:
    widths = []
    for noise_sd in (0.0, 5.0, 15.0):
        found = evaluation.figures(COARSE, judged(COARSE, *patients(4, 300, 300), noise_sd=noise_sd))
        assert found.auc is not None
        widths.append(found.auc.high - found.auc.low)
    assert widths == sorted(widths)
    assert widths[2] > 2 * widths[0]


def test_noise_pulls_the_area_to_neither_side() -> None:
    """Negative counts stay in: cut off at zero they would drag every figure towards chance."""
    probabilities, labels = patients(5, 300, 200)
    exact = evaluation.figures(COARSE, judged(COARSE, probabilities, labels)).auc
    assert exact is not None
    found = [evaluation.figures(COARSE, judged(COARSE, probabilities, labels, noise_sd=8.0, seed=seed)).auc for seed in range(200)]
    mean = np.mean([each.value for each in found if each is not None])
    assert mean == pytest.approx(exact.value, abs=0.02)


@pytest.mark.parametrize("noise_sd", [20.0, 1000.0])
def test_of_too_few_patients_beside_the_noise_nothing_is_said(noise_sd: float) -> None:
    found = evaluation.figures(COARSE, judged(COARSE, *patients(6, 30, 30), noise_sd=noise_sd))
    assert (found.auc, found.accuracy, found.balanced_accuracy, found.recall) == (None, None, None, (None, None))
    assert found.noise_sd == noise_sd


def test_of_an_absent_class_nothing_is_said_and_of_the_other_something_is() -> None:
    found: EvaluationFigures = evaluation.figures(COARSE, judged(COARSE, *patients(7, 500, 0), noise_sd=2.0))
    assert found.auc is None
    assert found.balanced_accuracy is None
    assert found.recall[0] is not None
    assert found.recall[1] is None


def test_the_same_counts_give_the_same_figures() -> None:
    counted = judged(COARSE, *patients(8, 100, 100), noise_sd=3.0)
    assert evaluation.figures(COARSE, counted) == evaluation.figures(COARSE, counted)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-50, 50), min_size=4, max_size=4), min_size=1, max_size=3))
def test_the_nearest_table_is_one_that_patients_can_make(rows: list[list[float]]) -> None:
    table = np.array(rows)
    found = nearest(table)
    assert (found >= 0).all()
    assert np.allclose(found.sum(axis=1), np.maximum(table.sum(axis=1), 0), atol=1e-9)
    rng = np.random.default_rng(0)
    for row, close in zip(table, found, strict=True):
        if row.sum() > 0:
            for other in rng.dirichlet(np.ones(4), size=20) * row.sum():
                assert np.linalg.norm(row - close) <= np.linalg.norm(row - other) + 1e-9


def test_the_example_of_the_docstring() -> None:
    assert doctest.testmod(intervals).failed == 0

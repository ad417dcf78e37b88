# SPDX-License-Identifier: Apache-2.0
"""Calibration against torchmetrics, scikit-learn and patients whose truth is drawn with the probability foretold."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from common.tasks.scoring.benefit import decision_curve, useful_range
from common.tasks.scoring.calibration import calibration
from tests.common.tasks.scoring.made import predictions


def two(positive):
    return np.stack([1 - positive, positive], axis=1)


@pytest.mark.parametrize("norm", ["l1", "max"])
def test_gaps_are_those_of_torchmetrics(norm):
    probabilities, labels, _ = predictions(2, images=500)
    found = calibration(probabilities, labels)
    wanted = binary_calibration_error(torch.from_numpy(probabilities[:, 1].copy()), torch.from_numpy(labels), n_bins=10, norm=norm)
    assert (found.ece if norm == "l1" else found.largest_gap) == pytest.approx(float(wanted), abs=1e-5)


def test_with_more_classes_the_likeliest_one_is_judged():
    probabilities, labels, _ = predictions(4, images=500)
    wanted = multiclass_calibration_error(torch.from_numpy(probabilities), torch.from_numpy(labels), 4, n_bins=10)
    assert calibration(probabilities, labels).ece == pytest.approx(float(wanted), abs=1e-5)


def test_slope_is_that_of_a_logistic_regression():
    probabilities, labels, _ = predictions(2, images=300, signal=0.8)
    odds = np.log(probabilities[:, 1].astype(float) / (1 - probabilities[:, 1].astype(float)))
    fitted = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(odds[:, None], labels)
    assert calibration(probabilities, labels).slope == pytest.approx(fitted.coef_[0, 0], rel=1e-4)


def test_probabilities_that_come_true_have_slope_one_and_no_shift():
    rng = np.random.default_rng(0)
    foretold = rng.beta(2, 3, 20_000)
    found = calibration(two(foretold), (rng.random(20_000) < foretold).astype(np.int64))
    assert found.slope == pytest.approx(1, abs=0.06)
    assert found.intercept == pytest.approx(0, abs=0.06)
    assert found.ece < 0.02


def test_too_sure_is_a_slope_below_one_and_too_often_an_intercept_below_nothing():
    rng = np.random.default_rng(1)
    odds = rng.normal(size=20_000)
    so = (rng.random(20_000) < 1 / (1 + np.exp(-odds))).astype(np.int64)
    assert calibration(two(1 / (1 + np.exp(-2 * odds))), so).slope == pytest.approx(0.5, abs=0.05)
    assert calibration(two(1 / (1 + np.exp(-odds - 1))), so).intercept == pytest.approx(-1, abs=0.1)


def test_where_a_threshold_parts_all_there_is_no_slope():
    foretold = np.array([0.1, 0.2, 0.8, 0.9])
    found = calibration(two(foretold), np.array([0, 0, 1, 1]))
    assert found.slope is None
    assert found.intercept == pytest.approx(0, abs=1e-6)
    assert calibration(two(foretold), np.ones(4, dtype=np.int64)).intercept is None


def test_probabilities_of_nothing_and_one_stay_finite():
    found = calibration(two(np.array([0.0, 1.0, 0.0, 1.0, 0.5])), np.array([0, 1, 1, 0, 1]))
    assert found.slope == pytest.approx(0, abs=0.2)


def test_a_model_that_knows_is_of_use_everywhere_and_one_that_errs_nowhere():
    ill = np.arange(40) < 10
    knows, errs = np.where(ill, 0.999, 0.001), np.where(ill, 0.001, 0.999)
    assert useful_range(decision_curve(knows, ill)) == (0.01, 0.99)
    assert useful_range(decision_curve(errs, ill)) is None
    assert decision_curve(knows[:0], ill[:0]) == ()


def test_acting_on_everyone_is_what_a_model_that_calls_everyone_gains():
    ill = np.arange(30) < 9
    for point in decision_curve(np.ones(30), ill):
        assert point.model == pytest.approx(point.everyone)

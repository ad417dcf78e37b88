# SPDX-License-Identifier: Apache-2.0
"""Curves against an independent implementation, and at the edges where a curve has nothing to say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_curve

from common.tasks.scoring.proportion import wilson
from simulations.report import curves
from simulations.report.folder import Predictions
from simulations.report.scores import ModelScores
from simulations.report.tabled import Estimate


def binary(positive: list[float], labels: list[int]) -> Predictions:
    return Predictions(federated=tuple((1 - p, p) for p in positive), labels=tuple(labels))


def with_confusion(*rows: tuple[int, int]) -> ModelScores:
    nothing = Estimate()
    return ModelScores(unit="patient", count=140, headline=nothing, balanced_accuracy=nothing, accuracy=nothing, confusion=rows)


tied_patients = st.lists(st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.integers(0, 1)), min_size=2, max_size=60).filter(
    lambda patients: len({label for _, label in patients}) == 2
)


@given(tied_patients)
def test_roc_agrees_with_scikit_learn_even_with_ties(patients: list[tuple[float, int]]) -> None:
    positive, labels = [p for p, _ in patients], [label for _, label in patients]
    [curve] = curves.roc(binary(positive, labels), ("no", "yes"), None)
    false, true, _ = roc_curve(labels, positive, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive, false)
    np.testing.assert_allclose(curve.true_positive, true)


@given(tied_patients)
def test_roc_does_not_depend_on_the_order_of_patients(patients: list[tuple[float, int]]) -> None:
    turned = patients[::-1]
    one, other = (curves.roc(binary([p for p, _ in some], [y for _, y in some]), ("no", "yes"), None) for some in (patients, turned))
    assert one == other


def test_calibration_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(500)
    labels = (rng.random(500) < positive).astype(int)
    bins = curves.calibration(binary(positive.tolist(), labels.tolist()))
    found, foretold = calibration_curve(labels, positive, n_bins=curves.NUM_BINS)
    np.testing.assert_allclose([group.found for group in bins], found)
    np.testing.assert_allclose([group.foretold for group in bins], foretold, rtol=1e-6)
    assert sum(group.count for group in bins) == 500
    assert all(group.low <= group.found <= group.high for group in bins)


@given(st.integers(1, 200).flatmap(lambda size: st.tuples(st.integers(0, size), st.just(size))))
def test_wilsons_interval_solves_its_equation(case: tuple[int, int]) -> None:
    hits, size = case
    share = hits / size
    interval = wilson(hits, size)
    for edge in (interval.low, interval.high):
        if 1e-9 < edge < 1 - 1e-9:
            assert abs(share - edge) == pytest.approx(1.959963984540054 * (edge * (1 - edge) / size) ** 0.5, rel=1e-6)


def test_the_operating_point_is_that_of_the_confusion_matrix() -> None:
    [curve] = curves.roc(binary([0.2, 0.9], [0, 1]), ("no", "yes"), with_confusion((80, 20), (10, 30)))
    assert curve.operating_point == (0.2, 0.75)
    assert curve.label == "yes"
    assert "sensitivity 0.75, specificity 0.80" in curves.describe(curve)


def test_many_classes_have_a_curve_each_without_a_threshold() -> None:
    predictions = Predictions(federated=((0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.3, 0.3, 0.4)), labels=(0, 1, 2))
    drawn = curves.roc(predictions, ("a", "b", "c"), None)
    assert [curve.label for curve in drawn] == ["a", "b", "c"]
    assert all(curve.operating_point is None for curve in drawn)


def test_a_class_that_nobody_has_gets_no_curve() -> None:
    assert curves.roc(binary([0.1, 0.9], [0, 0]), ("no", "yes"), None) == []

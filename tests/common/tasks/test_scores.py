# SPDX-License-Identifier: Apache-2.0
"""Scores against scikit-learn and against counting by hand; resampling against drawing patients one by one."""

import json
import time

import numpy as np
import pytest
from sklearn import metrics

from common.plan import ClassificationSpec
from common.tasks import by_patient, calibration_bins, decide, evaluate, roc_curve
from common.tasks.bootstrap import auc_by_weight, intervals

TWO = ClassificationSpec(kind="classification", classes=("healthy", "nodule"))
THREE = ClassificationSpec(kind="classification", classes=("normal", "benign", "malignant"))


def predictions(classes, records=120, patients=40, seed=0, signal=1.5):
    rng = np.random.default_rng(seed)
    patient = rng.integers(0, patients, records).astype(np.int32)
    labels = rng.integers(0, classes, patients)[patient]
    logits = rng.normal(size=(records, classes)) + signal * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32).round(2), labels, patient


@pytest.mark.parametrize("spec", [TWO, THREE])
def test_scores_are_those_of_scikit_learn(spec):
    probabilities, labels, patients = predictions(len(spec.classes))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    scores = evaluate(spec, probabilities, labels, patients, resamples=10)
    for level, p, y in ((scores.images, probabilities, labels), (scores.patients, *by_patient(probabilities, labels, patients))):
        said = decide(p, 0.5)
        precision, recall, f1, support = metrics.precision_recall_fscore_support(y, said)
        expected_auc = metrics.roc_auc_score(y, p[:, 1] if p.shape[1] == 2 else p, multi_class="ovr")
        assert level.auc == pytest.approx(expected_auc, abs=1e-6)
        assert level.accuracy == pytest.approx(metrics.accuracy_score(y, said))
        assert level.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(y, said))
        assert [one.precision for one in level.classes] == pytest.approx(precision.tolist())
        assert [one.recall for one in level.classes] == pytest.approx(recall.tolist())
        assert [one.f1 for one in level.classes] == pytest.approx(f1.tolist())
        assert [one.support for one in level.classes] == support.tolist()
        assert np.array_equal(level.confusion, metrics.confusion_matrix(y, said))
        assert level.count == len(y)


def test_a_patient_is_the_mean_of_its_images_and_ill_if_any_image_shows_it():
    probabilities = np.array([[0.9, 0.1], [0.3, 0.7], [0.8, 0.2]], dtype=np.float32)
    pooled, labels = by_patient(probabilities, np.array([0, 1, 0]), np.array([7, 7, 3], dtype=np.int32))
    np.testing.assert_allclose(pooled, [[0.8, 0.2], [0.6, 0.4]], atol=1e-6)
    assert labels.tolist() == [0, 1]


def test_with_more_classes_a_patient_has_the_commonest_label():
    probabilities = np.full((5, 3), 1 / 3, dtype=np.float32)
    _, labels = by_patient(probabilities, np.array([2, 1, 2, 1, 0]), np.array([0, 0, 0, 1, 1], dtype=np.int32))
    assert labels.tolist() == [2, 0]


def test_the_threshold_decides_between_two_classes():
    probabilities = np.array([[0.75, 0.25], [0.74, 0.26]], dtype=np.float32)
    assert decide(probabilities, 0.26).tolist() == [0, 1]
    strict = ClassificationSpec(kind="classification", classes=("healthy", "nodule"), threshold=0.2)
    assert evaluate(strict, probabilities, np.array([1, 1])).images.accuracy == 1.0
    assert evaluate(TWO, probabilities, np.array([1, 1])).images.accuracy == 0.0


@pytest.mark.parametrize("spec", [TWO, THREE])
def test_one_class_only_leaves_unsaid_what_cannot_be_said(spec):
    probabilities, _, patients = predictions(len(spec.classes), records=10)
    scores = evaluate(spec, probabilities, np.zeros(10, dtype=np.int64), patients, resamples=20)
    assert scores.images.auc is None
    assert scores.patients.auc is None
    assert scores.intervals["auc"] is None
    assert scores.images.balanced_accuracy == scores.images.classes[0].recall
    assert scores.images.classes[1].recall is None
    assert "NaN" not in json.dumps(scores.as_dict())


def test_nobody_at_all_has_no_score():
    empty = np.zeros((0, 2), dtype=np.float32), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32)
    scores = evaluate(TWO, *empty)
    assert scores.images.count == 0
    assert (scores.images.auc, scores.images.accuracy, scores.images.balanced_accuracy) == (None, None, None)
    assert set(scores.intervals.values()) == {None}
    assert scores.headline.value is None
    assert json.loads(json.dumps(scores.as_dict()))["patients"]["confusion"] == [[0, 0], [0, 0]]


def test_without_patients_there_is_no_interval():
    probabilities, labels, _ = predictions(2)
    scores = evaluate(TWO, probabilities, labels)
    assert scores.patients is None
    assert scores.intervals is None


@pytest.mark.parametrize("spec", [TWO, THREE])
def test_a_weighted_auc_is_the_auc_of_the_resampled_patients(spec):
    probabilities, labels, _ = predictions(len(spec.classes), records=60)
    rng = np.random.default_rng(1)
    counts = rng.multinomial(60, np.full(60, 1 / 60), size=20)
    weighted = auc_by_weight(probabilities, labels, counts.astype(float))
    for count, auc in zip(counts, weighted, strict=True):
        rows = np.repeat(np.arange(60), count)
        p, y = probabilities[rows], labels[rows]
        each = [metrics.roc_auc_score(y == c, p[:, c]) for c in range(p.shape[1])]
        assert auc == pytest.approx(each[1] if p.shape[1] == 2 else np.mean(each), abs=1e-9)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Accuracy of a coin that is right 70 % of the time, 200 patients, 200 repetitions: 95 % of intervals should hold 0.7."""
    rng, covered = np.random.default_rng(0), 0
    for repetition in range(200):
        labels, right = rng.integers(0, 2, 200), rng.random(200) < 0.7
        said = np.where(right, labels, 1 - labels)
        interval = intervals(np.eye(2, dtype=np.float32)[said], labels, said, resamples=300, seed=repetition)["accuracy"]
        covered += interval.low <= 0.7 <= interval.high
    assert 0.90 * 200 <= covered <= 0.99 * 200


def test_many_images_of_few_patients_do_not_narrow_the_interval():
    probabilities, labels, patients = predictions(2, records=60, patients=20, signal=0.4)
    once = evaluate(TWO, probabilities, labels, patients).intervals["auc"]
    tenfold = evaluate(TWO, *(np.repeat(column, 10, axis=0) for column in (probabilities, labels, patients))).intervals["auc"]
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high), abs=1e-6)
    assert once.high - once.low > 0.1


def test_a_thousand_resamples_of_a_thousand_patients_take_less_than_a_second():
    probabilities, labels, _ = predictions(3, records=1000, patients=1000)
    started = time.process_time()
    intervals(probabilities, labels, decide(probabilities, 0.5), resamples=1000, seed=0)
    assert time.process_time() - started < 1


def test_the_roc_curve_is_scikit_learns_and_its_area_the_auc():
    probabilities, labels, _ = predictions(2)
    curve = roc_curve(probabilities[:, 1], labels == 1)
    false, true, thresholds = metrics.roc_curve(labels == 1, probabilities[:, 1], drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rate, false)
    np.testing.assert_allclose(curve.true_positive_rate, true)
    np.testing.assert_allclose(curve.threshold[1:], thresholds[1:])
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(evaluate(TWO, probabilities, labels).images.auc, abs=1e-6)
    assert roc_curve(probabilities[:, 1], labels >= 0) is None


def test_calibration_bins_hold_everybody_and_say_how_often_it_was_so():
    scores = np.array([0.05, 0.051, 0.5, 0.55, 1.0], dtype=np.float32)
    positive = np.array([False, True, True, True, True])
    bins = calibration_bins(scores, positive)
    assert [one.count for one in bins] == [2, 2, 1]
    assert [one.frequency for one in bins] == [0.5, 1.0, 1.0]
    assert [one.mean_probability for one in bins] == pytest.approx([0.0505, 0.525, 1.0])
    assert calibration_bins(scores[:0], positive[:0]) == ()

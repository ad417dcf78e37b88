# SPDX-License-Identifier: Apache-2.0
"""Resampling by weights, fast, against drawing patients one by one and scoring them anew, slow."""

import numpy as np
import pytest
from sklearn import metrics

from common.tasks.bootstrap import binary_auc, macro_f1_by_weight, mean_by_weight, resampled, sensitivity_by_weight
from common.tasks.scoring.benefit import decision_curve
from common.tasks.scoring.detection import Boxes, _match, average_precision, score_boxes
from common.tasks.scoring.segmentation import overlap_of, score_areas
from tests.common.tasks.scoring.made import predictions


def test_every_resample_draws_as_many_patients_as_there_are():
    weights = resampled(30, resamples=50, seed=1)
    assert (weights.sum(axis=1) == 30).all()
    assert (weights == resampled(30, resamples=50, seed=1)).all()
    assert len({row.tobytes() for row in weights}) == 50


@pytest.mark.parametrize("classes", [2, 4])
def test_a_weighted_macro_f1_is_that_of_the_drawn_patients(classes):
    probabilities, labels, _ = predictions(classes, images=25, seed=3)
    said, weights = probabilities.argmax(axis=1), resampled(25, resamples=30, seed=0)
    for row, found in zip(weights, macro_f1_by_weight(labels, said, weights, classes), strict=True):
        drawn = np.repeat(np.arange(25), row.astype(int))
        there = sorted({*labels[drawn], *said[drawn]})
        assert found == pytest.approx(metrics.f1_score(labels[drawn], said[drawn], labels=there, average="macro", zero_division=0))


def test_a_weighted_sensitivity_and_auc_are_those_of_the_drawn_patients():
    probabilities, labels, _ = predictions(2, images=40, seed=4)
    scores, weights = probabilities[:, 1], resampled(40, resamples=20, seed=0)
    found = sensitivity_by_weight(scores, labels == 1, weights, false_positive=0.1)
    aucs = binary_auc(scores, labels == 1, weights)
    for row, share, auc in zip(weights, found, aucs, strict=True):
        drawn = np.repeat(np.arange(40), row.astype(int))
        false, true, _ = metrics.roc_curve(labels[drawn], scores[drawn], drop_intermediate=False)
        assert share == pytest.approx(true[false <= 0.1].max())
        assert auc == pytest.approx(metrics.roc_auc_score(labels[drawn], scores[drawn]))


def test_means_leave_out_those_who_have_no_figure():
    weights = np.array([[1.0, 1.0, 2.0], [0.0, 0.0, 4.0]])
    found = mean_by_weight(np.array([1.0, 4.0, np.nan]), weights)
    assert found[0] == 2.5
    assert np.isnan(found[1])


def boxes(images, seed):
    """True boxes, two found ones near each and one wild one in every image; no two scores are equal, since nothing orders equal ones."""
    rng = np.random.default_rng(seed)
    found, true = [], []
    for _ in range(images):
        corner, wild = rng.uniform(0, 80, (rng.integers(0, 4), 2)), rng.uniform(0, 20, 2)
        wanted = np.concatenate([corner, corner + 20], axis=1)
        near = np.repeat(wanted, 2, axis=0) + rng.normal(scale=2, size=(2 * len(wanted), 4))
        drawn = np.concatenate([near, [[*wild, *(wild + 20)]]])
        true.append(Boxes(wanted, np.zeros(len(wanted), dtype=np.int64)))
        found.append(Boxes(drawn, np.zeros(len(drawn), dtype=np.int64), rng.random(len(drawn))))
    return found, true


def test_an_image_that_is_drawn_twice_counts_as_two_images():
    found, true = boxes(12, seed=5)
    weights = resampled(12, resamples=15, seed=2)
    fast = average_precision(_match(found, true, 0), weights)
    for column, row in enumerate(weights):
        drawn = np.repeat(np.arange(12), row.astype(int))
        slow = score_boxes(("nodule",), [found[n] for n in drawn], [true[n] for n in drawn])
        assert fast[0, column] == pytest.approx(slow.ap50, abs=1e-12)
        assert fast[:, column].mean() == pytest.approx(slow.ap, abs=1e-12)


def test_the_interval_of_boxes_draws_patients_and_not_images():
    found, true = boxes(12, seed=6)
    patients = np.repeat(np.arange(4, dtype=np.int32), 3)
    each = score_boxes(("nodule",), found, true, patients, resamples=200)
    tenfold = score_boxes(("nodule",), found * 5, true * 5, np.tile(patients, 5), resamples=200)
    wide = each.ap50_interval.high - each.ap50_interval.low
    assert wide > 0.02
    assert tenfold.ap50_interval.high - tenfold.ap50_interval.low == pytest.approx(wide, abs=1e-9)
    assert score_boxes(("nodule",), found, true).ap50_interval is None


def test_a_patients_pixels_are_counted_together():
    rng = np.random.default_rng(0)
    said, true = rng.integers(0, 2, (2, 6, 4, 4))
    patients = np.array([0, 0, 1, 1, 1, 2], dtype=np.int32)
    found = score_areas(("ground", "organ"), overlap_of(said, true, num_classes=2), patients, resamples=50)
    slow = [metrics.f1_score(true[patients == p].ravel(), said[patients == p].ravel()) for p in range(3)]
    assert found.count == 3
    assert found.dice == pytest.approx(np.mean(slow))
    assert found.dice_interval.low <= found.dice <= found.dice_interval.high


def test_an_organ_that_only_one_of_them_sees_is_a_zero_and_one_that_neither_sees_is_no_figure():
    said, true = np.zeros((2, 3, 2, 4), dtype=np.int64)
    said[1, 0], true[2, 0, :3] = 1, 1
    organ = score_areas(("ground", "organ"), overlap_of(said, true, num_classes=2)).classes[1]
    assert (organ.dice, organ.patients, organ.missed, organ.invented, organ.edges_apart) == (0.0, 2, 1, 1, None)


def test_a_patients_edges_are_as_far_apart_as_in_the_mean_image_where_both_see_them():
    true = np.zeros((5, 12, 12), dtype=np.int64)
    true[:, 4:8, 4:8] = 1
    said = np.stack([np.roll(image, shift, axis=0) for image, shift in zip(true, (0, 1, 3, 2, 0), strict=True)])
    said[1] = 0
    patients = np.array([0, 0, 0, 1, 1], dtype=np.int32)
    pixels, mm = (
        score_areas(("ground", "organ"), overlap_of(said, true, num_classes=2, spacing_mm=spacing), patients).classes[1].edges_apart
        for spacing in (None, 0.5)
    )
    assert pixels == pytest.approx(((0 + 3) / 2 + (2 + 0) / 2) / 2)
    assert mm == pytest.approx(pixels / 2)


def test_the_interval_of_a_net_benefit_is_that_of_the_drawn_patients():
    probabilities, labels, _ = predictions(2, images=30, seed=8)
    scores, ill = probabilities[:, 1], labels == 1
    [point] = decision_curve(scores, ill, thresholds=[0.3], resamples=400, seed=3)
    slow = []
    for row in resampled(30, resamples=400, seed=3):
        drawn = np.repeat(np.arange(30), row.astype(int))
        slow.append(decision_curve(scores[drawn], ill[drawn], thresholds=[0.3])[0].model)
    assert (point.interval.low, point.interval.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))

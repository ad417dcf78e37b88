# SPDX-License-Identifier: Apache-2.0
"""What holds for any predictions: order does not matter, bounds hold, and the figures agree with each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.tasks import evaluate
from common.tasks.scoring.averages import averages
from common.tasks.scoring.detection import Boxes, iou, score_boxes
from common.tasks.scoring.multilabel import UNKNOWN, score_findings
from common.tasks.scoring.segmentation import overlap_of, score_areas
from tests.common.tasks.scoring.made import predictions, spec

FEW = settings(max_examples=40, deadline=None)


@FEW
@given(classes=st.integers(2, 5), seed=st.integers(0, 10_000), images=st.integers(1, 60))
def test_with_one_label_a_case_micro_f1_is_the_accuracy(classes, seed, images):
    probabilities, labels, _ = predictions(classes, images=images, seed=seed)
    level = evaluate(spec(classes), probabilities, labels).images
    assert level.averages.micro.f1 == pytest.approx(level.accuracy)
    assert level.averages.micro.precision == level.averages.micro.recall == pytest.approx(level.accuracy)
    assert level.averages.weighted.recall == pytest.approx(level.accuracy)


@FEW
@given(classes=st.integers(2, 4), seed=st.integers(0, 10_000))
def test_the_order_of_images_does_not_matter(classes, seed):
    probabilities, labels, patients = predictions(classes, images=50, patients=15, seed=seed)
    order = np.random.default_rng(seed).permutation(50)
    one, other = (
        evaluate(spec(classes), p, y, who, resamples=20).as_dict()
        for p, y, who in ((probabilities, labels, patients), (probabilities[order], labels[order], patients[order]))
    )
    assert flat(one) == pytest.approx(flat(other), abs=1e-5)


@FEW
@given(classes=st.integers(2, 4), seed=st.integers(0, 10_000), images=st.integers(0, 40))
def test_every_share_lies_between_nothing_and_one(classes, seed, images):
    scores = evaluate(spec(classes), *predictions(classes, images=images, seed=seed), resamples=20)
    for level in (scores.images, scores.patients):
        shares = [level.auc, level.accuracy, level.calibration.ece, level.calibration.largest_gap]
        for one in level.classes:
            shares += [
                one.auc,
                one.precision,
                one.recall,
                one.f1,
                one.specificity,
                one.average_precision,
                one.sensitivity_at_90_specificity,
            ]
        for average in (level.averages.macro, level.averages.micro, level.averages.weighted):
            shares += [average.precision, average.recall, average.f1]
        assert all(share is None or -1e-6 <= share <= 1 + 1e-6 for share in shares)
        assert level.calibration.brier is None or 0 <= level.calibration.brier <= 2


@FEW
@given(right=st.lists(st.integers(0, 9), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_f1_of_one_class_is_the_harmonic_mean(right, seed):
    rng = np.random.default_rng(seed)
    right = np.array(right)
    answered, support = right + rng.integers(1, 9, len(right)), right + rng.integers(1, 9, len(right))
    found = averages(right[:1], answered[:1], support[:1]).macro
    wanted = 0.0 if right[0] == 0 else 2 / (1 / found.precision + 1 / found.recall)
    assert found.f1 == pytest.approx(wanted)


@FEW
@given(seed=st.integers(0, 10_000), images=st.integers(1, 6))
def test_dice_follows_from_overlap_over_union(seed, images):
    rng = np.random.default_rng(seed)
    said, true = rng.integers(0, 3, (2, images, 5, 7))
    found = score_areas(("ground", "organ", "lesion"), overlap_of(said, true, num_classes=3), np.zeros(images, dtype=np.int32), resamples=5)
    for one in found.classes:
        assert one.dice == pytest.approx(2 * one.iou / (1 + one.iou))
        assert one.dice == pytest.approx(one.pooled_dice)  # there is one patient


@FEW
@given(seed=st.integers(0, 10_000))
def test_areas_are_counted_alike_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    said, true = rng.integers(0, 3, (2, 4, 6, 6))
    found = overlap_of(said, true, num_classes=3)
    for n in range(4):
        for c in range(3):
            pairs = list(zip(said[n].ravel(), true[n].ravel(), strict=True))
            assert found.both[n, c] == sum(s == c and t == c for s, t in pairs)
            assert found.said[n, c] == sum(s == c for s, _ in pairs)
            assert found.true[n, c] == sum(t == c for _, t in pairs)


corner = st.floats(0, 50, width=32)
box = st.tuples(corner, corner, st.floats(1, 20, width=32), st.floats(1, 20, width=32)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@FEW
@given(one=box, other=box)
def test_two_boxes_overlap_alike_from_either_side(one, other):
    a, b = np.array([one]), np.array([other])
    assert iou(a, b)[0, 0] == pytest.approx(iou(b, a)[0, 0])
    assert 0 <= iou(a, b)[0, 0] <= 1 + 1e-9
    assert iou(a, a)[0, 0] == pytest.approx(1)


@FEW
@given(boxes=st.lists(box, min_size=1, max_size=8), scores=st.integers(0, 1000))
def test_whoever_finds_every_box_and_no_other_is_perfect(boxes, scores):
    corners, kinds = np.array(boxes), np.zeros(len(boxes), dtype=np.int64)
    sure = np.random.default_rng(scores).random(len(boxes))
    found = score_boxes(("nodule",), [Boxes(corners, kinds, sure)], [Boxes(corners, kinds)], threshold=0.0)
    assert found.ap50 == pytest.approx(1)
    assert found.ap == pytest.approx(1)
    assert all(point.sensitivity == 1 for point in found.froc)


@FEW
@given(seed=st.integers(0, 10_000))
def test_a_false_box_never_helps_and_more_false_boxes_never_find_fewer(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (4, 2))
    true = Boxes(np.concatenate([corners, corners + 15], axis=1), np.zeros(4, dtype=np.int64))
    near = Boxes(true.corners + rng.normal(scale=1.5, size=(4, 4)), true.classes, rng.random(4))
    far = Boxes(np.append(near.corners, [[200, 200, 220, 220]], axis=0), np.zeros(5, dtype=np.int64), np.append(near.scores, 0.99))
    alone, beside = (score_boxes(("a",), [found], [true]) for found in (near, far))
    assert beside.ap50 <= alone.ap50 + 1e-12
    sensitivities = [point.sensitivity for point in beside.froc]
    assert sensitivities == sorted(sensitivities)


@FEW
@given(seed=st.integers(0, 10_000))
def test_a_finding_that_is_not_known_says_nothing(seed):
    rng = np.random.default_rng(seed)
    probabilities, findings = rng.random((40, 2)).astype(np.float32), rng.integers(0, 2, (40, 2))
    hidden = rng.random(40) < 0.3
    covered = findings.copy()
    covered[hidden, 0] = UNKNOWN
    found = score_findings(("a", "b"), probabilities, covered)
    alone = score_findings(("a",), probabilities[~hidden, :1], findings[~hidden, :1])
    assert found.findings[0] == alone.findings[0]
    assert found.findings[1] == score_findings(("a", "b"), probabilities, findings).findings[1]
    assert found.known == (int((~hidden).sum()), 40)


def flat(value):
    """All numbers of nested results in their order, what is missing as -1."""
    match value:
        case dict():
            return [number for item in value.values() for number in flat(item)]
        case list() | tuple():
            return [number for item in value for number in flat(item)]
        case str():
            return []
    return [-1.0 if value is None else float(value)]

# SPDX-License-Identifier: Apache-2.0
"""From which score on a box is shown: the best that the rule allows on validation patients, and there it does what it is said to do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PlanValue, TooFewPatients
from common.tasks.scoring.detection import Boxes, choose_score, score_boxes
from common.tasks.scoring.operating import Rule

F1 = Rule(aim="f1")
PATIENTS = np.repeat(np.arange(6, dtype=np.int32), 2)


def pictures(seed, decimals, lost=0.3):
    """Twelve images with up to three true boxes of two classes; some are lost, some found twice, some made up. True ones score higher."""
    rng = np.random.default_rng(seed)
    found, true = [], []
    for _ in range(12):
        corner = rng.uniform(0, 80, (rng.integers(1, 4), 2))
        there, kinds = np.concatenate([corner, corner + 15], axis=1), rng.integers(0, 2, len(corner))
        kept = rng.random(len(corner)) > lost
        twice = kept & (rng.random(len(corner)) < 0.3)
        away = rng.uniform(100, 180, (rng.integers(0, 3), 2))
        corners = np.concatenate(
            [there[kept] + rng.normal(scale=1, size=(kept.sum(), 4)), there[twice], np.concatenate([away, away + 15], axis=1)]
        )
        scores = np.concatenate([rng.beta(4, 2, kept.sum()), rng.beta(3, 3, twice.sum()), rng.beta(2, 4, len(away))])
        classes = np.concatenate([kinds[kept], kinds[twice], rng.integers(0, 2, len(away))])
        found.append(Boxes(corners, classes, scores.round(decimals).astype(np.float32)))
        true.append(Boxes(there, kinds))
    return found, true


def effect(found, true, threshold):
    """Of all classes together: boxes rightly shown, shown, and to be found."""
    each = score_boxes(("a", "b"), found, true, threshold=threshold).classes
    right = sum(round((one.recall or 0) * one.support) for one in each)
    shown = sum(int((np.asarray(one.scores) >= threshold).sum()) for one in found)
    return right, shown, sum(one.support for one in each)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), decimals=st.sampled_from([1, 2, 6]), least=st.sampled_from([None, 0.3, 0.6]))
def test_no_other_score_does_better(seed, decimals, least):
    found, true = pictures(seed, decimals)
    rule = F1 if least is None else Rule(aim="sensitivity", least=least)
    scores = np.unique(np.concatenate([one.scores for one in found]))
    others = [effect(found, true, threshold) for threshold in scores]
    if least is not None and max(right for right, _, _ in others) < least * others[0][2]:
        with pytest.raises(PlanValue, match=r"of the boxes at any score"):
            choose_score(2, found, true, PATIENTS, rule)
        return
    point = choose_score(2, found, true, PATIENTS, rule)
    right, shown, support = effect(found, true, point.threshold)
    assert (point.sensitivity, point.precision) == pytest.approx((right / support, right / shown))
    assert (point.specificity, point.patients) == (None, 6)
    if least is None:
        assert 2 * right / (shown + support) == pytest.approx(max(2 * r / (s + support) for r, s, _ in others))
    else:
        assert right >= least * support
        assert shown == min(s for r, s, _ in others if r >= least * support)


@pytest.mark.parametrize("rule", [Rule(aim="youden"), Rule(aim="specificity", least=0.9)])
def test_a_rule_about_what_is_not_there_is_refused(rule):
    with pytest.raises(PlanValue, match="which nobody can count"):
        choose_score(2, *pictures(1, 6), PATIENTS, rule)


def test_a_handful_of_boxes_chooses_nothing_and_a_model_that_finds_none_says_so():
    found, true = pictures(2, 6)
    with pytest.raises(TooFewPatients, match="true boxes; a threshold needs 5"):
        choose_score(2, found[:1], true[:1], PATIENTS[:1], F1)
    nothing = [Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in true]
    with pytest.raises(PlanValue, match="finds 0% of the boxes"):
        choose_score(2, nothing, true, PATIENTS, F1)

# SPDX-License-Identifier: Apache-2.0
"""Thresholds are the best that the rule allows, on validation patients; and do there what they are said to do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import TooFewPatients
from common.tasks.scoring.operating import Rule, choose

YOUDEN = Rule(aim="youden")


def patients(seed, decimals):
    rng = np.random.default_rng(seed)
    ill = np.arange(40) < 15
    scores = np.clip(0.5 + 0.25 * (2 * ill - 1) + 0.4 * rng.normal(size=40), 0, 1)
    return scores.round(decimals).astype(np.float32), ill


def effect(scores, ill, threshold):
    called = scores >= threshold
    return called[ill].mean(), (~called[~ill]).mean()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), decimals=st.sampled_from([1, 2, 6]), rule=st.sampled_from(["youden", "f1", "sensitivity", "specificity"])
)
def test_no_other_threshold_does_better(seed, decimals, rule):
    scores, ill = patients(seed, decimals)
    rule = Rule(aim=rule) if rule in ("youden", "f1") else Rule(aim=rule, least=0.9)
    point = choose(scores, ill, rule)
    assert effect(scores, ill, point.threshold) == pytest.approx((point.sensitivity, point.specificity))
    # Every way to part these patients, and one beyond the highest.
    others = [effect(scores, ill, threshold) for threshold in (*np.unique(scores), np.float32(1.1))]
    if rule.aim == "youden":
        assert point.sensitivity + point.specificity == pytest.approx(max(se + sp for se, sp in others))
    elif rule.aim == "f1":
        called = [scores >= threshold for threshold in (*np.unique(scores), np.float32(1.1), point.threshold)]
        *all_f1, own = (2 * (each & ill).sum() / (each.sum() + ill.sum()) for each in called)
        assert own == pytest.approx(max(all_f1))
    elif rule.aim == "sensitivity":
        assert point.sensitivity >= 0.9
        assert point.specificity == pytest.approx(max(sp for se, sp in others if se >= 0.9))
    else:
        assert point.specificity >= 0.9
        assert point.sensitivity == pytest.approx(max(se for se, sp in others if sp >= 0.9))


def test_a_threshold_lies_between_two_scores():
    scores = np.array([0.1] * 5 + [0.9] * 5, dtype=np.float32)
    point = choose(scores, scores > 0.5, YOUDEN)
    assert point.threshold == pytest.approx(0.5)
    assert (point.sensitivity, point.specificity, point.patients) == (1.0, 1.0, 10)


def test_two_scores_that_are_neighbouring_numbers_are_still_parted():
    low = np.float32(0.5)
    high = np.nextafter(low, np.float32(1))
    scores = np.array([low] * 5 + [high] * 5, dtype=np.float32)
    point = choose(scores, scores == high, YOUDEN)
    assert effect(scores, scores == high, point.threshold) == (1.0, 1.0)


def test_where_somebody_scores_one_nobody_can_still_be_called():
    scores = np.array([1.0] * 5 + [0.2] * 5, dtype=np.float32)
    point = choose(scores, scores < 0.5, Rule(aim="specificity", least=1.0))
    assert (point.sensitivity, point.specificity) == (0.0, 1.0)
    assert not (scores >= point.threshold).any()


def test_a_handful_of_patients_chooses_nothing():
    scores = np.linspace(0, 1, 20).astype(np.float32)
    with pytest.raises(TooFewPatients, match="4 patients with the finding and 16 without"):
        choose(scores, np.arange(20) < 4, YOUDEN)


def test_what_was_chosen_on_some_patients_is_not_what_it_does_on_others():
    """The reason for validation patients: without any signal, the best threshold looks better than guessing on those it was chosen on."""
    rng = np.random.default_rng(0)
    seen, unseen = [], []
    for _ in range(200):
        scores, ill = rng.random(60).astype(np.float32), np.arange(60) < 30
        point = choose(scores[::2], ill[::2], YOUDEN)
        seen.append(point.sensitivity + point.specificity - 1)
        unseen.append(sum(effect(scores[1::2], ill[1::2], point.threshold)) - 1)
    assert np.mean(seen) > 0.15
    assert abs(np.mean(unseen)) < 0.05

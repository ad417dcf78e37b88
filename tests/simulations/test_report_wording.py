# SPDX-License-Identifier: Apache-2.0
"""Sentences and spellings: what a number lets the report say, and how it is written."""

import doctest
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.plan import CnnSpec, ResNetSpec, ScatteringSpec
from simulations import scenario
from simulations.report import numbers, scores, setting, wording
from simulations.report.rounds import patient_cost
from simulations.report.scores import ModelScores, Results
from simulations.report.tabled import Estimate


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> Estimate:
    return Estimate(value=value, low=low, high=high)


def model(auc: float | None) -> ModelScores:
    return ModelScores(unit="patient", count=10, headline=estimate(auc), balanced_accuracy=estimate(auc), accuracy=estimate(auc))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (estimate(0.80, 0.75, 0.85), "does clearly worse (0.800)"),
        (estimate(0.85, 0.80, 0.89), "does worse (0.850), though the intervals overlap"),
        (estimate(0.9004, 0.87, 0.93), "does the same (0.900)"),
        (estimate(0.95, 0.91, 0.97), "does better (0.950), though the intervals overlap"),
        (estimate(0.97, 0.94, 0.99), "does clearly better (0.970)"),
        (estimate(0.80), "does worse (0.800)"),
        (estimate(None), "cannot be compared"),
    ],
)
def test_a_comparison_claims_no_more_than_the_intervals_allow(other: Estimate, said: str) -> None:
    assert wording.standing(other, estimate(0.90, 0.87, 0.93)) == said


@given(st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_clearly_is_said_only_of_intervals_that_do_not_meet(edges: list[float]) -> None:
    (a_low, a, a_high), (b_low, b, b_high) = sorted(edges[:3]), sorted(edges[3:])
    said = wording.standing(estimate(a, a_low, a_high), estimate(b, b_low, b_high))
    if "clearly" in said:
        assert a_high < b_low or b_high < a_low


def test_the_best_site_alone_is_the_first_of_equals_and_never_one_without_a_score() -> None:
    local = {"west": model(0.8), "north": model(0.8), "south": model(None)}
    best = scores.best_alone(local)
    assert best is not None
    assert best[0] == "north"
    assert scores.best_alone({"south": model(None)}) is None


def test_sites_alone_are_rows_while_they_fit_and_one_row_of_marks_beyond() -> None:
    few = scores.compare(Results(federated=model(0.9), local={f"s{i}": model(0.5 + i / 100) for i in range(3)}))
    assert [row.label for row in few] == ["Federated", "s2 alone", "s1 alone", "s0 alone"]
    many = scores.compare(Results(federated=model(0.9), local={f"s{i}": model(i / 100) for i in range(100)}))
    assert [row.label for row in many] == ["Federated", "100 sites, each alone"]
    assert len(many[1].values("headline")) == 100


@given(st.floats(0.01, 20), st.integers(1, 20))
def test_more_images_of_a_patient_never_cost_less(epsilon: float, images: int) -> None:
    one, fewer, more = (patient_cost(epsilon, 1e-7, images=number) for number in (1, images, images + 1))
    assert one.epsilon == epsilon
    assert one.delta == pytest.approx(1e-7)
    assert more.epsilon > fewer.epsilon
    assert fewer.delta <= more.delta <= 1
    assert more.is_empty == (more.delta == 1)


def test_the_cost_for_two_images_is_the_textbooks() -> None:
    cost = patient_cost(1.0, 1e-6, images=2)
    assert cost.epsilon == 2.0
    assert cost.delta == pytest.approx((1 + 2.718281828) * 1e-6)


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        (numbers.count(1234567), "1,234,567"),
        (numbers.count(None), "–"),
        (numbers.ratio(1), "1.000"),
        (numbers.ratio(float("nan")), "–"),
        (numbers.signed(-0.0004), "0.000"),
        (numbers.signed(-0.05), "−0.050"),
        (numbers.signed(0.05), "+0.050"),
        (numbers.epsilon(7.999), "8.00"),
        (numbers.epsilon(1234.5), "1,234"),
        (numbers.scientific(1.25e-5), "1.25\xa0×\xa010⁻⁵"),
        (numbers.scientific(9.9999e-5), "1\xa0×\xa010⁻⁴"),
        (numbers.scientific(0.0), "0"),
        (numbers.percent(0.256), "26\u202f%"),
        (numbers.duration(0.42), "0.42 s"),
        (numbers.duration(59.97), "1 min 00 s"),
        (numbers.duration(7500), "2 h 05 min"),
        (numbers.runs([9, 1, 3, 4, 5, 4]), "1, 3–5, 9"),
        (numbers.listed(["a", "b", "c"]), "a, b and c"),
        (numbers.listed([]), "–"),
        (numbers.moment(datetime(2026, 1, 2, 1, 30, tzinfo=timezone(timedelta(hours=2)))), "1 January 2026, 23:30 UTC"),
        (numbers.moment(datetime(2026, 12, 31, 0, 0, tzinfo=UTC)), "31 December 2026, 00:00 UTC"),
        (wording.odds_factor(0.5), "1.6"),
        (wording.odds_factor(8.0), "2,981"),
        (wording.odds_factor(5000.0)[-5:], "10³⁰⁴"),
    ],
)
def test_a_number_is_spelled_in_one_way(spelled: str, expected: str) -> None:
    assert spelled == expected


def test_every_family_has_its_sentence() -> None:
    plan = scenario.load(scenario.find("default")).plan
    said = [
        setting.model(replace(plan, model=spec))
        for spec in (CnnSpec(family="cnn"), ResNetSpec(family="resnet"), ScatteringSpec(family="scattering", scales=3, angles=4))
    ]
    assert [sentence.split()[0] for sentence in said] == ["Convolutional", "Residual", "Linear"]
    assert "3 scales and 4 angles" in said[2]


def test_the_examples_in_the_docstrings_hold() -> None:
    result = doctest.testmod(numbers)
    assert result.attempted > 0
    assert result.failed == 0

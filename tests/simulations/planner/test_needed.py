# SPDX-License-Identifier: Apache-2.0
"""The rule of thumb gives the study's own numbers back, and says who has enough."""

import doctest
from dataclasses import replace

import pytest

from common.plan import ScatteringSpec
from simulations.planner import Hospitals
from simulations.planner import needed as rule
from simulations.planner.forecast import forecast
from simulations.planner.needed import Needed, factor, is_linear, needed
from tests.simulations.planner.planned import local, shared

FIVE = Hospitals(patients=(512,) * 5)


def test_five_hospitals_need_what_the_study_says():
    """Linear 100 to 210, network 700 to 1,400 with shared noise of all five and one colluder; twice that with local noise."""
    found = forecast(shared(noise_quorum=5, minimum_patients=512), FIVE)
    together, alone = found.modes["distributed"], found.modes["local"]
    assert needed(together, linear=True) == Needed(low=112, high=202)
    assert needed(together, linear=False) == Needed(low=671, high=1342)
    for linear in (True, False):
        few, many = needed(together, linear=linear), needed(alone, linear=linear)
        assert many.low == pytest.approx(2 * few.low, abs=1)
        assert many.high == pytest.approx(2 * few.high, abs=1)


def test_smaller_epsilons_need_more_by_what_the_study_measured():
    assert (factor(8), factor(3), factor(1)) == (pytest.approx(1), pytest.approx(2.1), pytest.approx(5.3))
    steps = [factor(epsilon) for epsilon in (0.5, 1, 1.5, 2, 3, 5, 8, 10)]
    assert steps == sorted(steps, reverse=True)
    strict = forecast(local(epsilon=1.0), FIVE).asked
    assert needed(strict, linear=True).low == pytest.approx(5.3 * needed(forecast(local(), FIVE).asked, linear=True).low, rel=0.01)


@pytest.mark.parametrize(("patients", "verdict"), [(99, "too few"), (100, "borderline"), (199, "borderline"), (200, "enough")])
def test_a_verdict_follows_from_the_range(patients, verdict):
    assert Needed(low=100, high=200).verdict(patients) == verdict


def test_only_scattering_is_linear():
    plan = shared()
    assert not is_linear(plan)
    assert is_linear(replace(plan, model=ScatteringSpec(family="scattering")))


def test_the_examples_in_the_docstrings_hold():
    result = doctest.testmod(rule)
    assert result.attempted > 0
    assert result.failed == 0

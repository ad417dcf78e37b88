# SPDX-License-Identifier: Apache-2.0
"""What a promise per image leaves for a patient: against the mechanism itself, and against the textbook."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from common.privacy import group_privacy


def test_one_image_is_the_promise_itself():
    assert group_privacy(3.0, 1e-6, 1) == (3.0, 1e-6)


def test_without_delta_it_is_dwork_and_roths_theorem():
    assert group_privacy(0.5, 0.0, 7) == (3.5, 0.0)


@given(st.floats(0.01, 5), st.floats(1e-12, 1e-6), st.integers(1, 12))
def test_it_is_never_looser_than_the_textbook_and_never_less_than_the_last_step(epsilon, delta, images):
    total, chance = group_privacy(epsilon, delta, images)
    assert total == images * epsilon
    assert min(1.0, delta * math.exp((images - 1) * epsilon)) <= chance * (1 + 1e-12)
    assert chance <= min(1.0, images * math.exp((images - 1) * epsilon) * delta) * (1 + 1e-12)


def test_a_large_epsilon_leaves_nothing():
    assert group_privacy(8.0, 1e-5, 4) == (32.0, 1.0)
    assert group_privacy(300.0, 1e-5, 40)[1] == 1.0


@pytest.mark.parametrize("images", [2, 3, 5])
def test_it_covers_the_gaussian_mechanism_whose_group_guarantee_is_known(images):
    """m images move the sum by m clips, so the mechanism is a Gaussian one of m times the sensitivity, and its delta is known exactly."""

    def exact(epsilon, sensitivity, noise):
        """Balle and Wang 2018, theorem 8, https://arxiv.org/abs/1805.06530."""
        a, b = sensitivity / (2 * noise), epsilon * noise / sensitivity
        return norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b)

    noise, epsilon = 4.0, 1.0
    promised = exact(epsilon, 1.0, noise)
    total, delta = group_privacy(epsilon, promised, images)
    assert exact(total, images, noise) <= delta

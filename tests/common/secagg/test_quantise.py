# SPDX-License-Identifier: Apache-2.0
"""The grid: no sum wraps, no coordinate moves further than half a step, and nothing that is not finite gets in."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from common.errors import FedwardError, UpdateNonFinite, UpdateNorm
from common.secagg import quantise
from common.secagg.quantise import Grid
from tests.common.secagg.federation import seeded

GRIDS = [(3, 32, 24), (256, 32, 24), (257, 32, 23), (1000, 32, 22), (10, 16, 12), (64, 16, 10)]
FINITE = st.floats(-4, 4, width=32, allow_nan=False)


@pytest.mark.parametrize(
    ("cohort", "ring_bits", "bits"), [(3, 32, 24), (256, 32, 24), (257, 32, 23), (1000, 32, 22), (10, 16, 12), (64, 16, 10)]
)
def test_the_grid_leaves_room_for_the_cohort(cohort: int, ring_bits: int, bits: int) -> None:
    grid = Grid.for_cohort(cohort, coordinate_range=1.0, ring_bits=ring_bits)  # type: ignore[arg-type] # parametrised
    assert grid.bits == bits
    assert cohort * grid.largest < 2 ** (ring_bits - 1)


@settings(deadline=None)
@given(arrays(np.float32, st.integers(1, 200), elements=FINITE), st.sampled_from([3, 10, 256]), st.integers(1, 4))
def test_rounding_is_to_the_nearest_lattice_point_and_ties_go_to_even(values: NDArray[np.float32], cohort: int, weight: int) -> None:
    grid = Grid.for_cohort(cohort, coordinate_range=1.0, max_weight=4)
    words = quantise.quantise(values, grid, weight=weight).body.view(np.int32)
    for x, q in zip(values.tolist(), words.tolist(), strict=True):
        exact = Fraction(max(-1.0, min(1.0, x * (weight / 4)))) * grid.largest
        assert abs(q - exact) <= Fraction(1, 2) + Fraction(1, 2**20)
        if abs(x) <= 1 and weight == 4:
            assert q == round(exact)


@settings(deadline=None)
@given(st.integers(3, 40), st.integers(0, 2**32))
def test_the_sum_of_the_largest_updates_does_not_wrap(cohort: int, seed: int) -> None:
    for ring_bits in (16, 32):
        grid = Grid.for_cohort(cohort, coordinate_range=0.5, ring_bits=ring_bits)
        signs = np.random.default_rng(seed).choice([-1, 1], 16).astype(np.float32)
        update = quantise.quantise(signs, grid, weight=1, entropy=seeded(seed))
        total = np.zeros(16, grid.word)
        for _ in range(cohort):
            total += update.body
        assert np.array_equal(total.view(grid.signed_word).astype(np.int64), cohort * grid.largest * signs.astype(np.int64))


@settings(deadline=None, max_examples=3000)
@given(st.integers(2, 40), st.sampled_from([16, 32]), st.integers(0, 2**32), st.floats(1e-3, 100))
def test_the_sum_of_any_updates_does_not_wrap(cohort: int, ring_bits: int, seed: int, spread: float) -> None:
    """The ring's sum read as signed integers is the sum of the integers, however far the updates reach beyond the range."""
    grid = Grid.for_cohort(cohort, coordinate_range=1.0, ring_bits=ring_bits)  # type: ignore[arg-type] # drawn from its two values
    deltas = np.random.default_rng(seed).normal(0, spread, (cohort, 12)).astype(np.float32)
    bodies = [quantise.quantise(delta, grid, weight=1, entropy=seeded(seed)).body for delta in deltas]
    total = np.zeros(12, grid.word)
    for body in bodies:
        total += body
    expected = [sum(int(body.view(grid.signed_word)[i]) for body in bodies) for i in range(12)]
    assert total.view(grid.signed_word).tolist() == expected


def test_bandwidth_mode_is_right_on_average() -> None:
    """A coordinate of a third of a step would be lost to rounding; at random it survives in the mean, within five standard errors."""
    grid = Grid.for_cohort(10, coordinate_range=1.0, ring_bits=16)
    values = np.full(400_000, grid.step / 3, dtype=np.float32)
    words = quantise.quantise(values, grid, weight=1, entropy=seeded("average")).body.view(np.int16)
    assert set(np.unique(words)) == {0, 1}
    assert abs(words.mean() - 1 / 3) < 5 * math.sqrt(2 / 9 / values.size)


def test_bandwidth_mode_needs_randomness() -> None:
    with pytest.raises(AssertionError):
        quantise.quantise(np.zeros(3, np.float32), Grid.for_cohort(10, coordinate_range=1.0, ring_bits=16), weight=1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = np.zeros(200_000, np.float32)
    values[150_000] = bad
    grid = Grid.for_cohort(10, coordinate_range=1.0)
    with pytest.raises(UpdateNonFinite):
        quantise.quantise(values, grid, weight=1)


@given(arrays(np.float32, st.integers(1, 300), elements=st.floats(-(2.0**127), 2.0**127, width=32)))
def test_a_norm_is_that_of_exact_arithmetic(values: NDArray[np.float32]) -> None:
    """Values near float32's largest too, whose squares float32 cannot hold."""
    assert math.isclose(quantise.norm(values), math.sqrt(sum(Fraction(float(x)) ** 2 for x in values)), rel_tol=1e-12)


def test_a_distance_is_the_norm_of_the_difference_across_blocks() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(200_001).astype(np.float32) for _ in range(2))
    assert math.isclose(quantise.distance(a, b), float(np.linalg.norm(a.astype(np.float64) - b)), rel_tol=1e-12)


@pytest.mark.parametrize("weight", [0, 5, -1])
def test_a_weight_outside_its_bounds_is_refused(weight: int) -> None:
    with pytest.raises(UpdateNorm):
        quantise.quantise(np.zeros(3, np.float32), Grid.for_cohort(10, coordinate_range=1.0, max_weight=4), weight=weight)


def test_noised_integers_enter_as_they_are() -> None:
    grid = Grid.for_cohort(10, coordinate_range=1.0)
    values = np.array([-(2**31), -5, 0, 5, 2**31 - 1], dtype=np.int64)
    assert quantise.on_lattice(values, grid).body.view(np.int32).tolist() == values.tolist()
    with pytest.raises(UpdateNorm):
        quantise.on_lattice(np.array([2**31], dtype=np.int64), grid)


def test_the_secure_mean_is_within_a_step_of_the_plain_one() -> None:
    """B9: at most c * 2^-23 from plain averaging, coordinate by coordinate."""
    grid, rng = Grid.for_cohort(10, coordinate_range=0.25), np.random.default_rng(3)
    deltas = [(rng.standard_normal(5000) / 200).astype(np.float32) for _ in range(10)]
    total = sum((quantise.quantise(delta, grid, weight=1).body for delta in deltas), np.zeros(5000, np.uint32))
    secure = quantise.mean(total, grid, total_weight=10)
    plain = np.mean([delta.astype(np.float64) for delta in deltas], axis=0)
    assert np.abs(secure - plain).max() <= 0.25 * 2**-23


def test_check_update_names_what_is_wrong() -> None:
    grid = Grid.for_cohort(10, coordinate_range=1.0)
    good = quantise.quantise(np.full(100, 0.1, np.float32), grid, weight=1)
    quantise.check_update(good, grid, num_values=100, max_norm=1.0)
    for num_values, max_norm, code in ((99, 1.0, "E_MODEL_LAYOUT"), (100, 0.99, "E_UPDATE_NORM")):
        with pytest.raises(FedwardError) as refusal:
            quantise.check_update(good, grid, num_values=num_values, max_norm=max_norm)
        assert refusal.value.code == code

# SPDX-License-Identifier: Apache-2.0
"""Distances of edges against scipy and a double loop; restored images at the ends of the scale."""

import math

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import directed_hausdorff

from common.tasks.scoring.edges import hausdorff
from common.tasks.scoring.restoration import FINEST_DB, Fidelity, fidelity_of, score_images


def areas(seed, shape=(20, 24)):
    """Two overlapping discs with ragged edges."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    middle = np.array(shape).reshape(-1, *[1] * len(shape)) / 2
    return [((grid - middle - rng.uniform(-2, 2)) ** 2).sum(axis=0) < rng.uniform(20, 40) + 8 * rng.normal(size=shape) for _ in range(2)]


@pytest.mark.parametrize("seed", range(5))
def test_at_a_hundred_percent_it_is_scipys_distance_of_the_edges(seed):
    said, true = areas(seed)
    edges = [np.argwhere(area & ~binary_erosion(area)) for area in (said, true)]
    wanted = max(directed_hausdorff(*edges)[0], directed_hausdorff(*edges[::-1])[0])
    assert hausdorff(said, true, percentile=100) == pytest.approx(wanted)


@pytest.mark.parametrize("shape", [(20, 24), (8, 10, 9)])
def test_the_percentile_in_millimetres_is_that_of_a_double_loop(shape):
    said, true = areas(1, shape)
    spacing = [0.5, 2.0, 1.5][: len(shape)]
    edges = [np.argwhere(area & ~binary_erosion(area)) * spacing for area in (said, true)]
    slow = [np.percentile([min(math.dist(p, q) for q in others) for p in points], 95) for points, others in (edges, edges[::-1])]
    assert hausdorff(said, true, spacing_mm=spacing) == pytest.approx(max(slow))


def test_one_stray_pixel_does_not_decide_at_the_percentile():
    true = np.zeros((40, 40), dtype=bool)
    true[5:25, 5:25] = True
    said = true.copy()
    said[39, 39] = True
    assert hausdorff(said, true) == 0
    assert hausdorff(said, true, percentile=100) == pytest.approx(math.dist((24, 24), (39, 39)))


def test_an_area_that_was_not_found_has_no_edge():
    area = np.ones((4, 4), dtype=bool)
    assert hausdorff(area & False, area) is None
    assert hausdorff(area, area) == 0


def test_an_image_equal_to_the_truth_is_as_fine_as_sixteen_bits():
    true = np.random.default_rng(0).random((2, 1, 16, 16))
    found = fidelity_of(true, true)
    assert found.psnr.tolist() == pytest.approx([FINEST_DB] * 2)
    assert found.ssim.tolist() == pytest.approx([1.0] * 2)


def test_what_lies_outside_of_the_range_is_cut_off_before_it_is_judged():
    true = np.ones((1, 1, 16, 16))
    assert fidelity_of(true + 5, true).psnr[0] == pytest.approx(FINEST_DB)


def test_patients_count_alike_and_the_gain_is_paired():
    patients = np.array([0, 0, 0, 1], dtype=np.int32)
    after = Fidelity(np.array([30.0, 30, 30, 20]), np.array([0.9, 0.9, 0.9, 0.5]))
    before = Fidelity(np.array([28.0, 28, 28, 18]), np.array([0.8, 0.8, 0.8, 0.4]))
    found = score_images(after, before, patients, resamples=100)
    assert (found.count, found.psnr, found.psnr_before, found.psnr_gain) == (2, 25, 23, 2)
    assert found.ssim == pytest.approx(0.7)
    # Patients differ by ten dB, the gain by none: pairing leaves no doubt about it.
    assert (found.psnr_gain_interval.low, found.psnr_gain_interval.high) == (2, 2)
    assert found.psnr_interval.high - found.psnr_interval.low == 10
    assert score_images(after).psnr_interval is None

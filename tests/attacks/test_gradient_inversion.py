# SPDX-License-Identifier: Apache-2.0
"""An update of one image gives the image away; clipping does not help, masks and noise do. (The real protocol's masks: test_secrecy.)"""

import secrets

import numpy as np
import pytest

from common.privacy import Lattice
from common.secagg.quantise import Grid
from simulations.audits.inversion import clipped, invert, made_slice, masked, noised, psnr, update_of

LATTICE = Lattice(clip_norm=1.0, fineness=16)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return made_slice(32)


def best_of_noise(truth: np.ndarray) -> float:
    """How near noise alone comes to the image, at best of 200."""
    rng, size = np.random.default_rng(3), update_of(truth).size
    return max(psnr(invert(rng.normal(size=size), truth.shape), truth) for _ in range(200))


def test_a_plain_update_is_its_image(truth: np.ndarray) -> None:
    assert psnr(invert(update_of(truth), truth.shape), truth) > 60


def test_an_image_that_was_clipped_is_as_plain_as_before(truth: np.ndarray) -> None:
    contribution = clipped(update_of(truth) * 100, LATTICE)
    assert np.linalg.norm(contribution) <= LATTICE.clip_steps
    assert psnr(invert(contribution, truth.shape), truth) > 20


@pytest.mark.parametrize("noise_multiplier", [0.3, 1.0, 3.0])
def test_noise_leaves_nothing_to_see(truth: np.ndarray, noise_multiplier: float) -> None:
    what = noised(clipped(update_of(truth) * 100, LATTICE), LATTICE, noise_multiplier, secrets.token_bytes)
    assert psnr(invert(what, truth.shape), truth) < best_of_noise(truth) + 1


def test_too_little_noise_is_seen_through(truth: np.ndarray) -> None:
    """The control: the attack sees a three-thousandth of the noise for what it is. (A thousandth hides it once in twenty.)"""
    what = noised(clipped(update_of(truth) * 100, LATTICE), LATTICE, 0.0003, secrets.token_bytes)
    assert psnr(invert(what, truth.shape), truth) > 20


def test_a_mask_leaves_nothing_to_see(truth: np.ndarray) -> None:
    update = update_of(truth)
    seen = masked((update / np.linalg.norm(update)).astype(np.float32), Grid.for_cohort(10, coordinate_range=1.0), secrets.token_bytes)
    assert psnr(invert(seen, truth.shape), truth) < best_of_noise(truth) + 1

# SPDX-License-Identifier: Apache-2.0
"""A nodule and its twin take the same room; a label says what the slice shows."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from simulations.phantoms import findings, hospital, thorax
from simulations.phantoms.findings import Mass
from simulations.phantoms.thorax import Chest

SIZE_PX = 128


def draw(seed: int) -> tuple[Chest, Mass]:
    rng = np.random.default_rng(seed)
    chest = thorax.draw_chest(rng, hospital.draw(0, seed % 10), SIZE_PX)
    return chest, findings.draw_mass(rng, chest, (20.0, 34.0))


def soft_mm2(hu: NDArray[np.float32], chest: Chest) -> float:
    """Area denser than half way from lung to muscle."""
    return float(np.sum(hu > -400.0)) * chest.spacing_mm**2


def same_grain() -> np.random.Generator:
    """Every slice drawn with this has the same lung texture, so that only the finding differs."""
    return np.random.default_rng(1)


@pytest.mark.parametrize("seed", range(10))
def test_a_twin_has_the_area_and_the_outline_of_the_nodule(seed: int) -> None:
    chest, mass = draw(seed)
    vessels = findings.twin_vessels(mass, 0.0)
    smaller = findings.chest_of_twin(chest, mass, 0.0).lung
    radius = mass.radius_at(0.0)
    vessels_mm2 = sum(4 * tube.half_length * tube.radius for tube in vessels)
    lost_mm2 = math.pi * (chest.lung.a * chest.lung.b - smaller.a * smaller.b)
    assert vessels_mm2 + lost_mm2 == pytest.approx(math.pi * radius**2)
    assert sum(2 * 2 * tube.half_length for tube in vessels) == pytest.approx(2 * math.pi * radius)


def test_soft_tissue_on_the_page_is_alike_on_average() -> None:
    """Over many patients: the nodule's extra area, and how little of it remains against its twin."""
    extra, remaining = [], []
    for seed in range(60):
        chest, mass = draw(seed)
        bare, _ = thorax.draw_slice(same_grain(), chest, 0.0, SIZE_PX)
        sick, lung_YX = thorax.draw_slice(same_grain(), chest, 0.0, SIZE_PX)
        findings.paint_nodule(sick, lung_YX, mass, 0.0)
        twin, lung_YX = thorax.draw_slice(same_grain(), findings.chest_of_twin(chest, mass, 0.0), 0.0, SIZE_PX)
        twin.paint_tubes(findings.twin_vessels(mass, 0.0), mass.hu, lung_YX)
        extra.append(soft_mm2(sick.hu_YX, chest) - soft_mm2(bare.hu_YX, chest))
        remaining.append(soft_mm2(sick.hu_YX, chest) - soft_mm2(twin.hu_YX, chest))
    assert np.mean(extra) > 300.0
    assert abs(np.mean(remaining)) < 0.1 * np.mean(extra)


@pytest.mark.parametrize("seed", range(10))
def test_a_slice_beyond_the_nodule_is_not_labelled(seed: int) -> None:
    _, mass = draw(seed)
    assert findings.is_visible(mass, mass.z)
    assert not findings.is_visible(mass, mass.z + mass.radius)
    assert not findings.is_visible(mass, mass.z - mass.radius - 1.0)


@pytest.mark.parametrize("seed", range(10))
def test_a_nodule_lies_in_the_lung(seed: int) -> None:
    chest, mass = draw(seed)
    assert math.hypot((mass.x - chest.lung.x) / chest.lung.a, (mass.y - chest.lung.y) / chest.lung.b) < 0.8

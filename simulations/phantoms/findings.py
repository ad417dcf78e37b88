# SPDX-License-Identifier: Apache-2.0
"""The nodule, and its twin that is none.

A patient with a nodule has more soft tissue, and less air, than the same patient without, and a model could learn to count bright
pixels instead of looking. So every patient is given a mass from the same distribution. In a patient with the finding it is shown as
one round, slightly lobed nodule. In a patient without, the same area is soft tissue elsewhere: partly as vessels that together
have as long an outline as the nodule would (outlines are where half-covered pixels are), the rest as a lung that is smaller. Area
and edge are then alike, the histogram of a slice says next to nothing (a test holds that), and what is left to learn is shape.

Above 30 mm radiologists speak of a mass, not of a nodule; here both are one class.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from simulations.phantoms.canvas import Canvas, Grid, Tube, coverage
from simulations.phantoms.thorax import Chest, point_in_lung, without_air

VISIBLE_RADIUS_MM = 4.0  # the smallest cross-section that counts: wider than the widest vessel
LOBES = np.array([2, 3, 5])
LOBE_SIZE = (0.10, 0.06, 0.04)  # standard deviation, as a share of the radius
TWIN_RADIUS_MM = (2.2, 3.8)
TWIN_LENGTH_MM = 50.0
TWINS = 12  # enough for the longest outline


@dataclass(frozen=True, slots=True, kw_only=True)
class Mass:
    """Soft tissue to be shown: a ball of this radius about (x, y, z), mm, its density, and the vessels it may become."""

    x: float
    y: float
    z: float
    radius: float
    hu: float
    rim_mm: float
    lobe_size: tuple[float, ...]
    lobe_phase: tuple[float, ...]
    twins: tuple[Tube, ...]  # places and widths; their length is cut to measure

    def radius_at(self, z_mm: float) -> float:
        """The ball's cross-section at this height, mm; 0 where the slice misses it."""
        return math.sqrt(max(0.0, self.radius**2 - (z_mm - self.z) ** 2))


def draw_mass(rng: np.random.Generator, chest: Chest, diameter_mm: tuple[float, float]) -> Mass:
    """A mass for a patient, whether it will be shown as a nodule or not."""
    x, y = point_in_lung(rng, chest, 0.78)
    return Mass(
        x=x,
        y=y,
        z=float(rng.uniform(-1.0, 1.0)),
        radius=float(rng.uniform(*diameter_mm)) / 2,
        hu=float(rng.uniform(0.0, 80.0)),
        rim_mm=float(rng.uniform(0.0, 3.0)),
        lobe_size=tuple(float(size) for size in rng.normal(0.0, LOBE_SIZE)),
        lobe_phase=tuple(float(phase) for phase in rng.uniform(0.0, 2.0 * np.pi, len(LOBE_SIZE))),
        twins=tuple(_draw_twin(rng, chest) for _ in range(TWINS)),
    )


def is_visible(mass: Mass, z_mm: float) -> bool:
    """Whether a slice at this height shows enough of the mass to be labelled."""
    return mass.radius_at(z_mm) >= VISIBLE_RADIUS_MM


def paint_nodule(canvas: Canvas, lung_YX: Grid, mass: Mass, z_mm: float) -> None:
    """Show the mass as a nodule."""
    radius = mass.radius_at(z_mm)
    dx, dy = canvas.x_X[None, :] - np.float32(mass.x), canvas.y_Y[:, None] - np.float32(mass.y)
    angle_YX = np.arctan2(dy, dx)
    lobes_YX = sum(
        np.float32(size) * np.cos(np.float32(count) * angle_YX + np.float32(phase))
        for count, size, phase in zip(LOBES, mass.lobe_size, mass.lobe_phase, strict=True)
    )
    distance_YX = np.hypot(dx, dy) - np.float32(radius) * (1 + lobes_YX)
    canvas.paint(coverage(distance_YX, canvas.spacing_mm + mass.rim_mm) * lung_YX, mass.hu)


def twin_vessels(mass: Mass, z_mm: float) -> list[Tube]:
    """Vessels whose outline is as long as the nodule's at this height: a tube of length l has two sides, so l is half."""
    wanted_mm = math.pi * mass.radius_at(z_mm)
    tubes: list[Tube] = []
    for twin in mass.twins:
        length = min(TWIN_LENGTH_MM, wanted_mm)
        if length <= 0.0:
            break
        tubes.append(replace(twin, half_length=length / 2))
        wanted_mm -= length
    return tubes


def chest_of_twin(chest: Chest, mass: Mass, z_mm: float) -> Chest:
    """The chest whose lung is smaller by the nodule's area, less what the vessels already take."""
    vessels_mm2 = sum(4.0 * tube.half_length * tube.radius for tube in twin_vessels(mass, z_mm))
    return without_air(chest, max(0.0, math.pi * mass.radius_at(z_mm) ** 2 - vessels_mm2))


def _draw_twin(rng: np.random.Generator, chest: Chest) -> Tube:
    x, y = point_in_lung(rng, chest, 0.7)
    return Tube(x=x, y=y, angle=float(rng.uniform(0.0, np.pi)), half_length=0.0, radius=float(rng.uniform(*TWIN_RADIUS_MM)))

# SPDX-License-Identifier: Apache-2.0
"""The nodule, and its twin that is none.

A patient with a nodule has more soft tissue in the lung than the same patient without, and a model could learn to count bright pixels
instead of looking. So every patient gets the same amount of extra tissue, drawn from the same distribution: in a patient with the
finding it is one round, slightly lobed mass; in one without, wide vessels of the same area and density. What is left to learn is
shape, and the histogram of a slice says (almost) nothing: a test holds that.
"""

from dataclasses import dataclass

import numpy as np

from simulations.phantoms.canvas import Canvas, Grid, Tube, coverage
from simulations.phantoms.thorax import Chest, point_in_lung

VISIBLE_RADIUS_MM = 3.0  # the smallest cross-section that is labelled: the largest common vessel is wider
LOBES = np.array([2, 3, 5])
DECOY_RADIUS_MM = (2.2, 3.8)
DECOY_LENGTH_MM = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mass:
    """Extra soft tissue: a ball of this radius about (x, y, z), mm, and its density. The twin borrows only its area."""

    x: float
    y: float
    z: float
    radius: float
    hu: float
    rim_mm: float
    lobe_size: tuple[float, ...]
    lobe_phase: tuple[float, ...]
    decoys: tuple[Tube, ...]  # each of length 1: stretched to the area wanted

    def radius_at(self, z_mm: float) -> float:
        """The ball's cross-section at this height, mm; 0 where the slice misses it."""
        return float(np.sqrt(max(0.0, self.radius**2 - (z_mm - self.z) ** 2)))


def draw_mass(rng: np.random.Generator, chest: Chest, diameter_mm: tuple[float, float]) -> Mass:
    """Extra tissue for a patient, whether it will be shown as a nodule or as vessels."""
    x, y = point_in_lung(rng, chest, 0.78)
    return Mass(
        x=x,
        y=y,
        z=float(rng.uniform(-1.0, 1.0)),
        radius=float(rng.uniform(*diameter_mm)) / 2,
        hu=float(rng.uniform(0.0, 80.0)),
        rim_mm=float(rng.uniform(0.0, 3.0)),
        lobe_size=tuple(float(size) for size in rng.normal(0.0, (0.10, 0.06, 0.04))),
        lobe_phase=tuple(float(phase) for phase in rng.uniform(0.0, 2 * np.pi, 3)),
        decoys=tuple(_draw_decoy(rng, chest) for _ in range(24)),
    )


def paint_nodule(canvas: Canvas, lung_YX: Grid, mass: Mass, z_mm: float) -> bool:
    """Show the mass as a nodule. Returns whether this slice shows enough of it to be labelled."""
    radius = mass.radius_at(z_mm)
    if radius < VISIBLE_RADIUS_MM:
        return False
    dx, dy = canvas.x_X[None, :] - np.float32(mass.x), canvas.y_Y[:, None] - np.float32(mass.y)
    waves = np.cos(LOBES * np.arctan2(dy, dx)[..., None] + np.asarray(mass.lobe_phase)) @ np.asarray(mass.lobe_size)
    distance = np.hypot(dx, dy) - radius * (1 + waves).astype(np.float32)
    canvas.paint(coverage(distance, canvas.spacing_mm + mass.rim_mm) * lung_YX, mass.hu)
    return True


def paint_twin(canvas: Canvas, lung_YX: Grid, mass: Mass, z_mm: float) -> None:
    """Show the same area of the same tissue as vessels."""
    wanted_mm2 = np.pi * mass.radius_at(z_mm) ** 2
    tubes = []
    for decoy in mass.decoys:
        if wanted_mm2 <= 0.0:
            break
        length = min(DECOY_LENGTH_MM, wanted_mm2 / (2 * decoy.radius))
        tubes.append(Tube(x=decoy.x, y=decoy.y, angle=decoy.angle, half_length=length / 2, radius=decoy.radius, tip=decoy.tip))
        wanted_mm2 -= length * 2 * decoy.radius
    canvas.paint_tubes(tubes, mass.hu, lung_YX)


def _draw_decoy(rng: np.random.Generator, chest: Chest) -> Tube:
    x, y = point_in_lung(rng, chest, 0.7)
    return Tube(x=x, y=y, angle=float(rng.uniform(0.0, np.pi)), half_length=0.5, radius=float(rng.uniform(*DECOY_RADIUS_MM)), tip=1.0)

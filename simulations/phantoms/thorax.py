# SPDX-License-Identifier: Apache-2.0
"""A patient's chest: body wall, lungs, heart and great vessels, spine, ribs and the vessels of the lung.

Not an atlas, but everything that makes a nodule hard to see is here: vessels of all widths, cut along and across; a heart that bulges
into the left lung; ribs that touch it; lung tissue that is denser towards the back (the patient lies on it) and grainy. All of a
patient's slices show the same anatomy, a few millimetres apart, so they resemble each other as slices of one person do.

Densities are textbook values in HU: air -1000, lung -880 to -800, fat -100, muscle 50, blood 40 and more with contrast agent,
spongy bone 250, compact bone 600 (Hounsfield 1980; Kak and Slaney 1988, section 3.3).
"""

from dataclasses import dataclass

import numpy as np

from simulations.phantoms.canvas import Canvas, Ellipse, Grid, Tube
from simulations.phantoms.hospital import Hospital

AIR_HU, FAT_HU, MUSCLE_HU, TABLE_HU = -1000.0, -100.0, 50.0, -450.0
SPONGY_HU, COMPACT_HU, MARROW_HU = 220.0, 550.0, 20.0
VESSELS_PER_LUNG = (14, 36)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vessel:
    """One vessel of a lung: its tube in the middle slice, how far it wanders a millimetre of height, how tall it is."""

    tube: Tube
    drift: tuple[float, float]
    height_mm: float
    z_mm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Chest:
    """What stays the same in all slices of a patient. Lengths in mm, densities in HU."""

    spacing_mm: float
    outline: Ellipse
    wall_mm: float
    fat_mm: float
    lungs: tuple[Ellipse, Ellipse]  # the patient's right (image left), then left
    heart: Ellipse
    lung_hu: float
    gradient_hu: float  # how much denser the back is than the front, per mm
    blood_hu: float
    rib_phase: float
    vessels: tuple[Vessel, ...]


def draw_chest(rng: np.random.Generator, hospital: Hospital, size_px: int) -> Chest:
    """A patient of this hospital."""
    girth = hospital.girth * float(rng.normal(1.0, 0.05))
    half_width, half_depth = 165.0 * girth, 112.0 * girth * float(rng.normal(1.0, 0.04))
    wall_mm = float(rng.uniform(18.0, 26.0))
    fat_mm = float(np.clip(rng.gamma(4.0, 3.0) * girth, 3.0, 26.0))
    outline = Ellipse(x=0.0, y=0.0, a=half_width, b=half_depth, power=2.3)
    lungs = _draw_lungs(rng, half_width - wall_mm - fat_mm, half_depth - wall_mm - fat_mm)
    heart_x = float(rng.uniform(5.0, 22.0))
    return Chest(
        spacing_mm=2.0 * half_width * float(rng.uniform(1.02, 1.12)) / size_px,
        outline=outline,
        wall_mm=wall_mm,
        fat_mm=fat_mm,
        lungs=lungs,
        heart=Ellipse(
            x=heart_x,
            y=-18.0,
            a=float(rng.uniform(32.0, 50.0)),
            b=float(rng.uniform(30.0, 44.0)),
            angle=float(rng.uniform(0.2, 0.8)),
        ),
        lung_hu=float(rng.uniform(-880.0, -800.0)),
        gradient_hu=float(rng.uniform(0.2, 0.8)),
        blood_hu=40.0 + hospital.contrast_hu * float(rng.uniform(0.7, 1.3)),
        rib_phase=float(rng.uniform(0.0, 1.0)),
        vessels=tuple(vessel for lung in lungs for vessel in _draw_vessels(rng, lung)),
    )


def draw_slice(rng: np.random.Generator, chest: Chest, z_mm: float, size_px: int) -> tuple[Canvas, Grid]:
    """The chest at this height, and its lung field (share of each pixel, 0..1); no finding yet, no scanner yet."""
    canvas = Canvas(size_px, chest.spacing_mm, AIR_HU)
    _paint_body(canvas, chest)
    lung_YX = _paint_lungs(rng, canvas, chest, z_mm)
    _paint_mediastinum(canvas, chest, lung_YX)
    _paint_bones(canvas, chest, z_mm)
    tubes = [_at_height(vessel, z_mm) for vessel in chest.vessels if abs(z_mm - vessel.z_mm) < vessel.height_mm]
    canvas.paint_tubes(tubes, chest.blood_hu, lung_YX)
    return canvas, lung_YX


def point_in_lung(rng: np.random.Generator, chest: Chest, inset: float) -> tuple[float, float]:
    """A point inside one of the lungs, within `inset` of the way from its centre to its edge, clear of the heart, mm."""
    while True:
        lung = chest.lungs[int(rng.integers(2))]
        rho, phi = inset * float(np.sqrt(rng.uniform())), float(rng.uniform(0.0, 2.0 * np.pi))
        x, y = lung.x + lung.a * rho * float(np.cos(phi)), lung.y + lung.b * rho * float(np.sin(phi))
        if np.hypot((x - chest.heart.x) / (chest.heart.a + 12.0), (y - chest.heart.y) / (chest.heart.b + 12.0)) > 1.0:
            return x, y


def _draw_lungs(rng: np.random.Generator, half_width: float, half_depth: float) -> tuple[Ellipse, Ellipse]:
    def lung(side: int) -> Ellipse:
        a = half_width * float(rng.uniform(0.38, 0.44))
        return Ellipse(
            x=side * (half_width - a), y=float(rng.uniform(-4.0, 4.0)), a=a, b=half_depth * float(rng.uniform(0.9, 1.0)),
            angle=side * float(rng.uniform(-0.15, 0.05)), power=2.4,
        )  # fmt: skip

    return lung(-1), lung(+1)


def _draw_vessels(rng: np.random.Generator, lung: Ellipse) -> list[Vessel]:
    """Vessels that leave the hilum and thin out: most are cut across, a few run in the plane for some centimetres."""
    count = int(rng.integers(*VESSELS_PER_LUNG))
    reach = rng.uniform(0.15, 0.95, count)
    phi = rng.uniform(0.0, 2.0 * np.pi, count)
    x, y = lung.x + lung.a * reach * np.cos(phi), lung.y + lung.b * reach * np.sin(phi)
    from_hilum = np.hypot(x - lung.x * 0.45, y - lung.y)
    radius = np.clip(4.2 - from_hilum / 28.0, 1.0, 4.0) * rng.uniform(0.6, 1.2, count)
    direction = np.arctan2(y - lung.y, x - lung.x * 0.45) + rng.normal(0.0, 0.5, count)
    half_length = np.minimum(rng.exponential(6.0, count), 28.0)
    tip = rng.uniform(0.5, 1.0, count)
    height = rng.uniform(3.0, 25.0, count)
    z = rng.uniform(-6.0, 6.0, count)
    drift = rng.normal(0.0, 0.35, (count, 2))
    return [
        Vessel(
            tube=Tube(x=x[i], y=y[i], angle=direction[i], half_length=half_length[i], radius=radius[i], tip=tip[i]),
            drift=(drift[i, 0], drift[i, 1]), height_mm=height[i], z_mm=z[i],
        )
        for i in range(count)
    ]  # fmt: skip


def _at_height(vessel: Vessel, z_mm: float) -> Tube:
    tube, (dx, dy) = vessel.tube, vessel.drift
    return Tube(
        x=tube.x + dx * z_mm,
        y=tube.y + dy * z_mm,
        angle=tube.angle,
        half_length=tube.half_length,
        radius=tube.radius,
        tip=tube.tip,
    )


def _paint_body(canvas: Canvas, chest: Chest) -> None:
    body = chest.outline
    table_y = body.b + 6.0
    table = Ellipse(x=0.0, y=table_y + 4.0, a=210.0, b=5.0, power=6.0)
    canvas.paint(canvas.ellipse(table), TABLE_HU)
    canvas.paint(canvas.ellipse(body), FAT_HU)
    muscle = Ellipse(x=0.0, y=0.0, a=body.a - chest.fat_mm, b=body.b - chest.fat_mm * 0.7, power=body.power)
    canvas.paint(canvas.ellipse(muscle), MUSCLE_HU)


def _paint_lungs(rng: np.random.Generator, canvas: Canvas, chest: Chest, z_mm: float) -> Grid:
    swell = 1.0 + 0.002 * z_mm
    right, left = (
        canvas.ellipse(Ellipse(x=lung.x, y=lung.y, a=lung.a * swell, b=lung.b * swell, angle=lung.angle, power=lung.power))
        for lung in chest.lungs
    )
    heart = canvas.ellipse(chest.heart)
    lung_YX = np.maximum(right, left) * (1 - heart)
    grain = _smooth_noise(rng, canvas.hu_YX.shape[0], chest.spacing_mm)
    parenchyma = chest.lung_hu + chest.gradient_hu * canvas.y_Y[:, None] + 35.0 * grain
    canvas.paint(lung_YX, parenchyma.astype(np.float32))
    return lung_YX


def _smooth_noise(rng: np.random.Generator, size_px: int, spacing_mm: float) -> Grid:
    """Unit-variance grain about 8 mm wide: coarse random values, bilinearly drawn out to the grid."""
    coarse = max(2, int(size_px * spacing_mm / 8.0))
    values = rng.standard_normal((coarse, coarse), dtype=np.float32)
    at = np.linspace(0.0, coarse - 1.001, size_px, dtype=np.float32)
    low = at.astype(np.intp)
    share = at - low
    rows = values[low] * (1 - share)[:, None] + values[low + 1] * share[:, None]
    return np.asarray(1.5 * (rows[:, low] * (1 - share) + rows[:, low + 1] * share), np.float32)


def _paint_mediastinum(canvas: Canvas, chest: Chest, lung_YX: Grid) -> None:
    canvas.paint(canvas.ellipse(chest.heart), chest.blood_hu)
    back_y = chest.lungs[0].b * 0.45
    canvas.paint(canvas.ellipse(Ellipse(x=16.0, y=back_y, a=12.0, b=12.0)), chest.blood_hu)  # descending aorta
    for x in (-13.0, 13.0):  # main bronchi
        canvas.paint(canvas.ellipse(Ellipse(x=x, y=back_y * 0.35, a=6.0, b=6.0)) * (1 - lung_YX), AIR_HU)


def _paint_bones(canvas: Canvas, chest: Chest, z_mm: float) -> None:
    spine_y = chest.lungs[0].b * 0.8
    canvas.paint(canvas.ellipse(Ellipse(x=0.0, y=spine_y, a=19.0, b=15.0)), SPONGY_HU)
    canvas.paint(canvas.ellipse(Ellipse(x=0.0, y=spine_y + 23.0, a=9.0, b=8.0)), MARROW_HU)
    front_y = -(chest.outline.b - chest.fat_mm - 7.0)
    canvas.paint(canvas.ellipse(Ellipse(x=0.0, y=front_y, a=18.0, b=5.0)), SPONGY_HU)  # sternum
    everywhere = np.ones_like(canvas.hu_YX)
    canvas.paint_tubes(_ribs(chest, z_mm), COMPACT_HU, everywhere)


def _ribs(chest: Chest, z_mm: float) -> list[Tube]:
    """Ribs run obliquely through the slice: each shows as a short dash in the chest wall that moves on with height."""
    a = chest.outline.a - chest.fat_mm - 0.55 * chest.wall_mm
    b = chest.outline.b - chest.fat_mm * 0.7 - 0.55 * chest.wall_mm
    phase = chest.rib_phase + z_mm / 40.0
    angles = [side * (0.35 + 0.42 * (k + phase % 1.0)) for side in (-1, 1) for k in range(6)]
    return [
        Tube(
            x=a * float(np.sin(t)), y=-b * float(np.cos(t)), half_length=9.0, radius=4.0,
            angle=float(np.arctan2(b * np.sin(t), a * np.cos(t))),
        )
        for t in angles
    ]  # fmt: skip

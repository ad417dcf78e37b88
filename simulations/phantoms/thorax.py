# SPDX-License-Identifier: Apache-2.0
"""A patient's chest: body wall, lungs, heart and great vessels, spine, ribs and the vessels of the lung.

Not an atlas, but everything that makes a nodule hard to see is here: vessels of all widths, cut along and across; ribs that touch the
lung; lung tissue that is denser towards the back (the patient lies on it) and grainy. All of a patient's slices show the same anatomy,
a few millimetres apart, so they resemble each other as slices of one person do.

The field of view is the right lung, a targeted reconstruction as radiologists order it to follow a nodule; the heart, the spine and
the edge of the left lung come along, and how much of the wall does differs from patient to patient.

Densities are textbook values in HU: air -1000, lung -880 to -800, fat -100, muscle 50, blood 40 and more with contrast agent,
spongy bone 250, compact bone 600 (Hounsfield 1980; Kak and Slaney 1988, section 3.3).
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from simulations.phantoms.canvas import Canvas, Ellipse, Grid, Tube
from simulations.phantoms.hospital import Hospital

AIR_HU, FAT_HU, MUSCLE_HU, TABLE_HU = -1000.0, -100.0, 50.0, -450.0
SPONGY_HU, COMPACT_HU, MARROW_HU = 220.0, 550.0, 20.0
VESSELS = (6, 15)  # in the right lung
FIELD_OF_VIEW_MM = (180.0, 210.0)
VIEW_JITTER_MM = 8.0


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
    centre_mm: tuple[float, float]  # of the field of view
    outline: Ellipse
    wall_mm: float
    fat_mm: float
    lung: Ellipse  # the patient's right one, on the left of the image
    other_lung: Ellipse
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
    lung, other_lung = (_draw_lung(rng, side, half_width - wall_mm - fat_mm, half_depth - wall_mm - fat_mm) for side in (-1, 1))
    return Chest(
        spacing_mm=float(rng.uniform(*FIELD_OF_VIEW_MM)) / size_px,
        centre_mm=(lung.x + float(rng.normal(0.0, VIEW_JITTER_MM)), lung.y + float(rng.normal(0.0, VIEW_JITTER_MM))),
        outline=Ellipse(x=0.0, y=0.0, a=half_width, b=half_depth, power=2.3),
        wall_mm=wall_mm,
        fat_mm=fat_mm,
        lung=lung,
        other_lung=other_lung,
        heart=_draw_heart(rng),
        lung_hu=float(rng.uniform(-880.0, -800.0)),
        gradient_hu=float(rng.uniform(0.2, 0.8)),
        blood_hu=40.0 + hospital.contrast_hu * float(rng.uniform(0.7, 1.3)),
        rib_phase=float(rng.uniform(0.0, 1.0)),
        vessels=tuple(_draw_vessels(rng, lung)),
    )


def draw_slice(rng: np.random.Generator, chest: Chest, z_mm: float, size_px: int) -> tuple[Canvas, Grid]:
    """The chest at this height, and its right lung field (share of each pixel, 0..1); no finding yet, no scanner yet."""
    canvas = Canvas(size_px, chest.spacing_mm, chest.centre_mm, AIR_HU)
    _paint_body(canvas, chest)
    lung_YX = _paint_lungs(rng, canvas, chest, z_mm)
    _paint_mediastinum(canvas, chest)
    _paint_bones(canvas, chest, z_mm)
    tubes = [_at_height(vessel, z_mm) for vessel in chest.vessels if abs(z_mm - vessel.z_mm) < vessel.height_mm]
    canvas.paint_tubes(tubes, chest.blood_hu, lung_YX)
    return canvas, lung_YX


def without_air(chest: Chest, area_mm2: float) -> Chest:
    """The same patient with a right lung that is smaller by this area, in the same place."""
    lung = chest.lung
    scale = math.sqrt(max(0.25, 1.0 - area_mm2 / (math.pi * lung.a * lung.b)))
    return replace(chest, lung=replace(lung, a=lung.a * scale, b=lung.b * scale))


def point_in_lung(rng: np.random.Generator, chest: Chest, inset: float) -> tuple[float, float]:
    """A point of the right lung, within `inset` of the way from its centre to its edge, clear of the heart, mm."""
    lung, heart = chest.lung, chest.heart
    while True:
        rho, phi = inset * math.sqrt(rng.uniform()), rng.uniform(0.0, 2.0 * math.pi)
        x, y = lung.x + lung.a * rho * math.cos(phi), lung.y + lung.b * rho * math.sin(phi)
        if math.hypot((x - heart.x) / (heart.a + 12.0), (y - heart.y) / (heart.b + 12.0)) > 1.0:
            return x, y


def _draw_lung(rng: np.random.Generator, side: int, half_width: float, half_depth: float) -> Ellipse:
    a = half_width * float(rng.uniform(0.38, 0.44))
    return Ellipse(
        x=side * (half_width - a),
        y=float(rng.uniform(-4.0, 4.0)),
        a=a,
        b=half_depth * float(rng.uniform(0.9, 1.0)),
        angle=side * float(rng.uniform(-0.15, 0.05)),
        power=2.4,
    )


def _draw_heart(rng: np.random.Generator) -> Ellipse:
    x, a, b, angle = rng.uniform((5.0, 32.0, 30.0, 0.2), (22.0, 50.0, 44.0, 0.8))
    return Ellipse(x=float(x), y=-18.0, a=float(a), b=float(b), angle=float(angle))


def _draw_vessels(rng: np.random.Generator, lung: Ellipse) -> list[Vessel]:
    """Vessels that leave the hilum and thin out: most are cut across, a few run in the plane for some centimetres."""
    count = int(rng.integers(*VESSELS))
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
    dx, dy = vessel.drift
    return replace(vessel.tube, x=vessel.tube.x + dx * z_mm, y=vessel.tube.y + dy * z_mm)


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
    lung_YX, other_YX = (canvas.ellipse(replace(lung, a=lung.a * swell, b=lung.b * swell)) for lung in (chest.lung, chest.other_lung))
    grain = _smooth_noise(rng, canvas.hu_YX.shape[0], chest.spacing_mm)
    parenchyma = chest.lung_hu + chest.gradient_hu * canvas.y_Y[:, None] + 35.0 * grain
    canvas.paint(np.maximum(lung_YX, other_YX), parenchyma.astype(np.float32))
    lung_only: Grid = lung_YX * (1 - canvas.ellipse(chest.heart))
    return lung_only


def _smooth_noise(rng: np.random.Generator, size_px: int, spacing_mm: float) -> Grid:
    """Unit-variance grain about 8 mm wide: coarse random values, bilinearly drawn out to the grid."""
    coarse = max(2, int(size_px * spacing_mm / 8.0))
    values = rng.standard_normal((coarse, coarse), dtype=np.float32)
    at = np.linspace(0.0, coarse - 1.001, size_px, dtype=np.float32)
    low = at.astype(np.intp)
    share = at - low
    rows = values[low] * (1 - share)[:, None] + values[low + 1] * share[:, None]
    return np.asarray(1.5 * (rows[:, low] * (1 - share) + rows[:, low + 1] * share), np.float32)


def _paint_mediastinum(canvas: Canvas, chest: Chest) -> None:
    canvas.paint(canvas.ellipse(chest.heart), chest.blood_hu)
    back_y = chest.other_lung.b * 0.45
    canvas.paint(canvas.ellipse(Ellipse(x=16.0, y=back_y, a=12.0, b=12.0)), chest.blood_hu)  # descending aorta
    for x in (-13.0, 13.0):
        canvas.paint(canvas.ellipse(Ellipse(x=x, y=back_y * 0.35, a=6.0, b=6.0)), AIR_HU)  # main bronchi


def _paint_bones(canvas: Canvas, chest: Chest, z_mm: float) -> None:
    spine_y = chest.other_lung.b * 0.8
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

# SPDX-License-Identifier: Apache-2.0
"""Cells in a smear, to be found as boxes: pale ones with a light middle, and dark ones with lobes.

Both kinds cover about as much; specks of dust are as dark as a dark cell, and too small to be one. `boxes.csv` has a row for each cell.
"""

from pathlib import Path

import numpy as np

from simulations.made.folder import IMAGES, Grey, Patient, disc, patients, smooth_noise, write_index, write_picture
from simulations.made.spec import MadeSpec

CLASSES = ("pale", "dark")
DUST = 4
Box = tuple[str, float, float, float, float]  # class, left, top, right, bottom


def write(spec: MadeSpec, folder: Path) -> None:
    """A picture of each patient, and boxes of its cells."""
    rows, boxes = [], []
    for patient in patients(spec):
        scene, found = _scene(patient, spec.size_px)
        file = write_picture(folder, f"{IMAGES}/{patient.number:06}.png", patient.camera.picture(scene, patient.rng))
        rows.append(patient.row(file=file, width=spec.size_px, height=spec.size_px))
        for kind, left, top, right, bottom in found:
            corners = {"x_min": left, "y_min": top, "x_max": right, "y_max": bottom}
            boxes.append({"file": file, "cls": kind, **{name: f"{value:.2f}" for name, value in corners.items()}})
    write_index(folder, rows)
    write_index(folder, boxes, name="boxes.csv")


def _scene(patient: Patient, size: int) -> tuple[Grey, list[Box]]:
    rng = patient.rng
    scene = 0.75 + 0.05 * smooth_noise(size, 6, rng)
    for _ in range(DUST):
        scene -= rng.uniform(0.2, 0.4) * disc(size, tuple(rng.uniform(2, size - 2, 2)), (1.2, 1.2))
    boxes: list[Box] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(rng.integers(3, 7)):
        radius = size * rng.uniform(0.09, 0.13)
        row, column = rng.uniform(radius, size - radius, 2)
        if any(np.hypot(row - down, column - across) < 0.9 * (radius + other) for down, across, other in taken):
            continue
        taken.append((row, column, radius))
        kind = CLASSES[rng.integers(2)]
        scene -= _pale(size, (row, column), radius) if kind == "pale" else _dark(size, (row, column), radius, rng)
        boxes.append((kind, column - radius, row - radius, column + radius, row + radius))
    return scene, boxes


def _pale(size: int, centre: tuple[float, float], radius: float) -> Grey:
    return 0.35 * disc(size, centre, (radius, radius)) - 0.25 * disc(size, centre, (radius / 2, radius / 2))


def _dark(size: int, centre: tuple[float, float], radius: float, rng: np.random.Generator) -> Grey:
    """A body, and three lobes in it."""
    cell, turn = 0.15 * disc(size, centre, (radius, radius)), rng.uniform(0, 2 * np.pi)
    for lobe in range(3):
        angle = turn + lobe * 2 * np.pi / 3
        place = (centre[0] + radius / 2 * np.sin(angle), centre[1] + radius / 2 * np.cos(angle))
        cell = np.maximum(cell, 0.4 * disc(size, place, (radius / 2.2, radius / 2.2)))
    return cell

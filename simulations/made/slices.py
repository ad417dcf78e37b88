# SPDX-License-Identifier: Apache-2.0
"""Slices of a body, to be made worse and mended: smooth organs with sharp edges, a fine mesh in some of them.

There is nothing to tell apart and no label: an image is its own truth. Smoothing alone mends noise in the organs and ruins their edges, so
a network has to learn where the edges are.
"""

from pathlib import Path

import numpy as np

from simulations.made.folder import IMAGES, Camera, Grey, Patient, disc, patients, write_index, write_picture
from simulations.made.spec import MadeSpec

SLICES = 2
ORGANS = 6


def write(spec: MadeSpec, folder: Path) -> None:
    """Two slices of each patient, hardly noisy: the truth that is to be found again."""
    rows = []
    for patient in patients(spec):
        clear = Camera(brightness=patient.camera.brightness, contrast=patient.camera.contrast, noise=0.0)
        for place in range(SLICES):
            pixels = clear.picture(_scene(patient, spec.size_px), patient.rng)
            rows.append(patient.row(file=write_picture(folder, f"{IMAGES}/{patient.number:06}_{place}.png", pixels)))
    write_index(folder, rows)


def _scene(patient: Patient, size: int) -> Grey:
    rng, middle = patient.rng, (size / 2, size / 2)
    body = disc(size, middle, tuple(size * rng.uniform(0.38, 0.46, 2)))
    scene = 0.1 + 0.35 * body
    for _ in range(ORGANS):
        place, radii = tuple(size * rng.uniform(0.25, 0.75, 2)), tuple(size * rng.uniform(0.05, 0.18, 2))
        organ = disc(size, place, radii, rng.uniform(0, np.pi)) * body
        inside = rng.uniform(0.2, 0.8) + (_mesh(size, rng) if rng.random() < 0.5 else 0.0)
        scene = scene * (1 - organ) + inside * organ
    return scene


def _mesh(size: int, rng: np.random.Generator) -> Grey:
    """Stripes three to six pixels apart."""
    down, across = np.mgrid[:size, :size]
    turn, period = rng.uniform(0, np.pi), rng.uniform(3, 6)
    stripes: Grey = 0.12 * np.sin(2 * np.pi * (down * np.cos(turn) + across * np.sin(turn)) / period)
    return stripes

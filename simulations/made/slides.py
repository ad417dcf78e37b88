# SPDX-License-Identifier: Apache-2.0
"""Slides as bags of tiles: a slide is ill if a few of its tiles hold hollow cells; nobody says which.

What is known is known of the slide (Ilse et al. 2018, https://arxiv.org/abs/1802.04712); most tiles of an ill one look healthy.
"""

from pathlib import Path

import numpy as np

from simulations.made.folder import IMAGES, Grey, patients, write_index, write_picture
from simulations.made.nodules import nodule, tissue
from simulations.made.spec import MadeSpec

TILES = 8
_CELLS = 3


def write(spec: MadeSpec, folder: Path) -> None:
    """Eight tiles for each patient's slide: case, position (the tile's number) and label."""
    rows = []
    for patient in patients(spec):
        rng, label = patient.rng, patient.number % 2
        ill = rng.choice(TILES, size=2 + int(rng.integers(2)), replace=False) if label else ()
        for tile in range(TILES):
            scene = _tile(spec.size_px, rng, hollow=tile in ill)
            path = write_picture(folder, f"{IMAGES}/{patient.number:06}_{tile}.png", patient.camera.picture(scene, rng))
            rows.append(patient.row(file=path, case=1, position=tile, label=label))
    write_index(folder, rows)


def _tile(size: int, rng: np.random.Generator, *, hollow: bool) -> Grey:
    scene, kinds = tissue(size, rng), np.zeros(_CELLS, dtype=bool)
    kinds[: 2 if hollow else 0] = True
    for kind in kinds:
        centre, radius = tuple(rng.uniform(0.2, 0.8, 2) * size), rng.uniform(0.13, 0.18) * size
        scene += rng.uniform(0.2, 0.3) * nodule(size, centre, radius, hollow=bool(kind))
    return scene

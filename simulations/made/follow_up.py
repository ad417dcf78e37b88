# SPDX-License-Identifier: Apache-2.0
"""A lesion seen at several visits: does it grow, or shrink under treatment?

Both kinds of patient have the same pictures, in the opposite order; no single visit says anything. Visits differ in number, and only
their day says in which order they were.
"""

from pathlib import Path

import numpy as np

from simulations.made.folder import IMAGES, patients, write_index, write_picture
from simulations.made.nodules import nodule, tissue
from simulations.made.spec import MadeSpec

SHRINKS, GROWS = 0, 1
_SMALLEST, _LARGEST = 0.09, 0.26  # radius, in parts of the picture


def write(spec: MadeSpec, folder: Path) -> None:
    """Three to six visits for each patient: case, position (the day) and label."""
    rows, size = [], spec.size_px
    for patient in patients(spec):
        rng, label = patient.rng, patient.number % 2
        visits, centre = int(rng.integers(3, 7)), tuple(rng.uniform(0.35, 0.65, 2) * size)
        radii = np.linspace(_SMALLEST, _LARGEST, visits) * rng.uniform(0.85, 1.15) * size
        days = np.cumsum(rng.integers(20, 120, visits))
        body, light = tissue(size, rng), rng.uniform(0.25, 0.4)
        seen = list(zip(days.tolist(), radii if label == GROWS else radii[::-1], strict=True))
        for place in rng.permutation(visits):
            day, radius = seen[place]
            scene = body + 0.02 * rng.standard_normal() + light * nodule(size, centre, radius, hollow=False)
            path = write_picture(folder, f"{IMAGES}/{patient.number:06}_{day}.png", patient.camera.picture(scene, rng))
            rows.append(patient.row(file=path, case=1, position=day, label=label))
    write_index(folder, rows)

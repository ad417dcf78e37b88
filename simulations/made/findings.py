# SPDX-License-Identifier: Apache-2.0
"""Three findings that a picture may show in any combination: a solid nodule, a hollow one, a streak.

Each is there in two of five patients, whatever else is. One cell in ten is empty: nobody has looked for it.
"""

from pathlib import Path

import numpy as np

from simulations.made.folder import IMAGES, Grey, disc, patients, write_index, write_picture
from simulations.made.nodules import nodule, tissue
from simulations.made.spec import MadeSpec

FINDINGS = ("nodule", "cavity", "streak")
_OFTEN, _NOT_LOOKED_FOR, _LIGHT = 0.4, 0.1, 0.3


def write(spec: MadeSpec, folder: Path) -> None:
    """A picture and three columns for each patient."""
    rows = []
    for patient in patients(spec):
        rng = patient.rng
        there, unknown = rng.random(3) < _OFTEN, rng.random(3) < _NOT_LOOKED_FOR
        unknown[rng.integers(3)] = False  # somebody has looked for something
        path = write_picture(folder, f"{IMAGES}/{patient.number:06}.png", patient.camera.picture(_scene(spec.size_px, rng, there), rng))
        cells = {name: "" if unknown[place] else int(there[place]) for place, name in enumerate(FINDINGS)}
        rows.append(patient.row(file=path, **cells))
    write_index(folder, rows)


def _scene(size: int, rng: np.random.Generator, there: np.ndarray) -> Grey:
    scene, nodular, hollow, streaked = tissue(size, rng), *map(bool, there)
    for wanted, is_hollow in ((nodular, False), (hollow, True)):
        if wanted:
            scene += _LIGHT * nodule(size, tuple(rng.uniform(0.25, 0.75, 2) * size), rng.uniform(0.15, 0.2) * size, hollow=is_hollow)
    if streaked:
        radii = (rng.uniform(0.35, 0.5) * size, 1.5)
        scene += _LIGHT * disc(size, tuple(rng.uniform(0.3, 0.7, 2) * size), radii, rng.uniform(0, np.pi))
    return scene

# SPDX-License-Identifier: Apache-2.0
"""An image that means something with a record only: two nodules, one of them hollow; is it the one on the side of the complaint?

The image alone says nothing of the answer, and the record alone neither. One patient in twenty could not say which side.
"""

from pathlib import Path

from simulations.made.folder import IMAGES, patients, write_index, write_picture
from simulations.made.nodules import nodule, tissue
from simulations.made.spec import MadeSpec

SIDES = ("left", "right")
_NOT_SAID = 0.05


def write(spec: MadeSpec, folder: Path) -> None:
    """A picture and a record for each patient."""
    rows, size = [], spec.size_px
    for patient in patients(spec):
        rng, hollow, side = patient.rng, int(patient.rng.integers(2)), int(patient.rng.integers(2))
        scene = tissue(size, rng)
        for place in range(2):
            centre = (rng.uniform(0.35, 0.65) * size, (0.25 + 0.5 * place + rng.uniform(-0.05, 0.05)) * size)
            scene += rng.uniform(0.2, 0.35) * nodule(size, centre, rng.uniform(0.17, 0.22) * size, hollow=place == hollow)
        path = write_picture(folder, f"{IMAGES}/{patient.number:06}.png", patient.camera.picture(scene, rng))
        said = "" if rng.random() < _NOT_SAID else SIDES[side]
        rows.append(patient.row(file=path, side=said, age=f"{rng.normal(60, 12):.0f}", label=int(hollow == side)))
    write_index(folder, rows)

# SPDX-License-Identifier: Apache-2.0
"""What a bright spot is: a vessel that was cut along, a smooth growth, or one with spikes; half, three and two of ten patients.

All three are as large and as bright, so that only the outline tells; where the spot lies and how it is turned says nothing.
"""

from pathlib import Path

import numpy as np

from simulations.made.folder import IMAGES, Grey, disc, patients, write_index, write_picture
from simulations.made.nodules import tissue
from simulations.made.spec import MadeSpec

GROWTHS = ("vessel", "smooth", "spiked")
OFTEN = (0.5, 0.3, 0.2)
PICTURES = 2
SPIKES = 6
_LONG = 2.5  # a vessel's half length, in radii of a growth of the same area


def write(spec: MadeSpec, folder: Path) -> None:
    """Two pictures of each patient, and what they show."""
    rows = []
    for patient in patients(spec):
        rng, name = patient.rng, GROWTHS[patient.rng.choice(len(GROWTHS), p=OFTEN)]
        for number in range(PICTURES):
            scene = tissue(spec.size_px, rng) + rng.uniform(0.3, 0.4) * _spot(spec.size_px, name, rng)
            path = write_picture(folder, f"{IMAGES}/{patient.number:06}_{number}.png", patient.camera.picture(scene, rng))
            rows.append(patient.row(file=path, label=name))
    write_index(folder, rows)


def _spot(size: int, name: str, rng: np.random.Generator) -> Grey:
    """Its light, which adds up to that of a disc whatever it is, (size, size)."""
    middle, radius = tuple(rng.uniform(0.3, 0.7, 2) * size), rng.uniform(0.13, 0.17) * size
    turn = rng.uniform(0, 2 * np.pi)
    smooth = disc(size, middle, (radius, radius))
    match name:
        case "vessel":
            shape = disc(size, middle, (_LONG * radius, radius / _LONG), turn)
        case "spiked":
            shape = disc(size, middle, (0.6 * radius, 0.6 * radius))
            for spike in range(SPIKES // 2):  # one ellipse is two spikes
                shape = np.maximum(shape, disc(size, middle, (1.7 * radius, 0.16 * radius), turn + spike * 2 * np.pi / SPIKES))
        case _:
            shape = smooth
    light: Grey = shape * (smooth.sum() / shape.sum())
    return light

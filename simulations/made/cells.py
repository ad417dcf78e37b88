# SPDX-License-Identifier: Apache-2.0
"""Cells to be outlined: nuclei, round and with an inside of their own, among fibres that are as bright but long.

A mask says of each pixel 0, or 1 inside a nucleus. Brightness alone finds the fibres too, and the background is clouded: what to look for
is a shape.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulations.made.folder import IMAGES, MASKS, Grey, Patient, disc, patients, smooth_noise, write_index, write_picture
from simulations.made.spec import MadeSpec

FIBRES = 3
BRIGHT = 0.4


def write(spec: MadeSpec, folder: Path) -> None:
    """A picture and a mask for each patient."""
    rows = []
    for patient in patients(spec):
        scene, mask = _scene(patient, spec.size_px)
        rows.append(
            patient.row(
                file=write_picture(folder, f"{IMAGES}/{patient.number:06}.png", patient.camera.picture(scene, patient.rng)),
                mask_file=write_picture(folder, f"{MASKS}/{patient.number:06}.png", mask),
            )
        )
    write_index(folder, rows)


def _scene(patient: Patient, size: int) -> tuple[Grey, NDArray[np.uint8]]:
    rng = patient.rng
    scene = 0.3 + 0.06 * smooth_noise(size, 6, rng)
    for _ in range(FIBRES):
        fibre = disc(size, tuple(rng.uniform(0, size, 2)), (rng.uniform(0.3, 0.5) * size, 1.6), rng.uniform(0, np.pi))
        scene += rng.uniform(0.8, 1.2) * BRIGHT * fibre
    mask = np.zeros((size, size), dtype=np.uint8)
    for _ in range(rng.integers(3, 7)):
        nucleus = disc(size, tuple(rng.uniform(4, size - 4, 2)), tuple(size * rng.uniform(0.07, 0.12, 2)), rng.uniform(0, np.pi))
        texture = rng.uniform(0.8, 1.2) * BRIGHT * (1 + 0.25 * smooth_noise(size, 2, rng))
        scene = scene * (1 - nucleus) + (0.3 + texture) * nucleus
        mask[nucleus > 0.5] = 1
    return scene, mask

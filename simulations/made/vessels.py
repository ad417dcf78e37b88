# SPDX-License-Identifier: Apache-2.0
"""Lesions among vessels, in volumes: a slice alone cannot tell them apart, its neighbours can.

A lesion is a ball: round in a slice, and gone two slices further. A vessel is a tube across the slices: as round and as bright, and still
there. A mask says of each pixel of each slice 0, or 1 inside a lesion; `case` and `position` say which slices are neighbours.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulations.made.folder import IMAGES, MASKS, Grey, Patient, disc, patients, smooth_noise, write_index, write_picture
from simulations.made.spec import MadeSpec

SLICES = 5
VESSELS = 3
BRIGHT = 0.4
THICK = 1.3
"""How far a lesion reaches across slices, in slices: it is as wide as it is high, and slices are thick."""


def write(spec: MadeSpec, folder: Path) -> None:
    """A volume of each patient, slice by slice, and a mask for each slice."""
    rows = []
    for patient in patients(spec):
        scenes, masks = _volume(patient, spec.size_px)
        for place, (scene, mask) in enumerate(zip(scenes, masks, strict=True)):
            name = f"{patient.number:06}_{place}.png"
            rows.append(
                patient.row(
                    case=1,
                    position=place,
                    file=write_picture(folder, f"{IMAGES}/{name}", patient.camera.picture(scene, patient.rng)),
                    mask_file=write_picture(folder, f"{MASKS}/{name}", mask),
                )
            )
    write_index(folder, rows)


def _volume(patient: Patient, size: int) -> tuple[list[Grey], list[NDArray[np.uint8]]]:
    rng = patient.rng
    scenes = [0.3 + 0.05 * smooth_noise(size, 5, rng) for _ in range(SLICES)]
    masks = [np.zeros((size, size), dtype=np.uint8) for _ in range(SLICES)]
    middles = _places(size, VESSELS + 2, rng)
    for middle in middles[:VESSELS]:
        radius, drift, bright = size * rng.uniform(0.06, 0.1), rng.normal(0, 0.3, 2), BRIGHT * rng.uniform(0.8, 1.2)
        for place in range(SLICES):
            centre = middle + drift * (place - SLICES // 2)
            scenes[place] += bright * disc(size, tuple(centre), (radius, radius))
    for middle in middles[VESSELS:]:
        largest, depth, bright = size * rng.uniform(0.09, 0.13), rng.uniform(0.5, SLICES - 1.5), BRIGHT * rng.uniform(0.8, 1.2)
        for place in range(SLICES):
            radius = largest * np.sqrt(max(0.0, 1 - ((place - depth) / THICK) ** 2))
            if radius > 1:
                lesion = disc(size, tuple(middle), (radius, radius))
                scenes[place] += bright * lesion
                masks[place][lesion > 0.5] = 1
    return scenes, masks


def _places(size: int, number: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """So many places that hardly touch, (number, 2): the roomiest of a few draws."""
    drawn = rng.uniform(0.15, 0.85, (32, number, 2)) * size
    gaps = np.linalg.norm(drawn[:, :, None] - drawn[:, None], axis=-1) + size * np.eye(number)
    roomiest: NDArray[np.float64] = drawn[gaps.min(axis=(1, 2)).argmax()]
    return roomiest

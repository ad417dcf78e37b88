# SPDX-License-Identifier: Apache-2.0
"""Ten organs as slices cut them, to be told apart by their outlines.

Each is drawn from a few ellipses, some of which carve out of the others; every patient's is turned, enlarged and moved by a little of its
own, and how bright it is says nothing. At 224 pixels there is an outline to follow, at 28 there is little more than a blot.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulations.made.folder import IMAGES, Grey, disc, patients, write_index, write_picture
from simulations.made.nodules import tissue
from simulations.made.spec import MadeSpec


@dataclass(frozen=True, slots=True)
class Part:
    """An ellipse: its middle from the organ's own, half its height and width, all in parts of the picture's side; turned by radians."""

    down: float
    across: float
    high: float
    wide: float
    turn: float = 0.0
    carves: bool = False


ORGANS: Mapping[str, tuple[Part, ...]] = {
    "aorta": (Part(0, 0, 0.17, 0.17), Part(0, 0, 0.1, 0.1, carves=True)),
    "bladder": (Part(0, 0, 0.15, 0.21),),
    "bowel": tuple(
        Part(down, across, 0.07, 0.07) for down, across in ((-0.12, -0.22), (0.1, -0.12), (-0.1, 0), (0.1, 0.12), (-0.12, 0.22))
    ),
    "hips": (Part(0, -0.2, 0.1, 0.1), Part(0, 0.2, 0.1, 0.1)),
    "kidney": (Part(0, 0, 0.23, 0.14), Part(0, 0.13, 0.09, 0.09, carves=True)),
    "liver": (Part(0, 0, 0.16, 0.28), Part(0.13, 0.12, 0.12, 0.22, carves=True)),
    "lungs": (Part(0, -0.16, 0.25, 0.11), Part(0, 0.16, 0.25, 0.11)),
    "ribs": tuple(Part(down, 0, 0.035, 0.26) for down in (-0.16, 0, 0.16)),
    "spine": (
        Part(-0.06, 0, 0.11, 0.13),
        Part(0.16, 0, 0.13, 0.03),
        Part(0.08, -0.14, 0.03, 0.12),
        Part(0.08, 0.14, 0.03, 0.12),
    ),
    "stomach": (Part(0, 0, 0.24, 0.2), Part(-0.05, 0.12, 0.2, 0.16, carves=True)),
}
NAMES = tuple(ORGANS)


def write(spec: MadeSpec, folder: Path) -> None:
    """A picture of each patient, and which organ it shows."""
    rows = []
    for patient in patients(spec):
        name = NAMES[patient.rng.integers(len(NAMES))]
        scene = tissue(spec.size_px, patient.rng)
        scene += patient.rng.uniform(0.25, 0.4) * _organ(spec.size_px, ORGANS[name], patient.rng)
        path = write_picture(folder, f"{IMAGES}/{patient.number:06}.png", patient.camera.picture(scene, patient.rng))
        rows.append(patient.row(file=path, label=name))
    write_index(folder, rows)


def _organ(size: int, parts: tuple[Part, ...], rng: np.random.Generator) -> Grey:
    """1 inside and 0 outside, (size, size), at a place, a size and an angle of its own."""
    turn, scale = rng.normal(0, 0.12), size * rng.uniform(0.85, 1.15)
    middle = size * (0.5 + rng.uniform(-0.08, 0.08, 2))
    inside = np.zeros((size, size))
    for part in parts:
        down = part.down * np.cos(turn) - part.across * np.sin(turn)
        across = part.down * np.sin(turn) + part.across * np.cos(turn)
        place = (middle[0] + scale * down, middle[1] + scale * across)
        ellipse = disc(size, place, (scale * part.high, scale * part.wide), part.turn + turn)
        inside = inside * (1 - ellipse) if part.carves else np.maximum(inside, ellipse)
    return inside

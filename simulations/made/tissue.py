# SPDX-License-Identifier: Apache-2.0
"""Patches of tissue: loosely and densely grown nuclei, to be told apart anywhere in a patch.

Class 1 has its nuclei in clusters, class 0 as many of them, as large and as dark, apart from each other. So it is not how much is dark that
tells, but what lies beside what; and where in the patch it lies says nothing.
"""

from pathlib import Path

import numpy as np

from simulations.made.folder import IMAGES, Grey, Patient, disc, patients, smooth_noise, write_index, write_picture
from simulations.made.spec import MadeSpec

PATCHES = 2
CLUSTER = 4
APART = 0.2


def write(spec: MadeSpec, folder: Path) -> None:
    """Two patches of each patient, and a label for both."""
    rows = []
    for patient in patients(spec):
        label = int(patient.rng.integers(2))
        for patch in range(PATCHES):
            pixels = patient.camera.picture(_scene(patient, spec.size_px, clustered=bool(label)), patient.rng)
            rows.append(patient.row(file=write_picture(folder, f"{IMAGES}/{patient.number:06}_{patch}.png", pixels), label=label))
    write_index(folder, rows)


def _scene(patient: Patient, size: int, *, clustered: bool) -> Grey:
    rng = patient.rng
    scene = 0.7 + 0.05 * smooth_noise(size, 5, rng)
    for place in _clusters(size, rng) if clustered else _apart(size, rng):
        nucleus = disc(size, place, tuple(size * rng.uniform(0.05, 0.07, 2)), rng.uniform(0, np.pi))
        scene = np.minimum(scene, 0.7 - rng.uniform(0.3, 0.45) * nucleus)
    return scene


def _apart(size: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Eight places, of which no two are near each other: the first that fit, of places drawn at random."""
    places: list[tuple[float, float]] = []
    while len(places) < 2 * CLUSTER:
        down, across = rng.uniform(0.08, 0.92, 2) * size
        for attempt in range(50):
            if all(np.hypot(down - row, across - column) > APART * size * (1 - attempt / 100) for row, column in places):
                break
            down, across = rng.uniform(0.08, 0.92, 2) * size
        places.append((down, across))
    return places


def _clusters(size: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Eight places in two clusters, each around a middle, as near as nuclei can lie."""
    places = []
    for middle in rng.uniform(0.2, 0.8, (2, 2)) * size:
        turn = rng.uniform(0, 2 * np.pi)
        for number in range(CLUSTER):
            angle = turn + number * 2 * np.pi / CLUSTER + rng.normal(0, 0.15)
            reach = 0.09 * size * rng.uniform(0.9, 1.1)
            places.append((middle[0] + reach * np.sin(angle), middle[1] + reach * np.cos(angle)))
    return places

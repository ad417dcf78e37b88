# SPDX-License-Identifier: Apache-2.0
"""What all kinds of made data have in common: who the patients are, and files as a hospital's export would have them.

    folder/index.csv                  site, patient_id, and what the kind adds: a label, the path of a mask, a record's columns
           images/000017_0.png

Each patient has a random stream of their own, so nothing drawn of one depends on how many there are; each hospital has one for its camera:
how bright its pictures are and how noisy, so that a threshold that is right at one is wrong at the next.
"""

import csv
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.imaging.index import INDEX
from simulations.made.spec import MadeSpec

IMAGES, MASKS = "images", "masks"
Grey = NDArray[np.float64]
"""A picture, (H, W), 0 black and 1 white."""


@dataclass(frozen=True, slots=True)
class Camera:
    """A hospital's: brightness (added), contrast (a factor) and noise (a standard deviation, of the full range)."""

    brightness: float
    contrast: float
    noise: float

    def picture(self, scene: Grey, rng: np.random.Generator) -> NDArray[np.uint8]:
        """What it makes of a scene, (H, W) uint8."""
        seen = (scene - 0.5) * self.contrast + 0.5 + self.brightness + rng.normal(0, self.noise, scene.shape)
        return np.round(seen.clip(0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Patient:
    """Somebody who does not exist. `number` counts over all hospitals; `rng` is theirs alone."""

    number: int
    site: str
    camera: Camera
    rng: np.random.Generator

    def row(self, **cells: str | int) -> dict[str, str | int]:
        """A row of the index: whose it is, and what the kind says."""
        return {"site": self.site, "patient_id": f"made {self.number}", **cells}


def patients(spec: MadeSpec) -> Iterator[Patient]:
    """All of them, hospital by hospital."""
    stream = zlib.crc32(spec.kind.encode())
    for hospital in range(spec.hospitals):
        camera = _camera(np.random.default_rng([spec.seed, stream, hospital]))
        for number in range(hospital * spec.patients_per_hospital, (hospital + 1) * spec.patients_per_hospital):
            yield Patient(number, f"hospital_{hospital:02}", camera, np.random.default_rng([spec.seed, stream, hospital, number]))


def _camera(rng: np.random.Generator) -> Camera:
    return Camera(brightness=rng.uniform(-0.1, 0.1), contrast=rng.uniform(0.7, 1.0), noise=rng.uniform(0.02, 0.06))


def write_index(folder: Path, rows: Sequence[Mapping[str, str | int]], *, name: str = INDEX) -> None:
    """A table of rows that all have the first one's columns."""
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_picture(folder: Path, path: str, pixels: NDArray[np.uint8]) -> str:
    """A PNG below the folder; returns its path there, for the index."""
    (folder / path).parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / path, compress_level=1)
    return path


def smooth_noise(size: int, coarseness: int, rng: np.random.Generator) -> Grey:
    """Clouds of about `coarseness` pixels, mean 0 and standard deviation 1, (size, size)."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    down, across = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    clouds: Grey = np.fft.irfft2(spectrum * np.exp(-((down**2 + across**2) * (np.pi * coarseness) ** 2)), s=(size, size))
    whole: Grey = (clouds - clouds.mean()) / clouds.std()
    return whole


def disc(size: int, centre: tuple[float, float], radii: tuple[float, float], turn: float = 0.0) -> Grey:
    """1 inside an ellipse and 0 outside, with a soft edge of about a pixel, (size, size). Centre: row and column."""
    down, across = np.mgrid[:size, :size] - np.array(centre)[:, None, None]
    along, beside = down * np.cos(turn) + across * np.sin(turn), across * np.cos(turn) - down * np.sin(turn)
    inside: Grey = np.clip((1 - np.hypot(along / radii[0], beside / radii[1])) * min(radii) + 0.5, 0, 1)
    return inside

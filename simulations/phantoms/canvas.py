# SPDX-License-Identifier: Apache-2.0
"""A slice to draw on, in millimetres, with edges as soft as a pixel is wide.

Every shape is a distance to an outline, negative inside; a pixel is covered in proportion to how deep it lies, which is what partial
volume does in a scanner. Large shapes are computed on the whole grid, tubes (there are a hundred in a slice) on the few pixels
around them.

Axes: y are rows, growing towards the back; x are columns, growing towards the patient's left; in mm from the
middle of the body. Arrays are float32, shape (Y, X).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.float32]
TINY = np.float32(1e-3)  # keeps the centre of an ellipse from dividing by zero


@dataclass(frozen=True, slots=True, kw_only=True)
class Ellipse:
    """Centre and semi-axes in mm. `power` 2 is an ellipse, a higher one is squarer."""

    x: float
    y: float
    a: float
    b: float
    angle: float = 0.0
    power: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tube:
    """A straight piece of vessel about (x, y): round ends, and a radius that falls to `tip` times itself at the far end."""

    x: float
    y: float
    angle: float
    half_length: float
    radius: float
    tip: float = 1.0


class Canvas:
    """One slice being drawn: `hu_YX`, and the position of each pixel."""

    def __init__(self, size_px: int, spacing_mm: float, centre_mm: tuple[float, float], background_hu: float) -> None:
        axis = (np.arange(size_px, dtype=np.float32) - (size_px - 1) / 2) * np.float32(spacing_mm)
        self.spacing_mm = spacing_mm
        self.x_X = axis + np.float32(centre_mm[0])
        self.y_Y = axis + np.float32(centre_mm[1])
        self.hu_YX: Grid = np.full((size_px, size_px), background_hu, np.float32)

    def ellipse(self, shape: Ellipse) -> Grid:
        """How much of each pixel lies inside, 0..1."""
        return coverage(ellipse_distance(shape, self.x_X[None, :], self.y_Y[:, None]), self.spacing_mm)

    def paint(self, cover_YX: Grid, hu: Grid | float) -> None:
        """Lay tissue of this density over the slice, as far as it covers each pixel."""
        self.hu_YX += cover_YX * (hu - self.hu_YX)

    def paint_tubes(self, tubes: list[Tube], hu: float, within_YX: Grid) -> None:
        """Lay vessels over the slice, only where `within_YX` (the lung) is."""
        for tube in tubes:
            rows, columns = self._around(tube)
            cover = coverage(tube_distance(tube, self.x_X[None, columns], self.y_Y[rows, None]), self.spacing_mm)
            here = self.hu_YX[rows, columns]
            here += cover * within_YX[rows, columns] * (np.float32(hu) - here)

    def _around(self, tube: Tube) -> tuple[slice, slice]:
        margin = tube.radius + self.spacing_mm
        reach_x = abs(np.cos(tube.angle)) * tube.half_length + margin
        reach_y = abs(np.sin(tube.angle)) * tube.half_length + margin
        return _between(self.y_Y, tube.y - reach_y, tube.y + reach_y), _between(self.x_X, tube.x - reach_x, tube.x + reach_x)


def _between(axis_mm: Grid, low_mm: float, high_mm: float) -> slice:
    first, last = np.searchsorted(axis_mm, (low_mm, high_mm))
    return slice(int(first), int(last))


def coverage(distance_mm: Grid, edge_mm: float) -> Grid:
    """From a distance to an outline (negative inside) to a share of the pixel, through an edge this wide."""
    cover: Grid = np.clip(np.float32(0.5) - distance_mm / np.float32(edge_mm), np.float32(0), np.float32(1))
    return cover


def ellipse_distance(shape: Ellipse, x_mm: Grid, y_mm: Grid) -> Grid:
    """Distance to an ellipse along the ray from its centre, mm; exact for a circle, close enough for an organ."""
    u, v = _turned(x_mm - np.float32(shape.x), y_mm - np.float32(shape.y), shape.angle)
    rho = _power_norm(u / np.float32(shape.a), v / np.float32(shape.b), shape.power) + TINY
    return np.asarray(np.hypot(u, v) * (1 - 1 / rho), np.float32)


def tube_distance(tube: Tube, x_mm: Grid, y_mm: Grid) -> Grid:
    """Distance to a tapering segment, mm."""
    along, across = _turned(x_mm - np.float32(tube.x), y_mm - np.float32(tube.y), tube.angle)
    half = np.float32(max(tube.half_length, float(TINY)))
    nearest = np.clip(along, -half, half)
    radius = np.float32(tube.radius) * (1 - np.float32(1 - tube.tip) * (nearest + half) / (2 * half))
    distance: Grid = np.hypot(along - nearest, across) - radius
    return distance


def _turned(x: Grid, y: Grid, angle: float) -> tuple[Grid, Grid]:
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def _power_norm(u: Grid, v: Grid, power: float) -> Grid:
    if power == 2.0:
        return np.asarray(np.hypot(u, v), np.float32)
    exponent = np.float32(power)
    return np.asarray((np.abs(u) ** exponent + np.abs(v) ** exponent) ** (1 / exponent), np.float32)

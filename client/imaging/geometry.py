# SPDX-License-Identifier: Apache-2.0
"""Where a picture's edges lie in the patient, how large its pixels are, and how it is turned to be looked at.

Directions are in the patient's frame, LPS: x to the left, y to the back, z to the head (PS3.3 C.7.6.2.1.1). A slice says them in numbers
(Image Orientation), a radiograph in letters (Patient Orientation: "L\\F" runs to the left and downwards).

The canonical frame is the reader's: of the two axes that an image spans, x runs right before y runs down; y right, or x right, before z
runs up. So an axial slice shows the left side on the right and the back below, a coronal one the head above, and a radiograph that was
stored on its side, or of a patient who lay on the belly, stands as all others do. Images are turned by quarters and mirrored only:
nothing is interpolated, an oblique slice keeps its obliqueness.

A file without orientation is left as it is. One that states an orientation which is none is refused, unless the plan takes images as they
were stored; a spacing that is none is as good as absent.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from client.imaging.rejection import Reason, Rejected

Vector = tuple[float, float, float]
Part = TypeVar("Part")
TAGS = [
    "ImageOrientationPatient", "ImagePositionPatient", "PatientOrientation", "PixelSpacing", "ImagerPixelSpacing",
    "NominalScannedPixelSpacing", "InstanceNumber", "SeriesInstanceUID",
]  # fmt: skip
LETTERS: dict[str, Vector] = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}
SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")  # in the patient before on the detector before on paper
SKEW = 0.02  # of two directions that should be of length one and at right angles; scanners write five digits
FINEST_MM, COARSEST_MM = 1e-5, 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """`across`: where a row runs to; `down`: where a column does; `spacing_mm`: from row to row, and from column to column."""

    across: Vector | None = None
    down: Vector | None = None
    position_mm: Vector | None = None
    spacing_mm: tuple[float, float] | None = None
    is_orientation_broken: bool = False

    @property
    def normal(self) -> Vector | None:
        """The direction that slices are stacked in: across x down."""
        if self.across is None or self.down is None:
            return None
        x, y, z = np.cross(self.across, self.down)
        return (float(x), float(y), float(z))

    @property
    def place_mm(self) -> float | None:
        """How far along the normal the image lies."""
        normal, position = self.normal, self.position_mm
        return None if normal is None or position is None else float(np.dot(normal, position))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What brings an image into the canonical frame: transposed first, then mirrored."""

    transposed: bool = False
    upside_down: bool = False
    mirrored: bool = False


def geometry_of(attributes: Dataset) -> Geometry:
    """What a file says of it; what it says wrongly is left out, and an orientation that is none is marked."""
    directions, is_orientation_broken = _tried(_directions, attributes)
    position, _ = _tried(_position, attributes)
    spacing, _ = _tried(_spacing, attributes)
    across, down = directions or (None, None)
    return Geometry(
        across=across,
        down=down,
        position_mm=position,
        spacing_mm=spacing,
        is_orientation_broken=is_orientation_broken,
    )


def _tried(read: Callable[[Dataset], Part], attributes: Dataset) -> tuple[Part | None, bool]:
    """What is read, and whether it is broken."""
    try:
        return read(attributes), False
    except Rejected:
        return None, True


def _directions(attributes: Dataset) -> tuple[Vector | None, Vector | None]:
    orientation = _numbers(attributes, "ImageOrientationPatient", 6)
    return _orthonormal(orientation) if orientation else _by_letters(attributes)


def _position(attributes: Dataset) -> Vector | None:
    position = _numbers(attributes, "ImagePositionPatient", 3)
    return (position[0], position[1], position[2]) if position else None


def _spacing(attributes: Dataset) -> tuple[float, float] | None:
    spacing = next((found for name in SPACINGS if (found := _numbers(attributes, name, 2))), None)
    if spacing and not all(FINEST_MM < side < COARSEST_MM for side in spacing):
        raise Rejected(Reason.GEOMETRY)
    return (spacing[0], spacing[1]) if spacing else None


def turn_of(geometry: Geometry, *, on_its_side: bool = False) -> Turn:
    """How an image is turned into the canonical frame; not at all without an orientation. Raises: Rejected(GEOMETRY).

    `on_its_side`: for mammograms, which are read with the chest wall at the side in every view, so they are mirrored at most.

    >>> turn_of(Geometry(across=(0, 1, 0), down=(1, 0, 0)))  # an axial slice on its side
    Turn(transposed=True, upside_down=False, mirrored=False)
    """
    if geometry.is_orientation_broken:
        raise Rejected(Reason.GEOMETRY)
    if geometry.across is None or geometry.down is None:
        return Turn()
    (axis_across, to_across), (axis_down, to_down) = map(_main_axis, (geometry.across, geometry.down))
    if axis_across == axis_down:
        raise Rejected(Reason.GEOMETRY)
    transposed = axis_across > axis_down
    if transposed and on_its_side:
        return Turn(mirrored=to_across != 1)
    if transposed:
        axis_down, to_across, to_down = axis_across, to_down, to_across
    return Turn(transposed=transposed, upside_down=to_down != (-1 if axis_down == 2 else 1), mirrored=to_across != 1)


def turned(image: NDArray[Any], turn: Turn) -> NDArray[Any]:
    """Shapes: (Y, X) or (Y, X, 3)."""
    if turn.transposed:
        image = image.swapaxes(0, 1)
    return image[:: -1 if turn.upside_down else 1, :: -1 if turn.mirrored else 1]


def _main_axis(direction: Vector) -> tuple[int, Literal[-1, 1]]:
    axis = max(range(3), key=lambda each: abs(direction[each]))
    return axis, 1 if direction[axis] > 0 else -1


def _orthonormal(numbers: Sequence[float]) -> tuple[Vector, Vector]:
    across, down = np.array(numbers[:3]), np.array(numbers[3:])
    if abs(np.linalg.norm(across) - 1) > SKEW or abs(np.linalg.norm(down) - 1) > SKEW or abs(across @ down) > SKEW:
        raise Rejected(Reason.GEOMETRY)
    return (numbers[0], numbers[1], numbers[2]), (numbers[3], numbers[4], numbers[5])


def _by_letters(attributes: Dataset) -> tuple[Vector | None, Vector | None]:
    """Patient Orientation (0020,0020); its first letter is the main direction. Letters for animals are no letters here."""
    try:
        value = attributes.get("PatientOrientation")
        directions = [LETTERS.get(str(part).strip()[:1]) for part in value] if isinstance(value, (list, MultiValue)) else []
    except Exception as error:
        raise Rejected(Reason.GEOMETRY) from error
    return (directions[0], directions[1]) if len(directions) == 2 and None not in directions else (None, None)


def _numbers(attributes: Dataset, name: str, count: int) -> list[float] | None:
    """So many finite numbers, or None where the attribute is absent or empty."""
    try:
        value = attributes.get(name)
        if value is None or value == "" or (isinstance(value, (list, MultiValue)) and not len(value)):
            return None
        numbers = [float(part) for part in value]
    except Exception as error:
        raise Rejected(Reason.GEOMETRY) from error
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise Rejected(Reason.GEOMETRY)
    return numbers

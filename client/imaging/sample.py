# SPDX-License-Identifier: Apache-2.0
"""From an image to what the plan asks for: uint16 (C, H, W), where 65535 is 1.0.

Sixteen bits keep what a windowed twelve-bit scanner gave, in half the room of float32. Size is changed by Pillow's BILINEAR filter in
float: a triangle as wide as two target pixels when shrinking (so every source pixel counts and nothing aliases), ordinary bilinear
interpolation when enlarging. It accumulates in double precision in plain C, so the same file gives the same sample on every machine.
Both sides are scaled on their own: an image of another shape is stretched to the plan's. Unless the plan names a spacing: then a pixel is
so many millimetres wide at every hospital, and what does not fit is cut off around the middle, what is missing is black.

Colour becomes grey by BT.601 luma (0.299, 0.587, 0.114), after scaling and before resizing; grey becomes three equal channels.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.imaging.dicom import MAMMOGRAPHY, SLIDES, Instance
from client.imaging.geometry import turn_of, turned
from client.imaging.intensity import to_unit
from client.imaging.pixels import LARGEST_IMAGE
from client.imaging.rejection import Reason, Rejected
from common.plan import InputSpec

WHITE = 65535
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601-7, section 2.5.1
COLOURED = 0.08  # largest less smallest of red, green and blue; glass and ink stay below it (Otsu's threshold on stained slides is near)
DARKER_THAN_GLASS = 0.8

Sample = NDArray[np.uint16]  # (C, H, W)


def of_instance(instance: Instance, spec: InputSpec) -> Sample:
    """A DICOM image as the plan's input. A window never applies to colour.

    Raises: Rejected with WINDOW, CONSTANT, GEOMETRY, SPACING or, for a tile that is mostly glass, TISSUE.
    """
    unit = to_unit(
        instance.values,
        plan=None if instance.is_colour else spec.window,
        voi=instance.voi,
        full_range=instance.full_range,
        inverted=instance.inverted,
        padding=instance.padding,
    )
    if spec.tissue and instance.modality == SLIDES and tissue_of(unit) < spec.tissue:
        raise Rejected(Reason.TISSUE)
    spacing_mm = instance.geometry.spacing_mm
    if spec.orientation == "canonical" and instance.modality != SLIDES:
        turn = turn_of(instance.geometry, on_its_side=instance.modality == MAMMOGRAPHY)
        unit = turned(unit, turn)
        spacing_mm = spacing_mm[::-1] if spacing_mm and turn.transposed else spacing_mm
    if spec.spacing_mm is None:
        return fit(unit, spec)
    if spacing_mm is None:
        raise Rejected(Reason.SPACING)
    return fit_spaced(unit, spec, spacing_mm)


def tissue_of(unit: NDArray[np.float32]) -> float:
    """The share of a tile that is stained: colour stands out from grey, or, in grey, it is clearly darker than glass."""
    stained = unit.max(axis=2) - unit.min(axis=2) > COLOURED if unit.ndim == 3 else unit < DARKER_THAN_GLASS
    return float(stained.mean())


def nearest(values: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """A (Y, X) array in another size, without a value that was not there."""
    rows = ((np.arange(height) + 0.5) * values.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * values.shape[1] / width).astype(int)
    return np.ascontiguousarray(values[rows[:, np.newaxis], columns])


def of_bytes(image: NDArray[np.uint8], spec: InputSpec) -> Sample:
    """A uint8 array, (Y, X) or (Y, X, 3), as the plan's input."""
    return fit(image.astype(np.float32) / np.float32(255), spec)


def fit(unit: NDArray[np.float32], spec: InputSpec) -> Sample:
    """[0, 1] values, (Y, X) or (Y, X, 3), in the plan's channels and size, as uint16 (C, H, W)."""
    if unit.ndim == 3 and spec.channels == 1:
        planes = [unit @ LUMA]
    elif unit.ndim == 3:
        planes = [unit[..., channel] for channel in range(3)]
    else:
        planes = [unit]
    sample = np.empty((spec.channels, spec.height, spec.width), dtype=np.uint16)
    for channel, plane in enumerate(planes):
        sample[channel] = _quantise(_resize(plane, spec.height, spec.width))
    sample[len(planes) :] = sample[0]
    return sample


def fit_spaced(unit: NDArray[np.float32], spec: InputSpec, spacing_mm: tuple[float, float]) -> Sample:
    """[0, 1] values in the plan's spacing, channels and size: resampled, then cut or filled with black around the middle.

    Raises: Rejected(TOO_LARGE), if an image of that spacing would be larger than one may be.
    """
    height, width = _spaced(unit.shape, spec, spacing_mm)
    return _in_the_middle(fit(unit, replace(spec, height=height, width=width)), spec)


def fit_classes(mask: NDArray[Any], spec: InputSpec, spacing_mm: tuple[float, float] | None) -> NDArray[Any]:
    """A mask (Y, X) where `fit`, or under a plan's spacing `fit_spaced`, puts its image, (H, W). The nearest pixel decides; none are mixed.

    Raises: Rejected(TOO_LARGE), as `fit_spaced` does.
    """
    if spec.spacing_mm is None or spacing_mm is None:
        return nearest(mask, spec.height, spec.width)
    height, width = _spaced(mask.shape, spec, spacing_mm)
    return _in_the_middle(nearest(mask, height, width), spec)


def _spaced(shape: tuple[int, ...], spec: InputSpec, spacing_mm: tuple[float, float]) -> tuple[int, int]:
    """Rows and columns of an image in the plan's spacing. Raises: Rejected(TOO_LARGE)."""
    assert spec.spacing_mm is not None
    height, width = (max(1, round(side * mm / spec.spacing_mm)) for side, mm in zip(shape[:2], spacing_mm, strict=True))
    if height * width > LARGEST_IMAGE:
        raise Rejected(Reason.TOO_LARGE)
    return height, width


def _in_the_middle(whole: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """(.., Y, X) cut, or filled with zeros, around the middle to the plan's (.., H, W)."""
    (from_y, to_y), (from_x, to_x) = _middle(whole.shape[-2], spec.height), _middle(whole.shape[-1], spec.width)
    fitted = np.zeros((*whole.shape[:-2], spec.height, spec.width), dtype=whole.dtype)
    fitted[..., to_y, to_x] = whole[..., from_y, from_x]
    return fitted


def _middle(found: int, wanted: int) -> tuple[slice, slice]:
    """The middle of what was found, and where it goes in what is wanted."""
    common = min(found, wanted)
    return slice((found - common) // 2, (found - common) // 2 + common), slice((wanted - common) // 2, (wanted - common) // 2 + common)


def _resize(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    if plane.shape == (height, width):
        return plane
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _quantise(unit: NDArray[np.float32]) -> NDArray[np.uint16]:
    scaled = unit * np.float32(WHITE)
    scaled += np.float32(0.5)  # round half up; truncation by the cast is four times quicker than np.rint
    return np.clip(scaled, 0, WHITE, out=scaled).astype(np.uint16)

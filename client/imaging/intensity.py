# SPDX-License-Identifier: Apache-2.0
"""Output units to [0, 1]: the window, and which end of it is white.

Which window: the plan's if it has one, else the file's own, else everything that the stored type can hold. The plan's is public and the
same at every hospital, which is what a federation wants for CT; the file's own is a technologist's choice.

The plan's window is the interval [centre - width/2, centre + width/2], mapped linearly (LINEAR_EXACT, PS3.3 C.11.2.1.3.2): for any positive
width, in any unit. A file's window means what its VOI LUT Function says; LINEAR, the default, has DICOM's half-pixel shift:

    y = (x - (c - 0.5)) / (w - 1) + 0.5, clipped to [0, 1]      (C.11.2.1.2.1)

    >>> round(float(linear(np.array([40.0]), 40, 401)[0]), 6)   # the centre lies half a unit above c - 0.5
    0.50125

A VOI LUT (C.11.2.1.1) maps every value to an entry of a table instead, and is preferred where a file has both: it is what its maker drew.

Padding, the values of pixels that were never measured (PS3.3 C.7.5.1.1.2), is black whatever the window says.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.imaging.rejection import Reason, Rejected
from common.plan import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Voi:
    """A window as a file states it, with its VOI LUT Function: LINEAR, LINEAR_EXACT or SIGMOID."""

    centre: float
    width: float
    function: str = "LINEAR"


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiTable:
    """A VOI LUT as a file states it: what becomes of `first` and of each whole number after it, in [0, 1]."""

    first: int
    entries: NDArray[np.float32] = field(repr=False)


def to_unit(
    values: NDArray[Any],
    *,
    plan: Window | None,
    voi: Voi | VoiTable | None,
    full_range: tuple[float, float],
    inverted: bool,
    padding: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Values in output units, any shape, to float32 in [0, 1]; dark is 0 and bright is 1 whatever the photometric interpretation.

    Raises: Rejected(WINDOW), if the file's window decides and is unusable; Rejected(CONSTANT), if nothing varies inside the window.
    """
    if plan is not None:
        unit = linear_exact(values, plan.centre, plan.width)
    elif isinstance(voi, VoiTable):
        unit = by_table(values, voi)
    elif voi is not None:
        unit = _by_file(values, voi)
    else:
        low, high = full_range
        unit = linear_exact(values, (low + high) / 2, high - low)
    if inverted:
        unit = np.subtract(1, unit, dtype=np.float32)
    if padding is not None:
        unit[padding] = 0
    if unit.min() == unit.max():
        raise Rejected(Reason.CONSTANT)
    return unit


def linear(values: NDArray[Any], centre: float, width: float) -> NDArray[np.float32]:
    """DICOM's LINEAR window, for width >= 1; width 1 is a step at centre - 0.5."""
    if width == 1:
        return (values > centre - 0.5).astype(np.float32)
    return linear_exact(values, centre - 0.5, width - 1)


def linear_exact(values: NDArray[Any], centre: float, width: float) -> NDArray[np.float32]:
    """(x - c) / w + 0.5, clipped to [0, 1], for width > 0."""
    unit: NDArray[Any] = values * values.dtype.type(1 / width)
    unit += values.dtype.type(0.5 - centre / width)
    np.clip(unit, 0, 1, out=unit)
    return np.asarray(unit, dtype=np.float32)


def sigmoid(values: NDArray[Any], centre: float, width: float) -> NDArray[np.float32]:
    """1 / (1 + exp(-4 (x - c) / w)) (C.11.2.1.3.1)."""
    exponent = np.clip((centre - values) * (4 / width), -80, 80)
    return (1 / (1 + np.exp(exponent))).astype(np.float32)


def by_table(values: NDArray[Any], table: VoiTable) -> NDArray[np.float32]:
    """The entry of each value, rounded to a whole number; the first and the last for what lies outside."""
    index = np.clip(np.rint(values) - table.first, 0, len(table.entries) - 1).astype(np.intp)
    return np.asarray(table.entries[index], dtype=np.float32)


def _by_file(values: NDArray[Any], voi: Voi) -> NDArray[np.float32]:
    smallest = 1.0 if voi.function == "LINEAR" else np.finfo(np.float32).tiny
    if not (np.isfinite(voi.centre) and np.isfinite(voi.width) and voi.width >= smallest):
        raise Rejected(Reason.WINDOW)
    match voi.function:
        case "LINEAR":
            return linear(values, voi.centre, voi.width)
        case "LINEAR_EXACT":
            return linear_exact(values, voi.centre, voi.width)
        case "SIGMOID":
            return sigmoid(values, voi.centre, voi.width)
    raise Rejected(Reason.WINDOW)

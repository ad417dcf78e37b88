# SPDX-License-Identifier: Apache-2.0
"""Stored values to output units, and what the file says about looking at them.

    stored values -> modality LUT or rescale (PS3.3 C.11.1) -> output units (CT: Hounsfield)
    VOI LUT, or window centre, width and function (C.11.2)  -> for `intensity`
    pixel padding value and range (C.7.5.1.1.2)             -> for `intensity`

Of several windows or tables the first counts: the standard calls them alternatives, and lets nobody choose for us.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.pixels.processing import apply_modality_lut

from client.imaging.intensity import Voi, VoiTable
from client.imaging.pixels import Claims, Stored
from client.imaging.rejection import Reason, Rejected

TAGS = [
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "PixelPaddingValue", "PixelPaddingRangeLimit",
]  # fmt: skip
LARGEST_FACTOR = 1e30
TABLE_BITS = (8, *range(10, 17))  # PS3.3 C.11.2.1.1


def to_output_units(attributes: Dataset, stored: Stored) -> tuple[NDArray[Any], tuple[float, float]]:
    """Values (Y, X), float32, or float64 from 32-bit integers; and the ends of what the stored type could hold.

    Raises: Rejected(RESCALE).
    """
    wide = np.float64 if stored.values.dtype.itemsize > 2 else np.float32  # 32-bit values would lose digits in float32
    if attributes.get("ModalityLUTSequence"):
        try:
            values = apply_modality_lut(stored.values, attributes)
            bits = int(attributes.ModalityLUTSequence[0].LUTDescriptor[2])
        except Exception as error:
            raise Rejected(Reason.RESCALE) from error
        return values.astype(wide), (0.0, float(2**bits - 1))
    slope, intercept = _number(attributes, "RescaleSlope", 1.0), _number(attributes, "RescaleIntercept", 0.0)
    if slope == 0:
        raise Rejected(Reason.RESCALE)
    values = stored.values.astype(wide)
    values *= slope
    values += intercept
    ends = (stored.low * slope + intercept, stored.high * slope + intercept)
    return values, (min(ends), max(ends))


def voi_of(attributes: Dataset) -> Voi | VoiTable | None:
    """The file's table or else its window; None where it has neither. Raises: Rejected(WINDOW)."""
    try:
        if items := attributes.get("VOILUTSequence"):
            return _table(items[0], "<u2" if attributes.file_meta.TransferSyntaxUID.is_little_endian else ">u2")
        centre, width = (_first(attributes.get(name)) for name in ("WindowCenter", "WindowWidth"))
        if centre is None or width is None:
            return None
        function = str(attributes.get("VOILUTFunction") or "").strip(" \0") or "LINEAR"
        return Voi(centre=float(centre), width=float(width), function=function)
    except Exception as error:
        raise Rejected(Reason.WINDOW) from error


def padding_of(attributes: Dataset, stored: Stored, claims: Claims) -> NDArray[np.bool_] | None:
    """Where nothing was measured; None where the file does not say, or says so of no pixel. Raises: Rejected(HEADER)."""
    try:
        ends = [attributes.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
        if ends[0] in (None, ""):
            return None
        low, high = sorted(_as_stored(end, claims) for end in (ends[0], ends[0] if ends[1] in (None, "") else ends[1]))
    except Exception as error:
        raise Rejected(Reason.HEADER) from error
    padding = (stored.values >= low) & (stored.values <= high)
    return padding if padding.any() else None


def _as_stored(value: Any, claims: Claims) -> int:
    """Written as unsigned where pixels are signed, by makers who chose the wrong one of its two representations; or the other way round."""
    number, half = int(value), 1 << (claims.allocated - 1)
    if claims.is_signed and number >= half:
        return number - 2 * half
    return number + 2 * half if number < 0 and not claims.is_signed else number


def _table(item: Dataset, words: str) -> VoiTable:
    count, first, bits = (int(part) for part in item.LUTDescriptor)
    if bits not in TABLE_BITS:
        raise ValueError("not a depth that a table may have")
    data = item.LUTData
    if isinstance(data, bytes):  # of VR OW, in the file's own order
        data = np.frombuffer(data, words)
    entries = np.asarray(data).astype(np.float32)[: count or 2**16]
    if entries.ndim != 1 or not len(entries) or entries.max() >= 2**bits or entries.min() < 0:
        raise ValueError("not a table of so many bits")
    return VoiTable(first=first, entries=entries / np.float32(2**bits - 1))


def _number(attributes: Dataset, name: str, default: float) -> float:
    try:
        value = attributes.get(name)
        number = default if value is None or value == "" else float(value)
    except Exception as error:
        raise Rejected(Reason.RESCALE) from error
    if not math.isfinite(number) or abs(number) > LARGEST_FACTOR:
        raise Rejected(Reason.RESCALE)
    return number


def _first(value: Any) -> Any:
    if isinstance(value, (list, MultiValue)):
        value = value[0] if len(value) else None
    return None if value == "" else value

# SPDX-License-Identifier: Apache-2.0
"""A PNG or JPEG as the plan's input, or as a mask of classes: what only opens here, in the child.

A photograph may say that it is to be turned before it is looked at (EXIF, tag 0112). Images are; but of a mask or boxes beside such a
picture nobody can tell whether they were drawn before or after, so where there are any, such a picture is refused by name.

A file's *grid* is what its pixels are laid out on: rows and columns as it is looked at. A mask belongs to a picture of its own proportions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from client.imaging.pixels import LARGEST_IMAGE
from client.imaging.rejection import Reason, Rejected
from client.imaging.sample import WHITE, Sample, fit, nearest
from common.plan import InputSpec

Grid = tuple[float, ...]
Tap = Callable[[NDArray[Any]], None]
"""Is shown stored values on their way, as the file has them."""

MAGICS = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff"}
ORIENTATION = 0x0112  # EXIF 2.32, 4.6.4: 1 is upright, 2 to 8 are turned or mirrored
_WHITE_BYTE = np.uint16(255)


def read(content: bytes, spec: InputSpec, *, drawn_on: bool = False, tap: Tap | None = None) -> tuple[Grid, Sample]:
    """A PNG or JPEG as the plan's input: its full range is [0, 1], since a picture has no units for a window to be in.

    `drawn_on`: whether a mask or boxes belong to it. Raises: Rejected with NOT_A_PICTURE, TOO_LARGE, UNDECODABLE or TURNED.
    """
    with _opened(content, ("PNG", "JPEG")) as picture:
        if tap is not None:
            tap(np.asarray(picture))
        if drawn_on and picture.getexif().get(ORIENTATION, 1) in range(2, 9):
            raise Rejected(Reason.TURNED)
        unit = _unit_of(ImageOps.exif_transpose(picture))
    return unit.shape[:2], fit(unit, spec)


def read_mask(content: bytes, spec: InputSpec) -> tuple[Grid, Sample]:
    """A PNG as classes, (1, H, W): its values, or 1 where a mask of black and white is white. The nearest pixel decides; none are mixed.

    Raises: Rejected with NOT_A_PICTURE, TOO_LARGE, UNDECODABLE or PIXEL_FORMAT.
    """
    with _opened(content, ("PNG",)) as picture:
        if picture.mode not in ("1", "L", "P", "I;16", "I"):
            raise Rejected(Reason.PIXEL_FORMAT)
        values = np.asarray(picture).astype(np.uint16)
    return values.shape, nearest(in_black_and_white(values), spec.height, spec.width)[np.newaxis]


def in_black_and_white(values: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """A mask's values, 1 for the white of one that has only black and white."""
    if values.max() == _WHITE_BYTE and not ((values > 0) & (values < _WHITE_BYTE)).any():
        return values // _WHITE_BYTE
    return values


@contextmanager
def _opened(content: bytes, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    """A picture of one of these formats; what goes wrong while it is open is a reason. Raises: Rejected."""
    try:
        with Image.open(BytesIO(content), formats=formats) as picture:
            if picture.width * picture.height > LARGEST_IMAGE:
                raise Rejected(Reason.TOO_LARGE)
            yield picture
    except Rejected:
        raise
    except UnidentifiedImageError as error:
        begins = any(content.startswith(MAGICS[kind]) for kind in formats)
        raise Rejected(Reason.UNDECODABLE if begins else Reason.NOT_A_PICTURE) from error
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except Exception as error:  # a damaged picture raises OSError, SyntaxError, ValueError, ...
        raise Rejected(Reason.UNDECODABLE) from error


def _unit_of(picture: Image.Image) -> NDArray[np.float32]:
    if picture.mode.startswith("I"):  # 16-bit PNG
        return np.asarray(picture).astype(np.float32) / np.float32(WHITE)
    if picture.mode not in ("L", "RGB"):
        picture = picture.convert("L" if picture.mode in ("1", "LA") else "RGB")
    return np.asarray(picture).astype(np.float32) / np.float32(255)

# SPDX-License-Identifier: Apache-2.0
"""Pixel data to stored values, after the header has been checked against what it would cost.

Nothing is decoded before the header's claims are plausible: rows, columns, samples, bits and frames must be there, agree with each other
and with the length of the data, and stay under a cap. A file of ten kilobytes may claim sixteen gigabytes. Frames are decoded one by one.

The decoders of each transfer syntax are named in `codecs`, in the order in which they are tried.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import parse_fragments
from pydicom.pixels.processing import apply_color_lut

from client.imaging import codecs
from client.imaging.rejection import Reason, Rejected

LARGEST_IMAGE = 2**26  # pixels: a mammogram has 2**24, a scanned film 2**25
MOST_FRAMES = 2**18  # a whole slide at full resolution has 10**5 tiles

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
SAMPLES = {
    "MONOCHROME1": 1, "MONOCHROME2": 1, PALETTE: 1,
    "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "YBR_RCT": 3, "YBR_ICT": 3,
}  # fmt: skip
VALUES = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
PALETTE_DATA = [f"{part}{colour}PaletteColorLookupTableData" for part in ("", "Segmented") for colour in ("Red", "Green", "Blue")]
TAGS = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", *VALUES, "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")), *PALETTE_DATA,
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Stored values: (Y, X) integers, or (Y, X, 3) unsigned for colour; `low` and `high` are the ends of the stored type (BitsStored)."""

    values: NDArray[Any]
    low: int
    high: int

    @property
    def is_colour(self) -> bool:
        return self.values.ndim == 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What the header says about the pixels (PS3.3 C.7.6.3), found plausible. `is_real`: they are floating-point numbers."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    is_signed: bool
    is_real: bool
    photometric: str
    frames: int
    syntax: uid.UID

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all frames together, as a decoder gives them: (Y, X), (Y, X, 3), or with the frames before."""
        one = (self.rows, self.columns, *((self.samples,) if self.samples > 1 else ()))
        return one if self.frames == 1 else (self.frames, *one)


def claims_of(dataset: Dataset) -> Claims:
    """What the header claims, checked against itself and the data's length. Raises: Rejected with the reason."""
    syntax = uid.UID(str(dataset.file_meta.get("TransferSyntaxUID")))  # a damaged header may hold several
    if syntax not in codecs.DECODERS:
        raise Rejected(Reason.TRANSFER_SYNTAX)
    kind = _kind_of_values(dataset)
    claims = _claims(dataset, syntax, is_real=kind != VALUES[0])
    _check(claims)
    _check_high_bit(dataset, claims)
    _check_length(claims, dataset[kind].value)
    return claims


def decode(dataset: Dataset) -> Stored:
    """The values of a single-frame image; a palette's entries are looked up. Raises: Rejected with the reason."""
    claims = claims_of(dataset)
    if claims.frames != 1:
        raise Rejected(Reason.MULTIFRAME)
    return in_colour(next(decode_frames(dataset, claims, [0])), claims, dataset)


def decode_frames(dataset: Dataset, claims: Claims, frames: Sequence[int]) -> Iterator[Stored]:
    """The stored values of these frames (ascending), one after the other. Raises: Rejected with UNDECODABLE or TOO_LARGE."""
    try:
        for array in codecs.decode(dataset, claims.syntax, frames):
            yield _stored(array, claims)
    except Rejected:
        raise
    except MemoryError as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # decoders raise all kinds on damaged data; a panic in a Rust plug-in is not even an Exception
        raise Rejected(Reason.UNDECODABLE) from error


def in_colour(stored: Stored, claims: Claims, dataset: Dataset) -> Stored:
    """A palette's colours for its entries; anything else as it is. Raises: Rejected(UNDECODABLE), if the palette is damaged."""
    if claims.photometric != PALETTE:
        return stored
    try:
        palette = dataset if claims.syntax.is_little_endian else _swapped(dataset)
        colours = apply_color_lut(stored.values, palette)[..., :3]
    except MemoryError as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except Exception as error:
        raise Rejected(Reason.UNDECODABLE) from error
    return Stored(values=colours, low=0, high=int(np.iinfo(colours.dtype).max))


def _swapped(dataset: Dataset) -> Dataset:
    """With a palette's words turned round: pydicom reads those of a big-endian file as if it were little-endian."""
    turned = Dataset()
    turned.update(dataset)
    for name in PALETTE_DATA:
        if isinstance(words := dataset.get(name), bytes):
            turned[name] = DataElement(dataset[name].tag, dataset[name].VR, np.frombuffer(words, ">u2").astype("<u2").tobytes())
    return turned


def _kind_of_values(dataset: Dataset) -> str:
    """Which of the three elements holds the pixels."""
    try:
        return next(name for name in VALUES if dataset.get(name))
    except StopIteration:
        raise Rejected(Reason.NO_PIXELS) from None
    except Exception as error:  # an element is only parsed when it is asked for
        raise Rejected(Reason.HEADER) from error


def _claims(dataset: Dataset, syntax: uid.UID, *, is_real: bool) -> Claims:
    try:
        frames = dataset.get("NumberOfFrames")
        allocated = int(dataset.BitsAllocated)
        return Claims(
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            samples=int(dataset.SamplesPerPixel),
            allocated=allocated,
            stored=allocated if is_real else int(dataset.BitsStored),
            is_signed=is_real or {0: False, 1: True}[int(dataset.PixelRepresentation)],
            is_real=is_real,
            photometric=str(dataset.PhotometricInterpretation),
            frames=1 if frames in (None, "") else int(frames),
            syntax=syntax,
        )
    except Exception as error:  # absent, or of a type that no number comes from
        raise Rejected(Reason.PIXEL_FORMAT) from error


def _check(claims: Claims) -> None:
    if min(claims.rows, claims.columns, claims.frames) < 1 or SAMPLES.get(claims.photometric) != claims.samples:
        raise Rejected(Reason.PIXEL_FORMAT)
    if claims.allocated not in ((32, 64) if claims.is_real else (1, 8, 16, 32)) or not 1 <= claims.stored <= claims.allocated:
        raise Rejected(Reason.PIXEL_FORMAT)
    if claims.photometric not in MONOCHROME and claims.is_signed:
        raise Rejected(Reason.PIXEL_FORMAT)
    if claims.rows * claims.columns > LARGEST_IMAGE or claims.frames > MOST_FRAMES:
        raise Rejected(Reason.TOO_LARGE)


def _check_high_bit(dataset: Dataset, claims: Claims) -> None:
    """Values lie at the low end of their words (PS3.5 8.1.1: High Bit is Bits Stored - 1).

    Retired layouts had them higher up, where a decoder that does not know cuts their best bits off. A compressed frame says itself where
    its bits are. Raises: Rejected(PIXEL_FORMAT).
    """
    if claims.is_real or (claims.syntax.is_encapsulated and claims.syntax != uid.RLELossless):
        return
    try:
        high = dataset.get("HighBit")
        misplaced = high not in (None, "") and int(high) != claims.stored - 1
    except Exception as error:  # of a type that no number comes from
        raise Rejected(Reason.PIXEL_FORMAT) from error
    if misplaced:
        raise Rejected(Reason.PIXEL_FORMAT)


def _check_length(claims: Claims, values: bytes) -> None:
    """Whether as many frames can be there as are claimed: by their bytes, or by the fragments that they are packed in."""
    if not claims.syntax.is_encapsulated:
        samples = 2 if claims.photometric == "YBR_FULL_422" else claims.samples  # PS3.3 C.7.6.3.1.2: chroma is halved
        bits = claims.frames * claims.rows * claims.columns * samples * claims.allocated
        if len(values) < -(-bits // 8):
            raise Rejected(Reason.PIXEL_LENGTH)
    elif claims.frames > 1:
        try:
            items = BytesIO(values)
            items.seek(_first_item_length(values))
            fragments, _ = parse_fragments(items)
        except Exception as error:
            raise Rejected(Reason.PIXEL_LENGTH) from error
        if fragments < claims.frames:
            raise Rejected(Reason.PIXEL_LENGTH)


def _first_item_length(values: bytes) -> int:
    """Of the basic offset table, which comes before the fragments (PS3.5 A.4)."""
    return 8 + int.from_bytes(values[4:8], "little")


def _stored(array: NDArray[Any], claims: Claims) -> Stored:
    if array.shape != (claims.rows, claims.columns, *((3,) if claims.samples == 3 else ())):
        raise Rejected(Reason.UNDECODABLE)
    half = 2 ** (claims.stored - 1)
    low, high = (-half, half - 1) if claims.is_signed else (0, 2 * half - 1)
    return Stored(values=array, low=low, high=high)

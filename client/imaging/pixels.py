# SPDX-License-Identifier: Apache-2.0
"""Pixel data to stored values, after the header has been checked against what it would cost.

Nothing is decoded before the header's claims are plausible: rows, columns, samples and bits must be there, agree with each other and with
the length of the data, and stay under a cap. A file of ten kilobytes may claim sixteen gigabytes.

The decoder for each transfer syntax is named here, because pydicom's own order is not by speed: RLE takes its slow one first. Left out are
JPEG-LS and lossless JPEG, for which no maintained plug-in with a permissive licence is among our dependencies (pylibjpeg-libjpeg is GPL).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut

from client.imaging.rejection import Reason, Rejected

LARGEST_IMAGE = 2**26  # pixels: a mammogram has 2**24, a scanned film 2**25
NATIVE = ""

DECODERS = {
    uid.ImplicitVRLittleEndian: NATIVE,
    uid.ExplicitVRLittleEndian: NATIVE,
    uid.DeflatedExplicitVRLittleEndian: NATIVE,
    uid.ExplicitVRBigEndian: NATIVE,
    uid.RLELossless: "pylibjpeg",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.HTJ2KLossless: "pylibjpeg",
    uid.HTJ2KLosslessRPCL: "pylibjpeg",
    uid.HTJ2K: "pylibjpeg",
    uid.JPEGBaseline8Bit: "pillow",
}
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
SAMPLES = {
    "MONOCHROME1": 1, "MONOCHROME2": 1, "PALETTE COLOR": 1,
    "RGB": 3, "YBR_FULL": 3, "YBR_FULL_422": 3, "YBR_RCT": 3, "YBR_ICT": 3,
}  # fmt: skip
TAGS = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    *(f"{part}{colour}PaletteColorLookupTable{kind}" for part, kinds in (("", ("Descriptor", "Data")), ("Segmented", ("Data",)))
      for colour in ("Red", "Green", "Blue") for kind in kinds),
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
    """What the header says about the pixels (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    is_signed: bool
    photometric: str


def decode(dataset: Dataset) -> Stored:
    """The stored values of a single-frame image. Raises: Rejected with the reason."""
    syntax = uid.UID(str(dataset.file_meta.get("TransferSyntaxUID")))  # a damaged header may hold several
    if syntax not in DECODERS:
        raise Rejected(Reason.TRANSFER_SYNTAX)
    if not _has_pixels(dataset):
        raise Rejected(Reason.NO_PIXELS)
    claims = _claims(dataset)
    _check(claims)
    if not syntax.is_encapsulated and len(dataset.PixelData) < _native_length(claims):
        raise Rejected(Reason.PIXEL_LENGTH)
    return _stored(_decode(dataset, syntax), claims, dataset)


def _has_pixels(dataset: Dataset) -> bool:
    try:
        return bool(dataset.get("PixelData"))
    except Exception as error:  # an element is only parsed when it is asked for
        raise Rejected(Reason.HEADER) from error


def _claims(dataset: Dataset) -> Claims:
    try:
        frames = dataset.get("NumberOfFrames")
        if frames not in (None, "") and int(frames) != 1:
            raise Rejected(Reason.MULTIFRAME)
        return Claims(
            rows=int(dataset.Rows),
            columns=int(dataset.Columns),
            samples=int(dataset.SamplesPerPixel),
            allocated=int(dataset.BitsAllocated),
            stored=int(dataset.BitsStored),
            is_signed={0: False, 1: True}[int(dataset.PixelRepresentation)],
            photometric=str(dataset.PhotometricInterpretation),
        )
    except Rejected:
        raise
    except Exception as error:  # absent, or of a type that no number comes from
        raise Rejected(Reason.PIXEL_FORMAT) from error


def _check(claims: Claims) -> None:
    if min(claims.rows, claims.columns) < 1 or SAMPLES.get(claims.photometric) != claims.samples:
        raise Rejected(Reason.PIXEL_FORMAT)
    if claims.allocated not in (8, 16, 32) or not 1 <= claims.stored <= claims.allocated:
        raise Rejected(Reason.PIXEL_FORMAT)
    if claims.photometric not in MONOCHROME and claims.is_signed:
        raise Rejected(Reason.PIXEL_FORMAT)
    if claims.rows * claims.columns > LARGEST_IMAGE:
        raise Rejected(Reason.TOO_LARGE)


def _native_length(claims: Claims) -> int:
    samples = 2 if claims.photometric == "YBR_FULL_422" else claims.samples  # PS3.3 C.7.6.3.1.2: chroma is halved
    return claims.rows * claims.columns * samples * claims.allocated // 8


def _decode(dataset: Dataset, syntax: uid.UID) -> NDArray[Any]:
    plugin = DECODERS[syntax]
    try:
        array, _ = get_decoder(syntax).as_array(dataset, decoding_plugin=plugin)
        if dataset.PhotometricInterpretation == "PALETTE COLOR":
            array = apply_color_lut(array, dataset)[..., :3]
        return array
    except MemoryError as error:
        raise Rejected(Reason.TOO_LARGE) from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # decoders raise all kinds on damaged data; a panic in a Rust plug-in is not even an Exception
        raise Rejected(Reason.UNDECODABLE) from error


def _stored(array: NDArray[Any], claims: Claims, dataset: Dataset) -> Stored:
    if array.shape[:2] != (claims.rows, claims.columns) or array.shape[2:] not in ((), (3,)):
        raise Rejected(Reason.UNDECODABLE)
    if claims.photometric == "PALETTE COLOR":
        return Stored(values=array, low=0, high=int(np.iinfo(array.dtype).max))
    half = 2 ** (claims.stored - 1)
    low, high = (-half, half - 1) if claims.is_signed else (0, 2 * half - 1)
    return Stored(values=array, low=low, high=high)

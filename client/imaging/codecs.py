# SPDX-License-Identifier: Apache-2.0
"""Which decoder opens which transfer syntax, in which order: the fastest one that gives the right values comes first.

pydicom would choose by its own order, which is not by speed (RLE: its own Python before a plug-in that is four times quicker), and would
take whatever plug-in happens to be installed, under whatever licence. So each is named. Measured beside each other and against dcmtk:
docs/imaging.md.

All are permissive: pylibjpeg's RLE and OpenJPEG (MIT), CharLS by pyjpegls (MIT), Pillow (MIT-CMU), GDCM (BSD, Apache). JPEG-LS goes to
CharLS first and to GDCM for what it refuses. Twelve-bit JPEG (Extended, process 4) is GDCM's alone: pydicom does not hand it such frames,
since an earlier GDCM read them wrongly, so it is called here; it agrees with dcmtk to the bit (tests/client/imaging/test_against_dcmtk.py).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder

NATIVE = ""  # no plug-in: pydicom and NumPy
TWELVE_BITS = "gdcm, called here"

DECODERS: dict[uid.UID, tuple[str, ...]] = {
    uid.ImplicitVRLittleEndian: (NATIVE,),
    uid.ExplicitVRLittleEndian: (NATIVE,),
    uid.DeflatedExplicitVRLittleEndian: (NATIVE,),
    uid.ExplicitVRBigEndian: (NATIVE,),
    uid.RLELossless: ("pylibjpeg",),
    uid.JPEG2000Lossless: ("pylibjpeg",),
    uid.JPEG2000: ("pylibjpeg",),
    uid.HTJ2KLossless: ("pylibjpeg",),
    uid.HTJ2KLosslessRPCL: ("pylibjpeg",),
    uid.HTJ2K: ("pylibjpeg",),
    uid.JPEGLSLossless: ("pyjpegls", "gdcm"),
    uid.JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    uid.JPEGLossless: ("gdcm",),
    uid.JPEGLosslessSV1: ("gdcm",),
    uid.JPEGBaseline8Bit: ("pillow", "gdcm"),
    uid.JPEGExtended12Bit: ("pillow", TWELVE_BITS),
}

Frames = Iterator[NDArray[Any]]


def decode(dataset: Dataset, syntax: uid.UID, frames: Sequence[int]) -> Frames:
    """Arrays of these frames (ascending), YBR as RGB, palettes as their entries. Raises: what decoders raise, on any of the frames."""
    first, *rest = frames
    *others, last = DECODERS[syntax]
    for plugin in others:
        try:
            array = decode_by(dataset, syntax, plugin, first)
        except MemoryError:
            raise
        except Exception:  # noqa: S112 - the next decoder says whether anybody can read it
            continue
        yield array
        yield from _many(dataset, syntax, plugin, rest)
        return
    yield decode_by(dataset, syntax, last, first)
    yield from _many(dataset, syntax, last, rest)


def decode_by(dataset: Dataset, syntax: uid.UID, plugin: str, frame: int) -> NDArray[Any]:
    """One frame by one decoder. Raises: what it raises."""
    if plugin is TWELVE_BITS:
        return next(_twelve_bits(dataset, [frame]))
    array, _ = get_decoder(syntax).as_array(dataset, index=frame, decoding_plugin=plugin)
    return array


def _many(dataset: Dataset, syntax: uid.UID, plugin: str, frames: Sequence[int]) -> Frames:
    """In one pass over the fragments: looking each frame up anew would cost the square of their number."""
    if frames and plugin is TWELVE_BITS:
        yield from _twelve_bits(dataset, frames)
    elif frames:
        yield from (array for array, _ in get_decoder(syntax).iter_array(dataset, indices=frames, decoding_plugin=plugin))


def _twelve_bits(dataset: Dataset, frames: Sequence[int]) -> Frames:
    count = int(dataset.get("NumberOfFrames") or 1)
    wanted = set(frames)
    for number, frame in enumerate(generate_frames(dataset.PixelData, number_of_frames=count)):
        if number in wanted:
            yield _by_gdcm(dataset, bytes(frame))


def _by_gdcm(dataset: Dataset, frame: bytes) -> NDArray[Any]:
    """One frame of one sample a pixel in 16-bit words."""
    import gdcm  # 30 ms, for files of one rare kind

    if int(dataset.SamplesPerPixel) != 1 or int(dataset.BitsAllocated) != 16:
        raise ValueError("twelve-bit JPEG is read in grey and 16-bit words")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((int(dataset.Columns), int(dataset.Rows), 1))
    image.SetDataElement(element)
    interpretation = gdcm.PhotometricInterpretation.GetPIType(str(dataset.PhotometricInterpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(interpretation))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    stored = int(dataset.BitsStored)
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, stored, stored - 1, int(dataset.PixelRepresentation)))
    values = image.GetBuffer().encode("utf-8", "surrogateescape")  # it gives bytes as a str
    dtype = np.dtype("<i2" if int(dataset.PixelRepresentation) else "<u2")
    return np.frombuffer(values, dtype).reshape(int(dataset.Rows), int(dataset.Columns))

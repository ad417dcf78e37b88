# SPDX-License-Identifier: Apache-2.0
"""PNG and JPEG as the plan's input and as masks; turned ones, broken ones, and which mask belongs to which picture."""

import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.imaging import pictures
from client.imaging.rejection import Reason, Rejected
from client.imaging.sample import Sample
from common.plan import InputSpec


def read(content: bytes, **fields: Any) -> Sample:
    _, fitted = pictures.read(content, InputSpec(**{"modality": "any", "height": 16, "width": 16, **fields}))
    return fitted


def encoded(pixels: NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_grey_picture_is_read(kind: str) -> None:
    pixels = np.linspace(0, 255, 256).reshape(16, 16).astype(np.uint8)
    fitted = read(encoded(pixels, kind))
    np.testing.assert_allclose(fitted[0] / 65535, pixels / 255, atol=0 if kind == "PNG" else 0.03, rtol=1e-4)


def test_a_sixteen_bit_png_keeps_its_bits() -> None:
    pixels = np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16)
    np.testing.assert_allclose(read(encoded(pixels))[0], pixels, atol=1)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "RGB"])
def test_every_picture_mode_becomes_the_plans_channels(mode: str) -> None:
    stream = BytesIO()
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).convert(mode).save(stream, "PNG")
    fitted = read(stream.getvalue(), channels=3)
    np.testing.assert_allclose(fitted[1] / 65535, np.eye(16), atol=0.01)


def test_a_sideways_photograph_is_turned_upright() -> None:
    pixels = np.zeros((16, 32), dtype=np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn a quarter clockwise to see it
    fitted = read(encoded(pixels, "JPEG", exif=exif))
    assert fitted[0, :, 12:].mean() > 60000
    assert fitted[0, :, :4].mean() < 5000


@pytest.mark.parametrize("orientation", range(1, 9))
def test_of_a_picture_to_be_turned_nobody_knows_where_a_mask_lies(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content, spec = encoded(np.eye(16, 32, dtype=np.uint8), exif=exif), InputSpec(modality="any", height=16, width=16)
    grid, _ = pictures.read(content, spec)
    assert grid == ((32, 16) if orientation > 4 else (16, 32))
    if orientation == 1:
        pictures.read(content, spec, drawn_on=True)
    else:
        with pytest.raises(Rejected, match="E_TURNED"):
            pictures.read(content, spec, drawn_on=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.NOT_A_PICTURE),
        (b"GIF89a" + bytes(100), Reason.NOT_A_PICTURE),
        (b"BM" + bytes(100), Reason.NOT_A_PICTURE),
        (encoded(np.eye(16, dtype=np.uint8))[:12] + b"none at all", Reason.UNDECODABLE),
        (encoded(np.eye(64, dtype=np.uint8))[:60], Reason.UNDECODABLE),
        (encoded(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8), "JPEG")[:900], Reason.UNDECODABLE),
    ],
)
def test_what_is_no_whole_picture_is_a_reason(content: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as refused:
        read(content)
    assert refused.value.reason is reason


def test_a_picture_that_claims_to_be_vast_is_refused_before_it_is_decoded() -> None:
    content = bytearray(encoded(np.eye(16, dtype=np.uint8)))
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with pytest.raises(Rejected) as refused:
        read(bytes(content))
    assert refused.value.reason is Reason.TOO_LARGE

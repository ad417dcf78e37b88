# SPDX-License-Identifier: Apache-2.0
"""The plan's size and channels, without aliasing, and never another scale."""

import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from client.imaging import dicom, sample
from client.imaging.rejection import Reason, Rejected
from common.plan import InputSpec, Window


def spec(**fields: Any) -> InputSpec:
    return InputSpec(**{"modality": "any", "height": 16, "width": 16, **fields})


def encoded(pixels: NDArray[Any], kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def test_an_image_of_the_right_size_keeps_every_value() -> None:
    unit = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    np.testing.assert_array_equal(sample.fit(unit, spec())[0], np.floor(unit * 65535 + 0.5))


def test_shrinking_a_fine_pattern_gives_its_mean_and_not_another_pattern() -> None:
    checkerboard = (np.indices((128, 128)).sum(axis=0) % 2).astype(np.float32)
    shrunk = sample.fit(checkerboard, spec())[0] / 65535
    np.testing.assert_allclose(shrunk, 0.5, atol=0.01)


@given(st.integers(8, 90), st.integers(8, 90), st.floats(0, 1, width=32))
def test_a_flat_image_stays_flat_at_any_size(height: int, width: int, value: float) -> None:
    flat = np.full((height, width), value, dtype=np.float32)
    fitted = sample.fit(flat, spec())
    assert fitted.shape == (1, 16, 16)
    assert np.ptp(fitted) <= 1
    assert abs(int(fitted[0, 0, 0]) - value * 65535) <= 1


@given(st.integers(0, 2**32 - 1), st.integers(9, 70), st.integers(9, 70))
def test_resizing_stays_within_what_was_there(seed: int, height: int, width: int) -> None:
    unit = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    fitted = sample.fit(unit, spec(height=24, width=12))
    assert fitted.min() >= np.floor(unit.min() * 65535)
    assert fitted.max() <= np.ceil(unit.max() * 65535)


def test_shrinking_by_a_whole_factor_keeps_the_mean() -> None:
    unit = np.random.default_rng(3).random((64, 64), dtype=np.float32)
    padded = np.pad(unit, 64, mode="wrap")  # away from the border, where the filter has less to see
    assert sample.fit(padded, spec(height=48, width=48))[0, 16:32, 16:32].mean() / 65535 == pytest.approx(unit.mean(), abs=0.002)


def test_grey_becomes_three_equal_channels_and_colour_becomes_luma() -> None:
    grey = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    three = sample.fit(grey, spec(channels=3))
    assert three.shape == (3, 16, 16)
    assert np.all(three == three[0])
    red = np.zeros((16, 16, 3), dtype=np.float32)
    red[..., 0] = 1
    np.testing.assert_array_equal(sample.fit(red, spec())[0], round(0.299 * 65535))
    np.testing.assert_array_equal(sample.fit(red, spec(channels=3))[:, 0, 0], [65535, 0, 0])


def test_a_dicom_file_goes_through_rescale_window_inversion_and_fit(ct: Callable[..., bytes], ramp: Any) -> None:
    pixels = ramp(high=4095)
    dataset = dicom.parse(ct(pixels, bits=12, RescaleSlope=1, RescaleIntercept=-1024, PhotometricInterpretation="MONOCHROME1"))
    instance = dicom.read(dataset, dicom.identify(dataset, modality="CT"))
    fitted = sample.of_instance(instance, spec(height=40, width=36, window=Window(centre=-600, width=1500)))
    expected = 1 - np.clip((pixels.astype(float) - 1024 + 1350) / 1500, 0, 1)
    np.testing.assert_allclose(fitted[0] / 65535, expected, atol=2e-5)


def test_a_window_leaves_colour_alone(ct: Callable[..., bytes]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    dataset = dicom.parse(ct(pixels))
    instance = dicom.read(dataset, dicom.identify(dataset, modality="CT"))
    fitted = sample.of_instance(instance, spec(channels=3, window=Window(centre=40, width=400)))
    np.testing.assert_allclose(fitted.transpose(1, 2, 0) / 65535, pixels / 255, atol=1e-5)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_grey_picture_is_read(kind: str) -> None:
    pixels = np.linspace(0, 255, 256).reshape(16, 16).astype(np.uint8)
    fitted = sample.of_picture(encoded(pixels, kind), spec())
    np.testing.assert_allclose(fitted[0] / 65535, pixels / 255, atol=0 if kind == "PNG" else 0.03, rtol=1e-4)


def test_a_sixteen_bit_png_keeps_its_bits() -> None:
    pixels = np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16)
    np.testing.assert_allclose(sample.of_picture(encoded(pixels), spec())[0], pixels, atol=1)


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "RGB"])
def test_every_picture_mode_becomes_the_plans_channels(mode: str) -> None:
    stream = BytesIO()
    Image.fromarray(np.eye(16, dtype=np.uint8) * 255).convert(mode).save(stream, "PNG")
    fitted = sample.of_picture(stream.getvalue(), spec(channels=3))
    np.testing.assert_allclose(fitted[1] / 65535, np.eye(16), atol=0.01)


def test_a_sideways_photograph_is_turned_upright() -> None:
    pixels = np.zeros((16, 32), dtype=np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: turn a quarter clockwise to see it
    fitted = sample.of_picture(encoded(pixels, "JPEG", exif=exif), spec())
    assert fitted[0, :, 12:].mean() > 60000
    assert fitted[0, :, :4].mean() < 5000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.NOT_A_PICTURE),
        (b"GIF89a" + bytes(100), Reason.NOT_A_PICTURE),
        (b"BM" + bytes(100), Reason.NOT_A_PICTURE),
        (encoded(np.eye(64, dtype=np.uint8))[:60], Reason.UNDECODABLE),
        (encoded(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8), "JPEG")[:900], Reason.UNDECODABLE),
    ],
)
def test_what_is_no_whole_picture_is_a_reason(content: bytes, reason: Reason) -> None:
    with pytest.raises(Rejected) as refused:
        sample.of_picture(content, spec())
    assert refused.value.reason is reason


def test_a_picture_that_claims_to_be_vast_is_refused_before_it_is_decoded() -> None:
    content = bytearray(encoded(np.eye(16, dtype=np.uint8)))
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    with pytest.raises(Rejected) as refused:
        sample.of_picture(bytes(content), spec())
    assert refused.value.reason is Reason.TOO_LARGE

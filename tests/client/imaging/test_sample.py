# SPDX-License-Identifier: Apache-2.0
"""The plan's size and channels, without aliasing, and never another scale."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.imaging import dicom, sample
from common.plan import InputSpec, Window


def spec(**fields: Any) -> InputSpec:
    return InputSpec(**{"modality": "any", "height": 16, "width": 16, **fields})


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

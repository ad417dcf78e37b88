# SPDX-License-Identifier: Apache-2.0
"""Windows do what DICOM's formulas say, and bright is bright."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing

from client.imaging.intensity import Voi, linear, linear_exact, to_unit
from client.imaging.rejection import Reason, Rejected
from common.plan import Window

STORED = np.arange(-1024, 3072, 7, dtype=np.int16)
VALUES = STORED.astype(np.float32)


def by_pydicom(centre: float, width: float, function: str) -> NDArray[np.float64]:
    """The slow and obvious: pydicom's window, over twelve signed bits, scaled to [0, 1]."""
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 13, 1
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = centre, width, function
    with np.errstate(over="ignore"):  # its sigmoid lets exp overflow to infinity
        scaled = np.asarray(apply_windowing(STORED, dataset))
    return (scaled + 2**12) / (2**13 - 1)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(40, 400), (-600, 1500), (100, 2), (0.5, 333.3)])
def test_a_files_window_agrees_with_pydicom(centre: float, width: float, function: str) -> None:
    unit = to_unit(VALUES, plan=None, voi=Voi(centre=centre, width=width, function=function), full_range=(-4096, 4095), inverted=False)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(unit, by_pydicom(centre, width, function), atol=2e-6)


def test_the_plans_window_wins_over_the_files() -> None:
    unit = to_unit(VALUES, plan=Window(centre=0, width=1000), voi=Voi(centre=40, width=1), full_range=(0, 1), inverted=False)
    np.testing.assert_array_equal(unit, linear_exact(VALUES, 0, 1000))


def test_the_plans_window_is_the_interval_around_its_centre() -> None:
    values = np.array([-1351, -1350, -600, 150, 151], dtype=np.float32)
    unit = to_unit(values, plan=Window(centre=-600, width=1500), voi=None, full_range=(0, 1), inverted=False)
    np.testing.assert_allclose(unit, [0, 0, 0.5, 1, 1], atol=1e-7)


def test_without_any_window_the_full_range_is_used() -> None:
    values = np.array([0, 1000, 4095], dtype=np.float32)
    unit = to_unit(values, plan=None, voi=None, full_range=(0, 4095), inverted=False)
    np.testing.assert_allclose(unit, values / 4095, atol=1e-6)


def test_monochrome1_is_turned_so_that_bright_is_bright() -> None:
    unit = to_unit(VALUES, plan=Window(centre=0, width=500), voi=None, full_range=(0, 1), inverted=False)
    turned = to_unit(VALUES, plan=Window(centre=0, width=500), voi=None, full_range=(0, 1), inverted=True)
    np.testing.assert_array_equal(turned, 1 - unit)


def test_a_window_of_width_one_is_a_step() -> None:
    np.testing.assert_array_equal(linear(np.array([9.4, 9.5, 9.6], dtype=np.float32), 10, 1), [0, 0, 1])


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", "CUBIC"])
@pytest.mark.parametrize("width", [0, -5, float("nan"), float("inf")])
def test_an_unusable_window_is_a_reason(function: str, width: float) -> None:
    with pytest.raises(Rejected) as refused:
        to_unit(VALUES, plan=None, voi=Voi(centre=40, width=width, function=function), full_range=(0, 1), inverted=False)
    assert refused.value.reason is Reason.WINDOW


@pytest.mark.parametrize("values", [VALUES * 0, VALUES * 0 + 9999, VALUES * 0 - 9999])
def test_an_image_without_contrast_is_a_reason(values: NDArray[np.float32]) -> None:
    with pytest.raises(Rejected) as refused:
        to_unit(values, plan=Window(centre=0, width=100), voi=None, full_range=(0, 1), inverted=True)
    assert refused.value.reason is Reason.CONSTANT


@given(st.floats(-2000, 2000), st.floats(1, 5000), st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
def test_every_window_stays_in_the_unit_interval_and_never_decreases(centre: float, width: float, function: str) -> None:
    values = np.concatenate([VALUES, np.array([-1e7, 1e7], dtype=np.float32)])
    unit = to_unit(np.sort(values), plan=None, voi=Voi(centre=centre, width=width, function=function), full_range=(0, 1), inverted=False)
    assert unit.min() >= 0
    assert unit.max() <= 1
    assert np.all(np.diff(unit) >= 0)

# SPDX-License-Identifier: Apache-2.0
"""Whatever way a patient lay and a scanner wrote, the reader sees left on the right, and the head above."""

from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.imaging import dicom, sample
from client.imaging.geometry import Geometry, Turn, Vector, geometry_of, turn_of, turned
from client.imaging.rejection import Reason, Rejected
from common.plan import InputSpec

Ct = Callable[..., bytes]
AXES = [tuple(int(sign) * int(axis == each) for each in range(3)) for axis in range(3) for sign in (1, -1)]
PLANES = [(across, down) for across, down in permutations(AXES, 2) if all(a * d == 0 for a, d in zip(across, down, strict=True))]
READERS_VIEW = {(0, 1): ((1, 0, 0), (0, 1, 0)), (0, 2): ((1, 0, 0), (0, 0, -1)), (1, 2): ((0, 1, 0), (0, 0, -1))}


def positions(across: Vector, down: Vector) -> NDArray[np.float64]:
    """An image whose every pixel holds where it lies: (Y, X, 3)."""
    y, x = np.mgrid[0:3, 0:4]
    return x[..., np.newaxis] * np.array(across, dtype=float) + y[..., np.newaxis] * np.array(down, dtype=float)


@pytest.mark.parametrize(("across", "down"), PLANES)
def test_every_plane_is_turned_into_the_readers(across: Vector, down: Vector) -> None:
    image = turned(positions(across, down), turn_of(Geometry(across=across, down=down)))
    spanned = sorted(int(np.flatnonzero(direction)[0]) for direction in (across, down))
    right, below = READERS_VIEW[spanned[0], spanned[1]]
    np.testing.assert_array_equal(image[0, 1] - image[0, 0], right)
    np.testing.assert_array_equal(image[1, 0] - image[0, 0], below)


@given(st.sampled_from(PLANES), st.floats(-0.6, 0.6), st.sampled_from(AXES))
def test_a_tilted_plane_is_turned_like_the_one_it_is_closest_to(plane: tuple[Vector, Vector], angle: float, about: Vector) -> None:
    x, y, z = about
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=float)
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    across, down = (tuple(map(float, rotation @ np.array(direction))) for direction in plane)
    assert turn_of(Geometry(across=across, down=down)) == turn_of(Geometry(across=plane[0], down=plane[1]))  # type: ignore[arg-type]


def test_without_orientation_nothing_is_turned() -> None:
    assert turn_of(Geometry()) == Turn()


def shown(content: bytes, **fields: Any) -> NDArray[np.uint16]:
    dataset = dicom.parse(content)
    instance = dicom.read(dataset, dicom.identify(dataset, modality="any"))
    return sample.of_instance(instance, InputSpec(**{"modality": "any", "height": 12, "width": 12, **fields}))[0]


CORNER = np.pad(np.full((4, 4), 4000, dtype=np.uint16), ((0, 8), (0, 8)))  # bright above on the left


@pytest.mark.parametrize(
    ("letters", "bright"),
    [
        (["L", "F"], (0, 0)),  # as it should stand
        (["F", "L"], (0, 0)),  # on its side
        (["R", "F"], (0, -1)),  # seen from behind
        (["L", "H"], (-1, 0)),  # on its head
        (["LA", "FP"], (0, 0)),  # a little oblique
        (["R", "H"], (-1, -1)),
        (["", ""], (0, 0)),
        (["CR", "V"], (0, 0)),  # a dog
    ],
)
def test_a_radiograph_is_turned_by_its_letters(letters: list[str], bright: tuple[int, int], ct: Ct) -> None:
    image = shown(ct(CORNER, Modality="DX", PatientOrientation=letters))
    assert image[bright] == image.max()
    assert np.sum(image == image.max()) == 16


def test_a_plan_may_keep_images_as_they_were_stored(ct: Ct) -> None:
    content = ct(CORNER, PatientOrientation=["R", "H"])
    assert shown(content, orientation="stored")[0, 0] > 0
    np.testing.assert_array_equal(shown(content, orientation="stored"), shown(content)[::-1, ::-1])


def test_a_mammogram_is_mirrored_and_never_laid_on_its_side(ct: Ct) -> None:
    for letters, bright in ((["A", "R"], (0, -1)), (["P", "L"], (0, 0)), (["P", "F"], (0, 0)), (["A", "F"], (0, -1))):
        image = shown(ct(CORNER, Modality="MG", PatientOrientation=letters))
        assert image[bright] == image.max()


@pytest.mark.parametrize(
    "attributes",
    [
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0]},
    ],
    ids=str,
)
def test_an_orientation_that_cannot_be_is_a_reason_where_it_counts(attributes: dict[str, Any], ct: Ct) -> None:
    with pytest.raises(Rejected) as refused:
        shown(ct(**attributes))
    assert refused.value.reason is Reason.GEOMETRY
    np.testing.assert_array_equal(shown(ct(**attributes), orientation="stored"), shown(ct()))


@pytest.mark.parametrize("spacing", [[0, 1], [1, -1], 1, [1, 1e9]], ids=str)
def test_a_spacing_that_cannot_be_is_a_reason_where_it_counts(spacing: Any, ct: Ct) -> None:
    with pytest.raises(Rejected) as refused:
        shown(ct(PixelSpacing=spacing), spacing_mm=1.0)
    assert refused.value.reason is Reason.SPACING
    np.testing.assert_array_equal(shown(ct(PixelSpacing=spacing)), shown(ct()))


def test_a_position_that_cannot_be_is_no_position(ct: Ct) -> None:
    dataset = dicom.parse(ct(ImagePositionPatient=[1, 0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    assert geometry_of(dataset).place_mm is None


def test_slices_have_a_place_along_their_normal(ct: Ct) -> None:
    dataset = dicom.parse(ct(ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[-7.5, 3, 2]))
    assert geometry_of(dataset).place_mm == 7.5  # y x -z = -x


def disc(radius_mm: float, spacing: tuple[float, float], side_mm: float = 48) -> NDArray[np.uint16]:
    rows, columns = (round(side_mm / mm) for mm in spacing)
    y, x = np.mgrid[0:rows, 0:columns]
    far = np.hypot((y + 0.5) * spacing[0] - side_mm / 2, (x + 0.5) * spacing[1] - side_mm / 2)
    return np.where(far < radius_mm, 65535, 0).astype(np.uint16)


@pytest.mark.parametrize("spacing", list(product((0.5, 1.0, 2.0), repeat=2)))
def test_a_millimetre_is_as_wide_at_every_hospital(spacing: tuple[float, float], ct: Ct) -> None:
    image = shown(ct(disc(12, spacing), PixelSpacing=list(spacing)), spacing_mm=1.0, height=40, width=40)
    assert image.sum() / 65535 == pytest.approx(np.pi * 12**2, rel=0.04)
    assert image[20, 20] == 65535


def test_what_is_too_small_is_filled_with_black_and_what_is_too_large_is_cut(ct: Ct) -> None:
    bright = np.full((20, 10), 65535, dtype=np.uint16)
    bright[0, 0] = 0
    image = shown(ct(bright, PixelSpacing=[1, 1]), spacing_mm=1.0, height=10, width=20)
    assert (image[:, 5:15] == 65535).all()
    assert (image[:, :5] == 0).all()
    assert (image[:, 15:] == 0).all()


def test_turning_takes_the_spacing_along(ct: Ct) -> None:
    content = ct(disc(12, (0.5, 2.0)), PixelSpacing=[0.5, 2.0], ImageOrientationPatient=[0, 1, 0, 1, 0, 0])
    image = shown(content, spacing_mm=1.0, height=40, width=40)
    assert image.sum() / 65535 == pytest.approx(np.pi * 12**2, rel=0.04)


def test_a_plan_in_millimetres_refuses_an_image_that_has_none(ct: Ct) -> None:
    with pytest.raises(Rejected) as refused:
        shown(ct(), spacing_mm=1.0)
    assert refused.value.reason is Reason.SPACING


def test_a_spacing_that_would_fill_the_memory_is_a_reason(ct: Ct) -> None:
    with pytest.raises(Rejected) as refused:
        shown(ct(PixelSpacing=[900, 900]), spacing_mm=0.001)
    assert refused.value.reason is Reason.TOO_LARGE

# SPDX-License-Identifier: Apache-2.0
"""A mask lies on the pixels that somebody drew it on, however the image is turned; and outlines that contradict are never merged."""

import dataclasses
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from client.imaging.geometry import Geometry
from client.imaging.identity import PatientSecret
from client.imaging.intake import DataSource, open_dataset
from client.imaging.labels import Labels, masks
from client.imaging.labels.agreement import Why
from client.imaging.labels.gather_masks import gather_masks
from client.imaging.labels.masks import Drawing, compose
from client.imaging.labels.survey import Surveyor
from client.imaging.listing import walk
from client.imaging.rejection import Reason
from common.errors import LabelsMismatch
from common.plan import Plan, SegmentationSpec, UNetSpec
from tests.client.imaging.labels.ward import LIVER, SHAPE, Ward

law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no broken law
SIZE = (6, 5)
MASKS = arrays.arrays(np.bool_, SIZE)
RULES = '[segmentation.classes]\nnodule = ["SCT:27925004"]\nliver = ["SCT:10200004"]\n'
CLASSES = ("background", "nodule", "liver")


def drawing(pixels: NDArray[np.bool_], label: int = 1, document: str = "a", date: str = "20240101", **fields: Any) -> Drawing:
    bits = b64encode(zlib.compress(np.packbits(pixels).tobytes())).decode()
    shape = (pixels.shape[0], pixels.shape[1])
    return Drawing(
        **{"document": document, "date": date, "label": label, "shape": shape, "on_grid": True, "plane": None, "bits": bits, **fields}
    )


def square(y: int, x: int, side: int = 2) -> NDArray[np.bool_]:
    pixels = np.zeros(SIZE, dtype=np.bool_)
    pixels[y : y + side, x : x + side] = True
    return pixels


@law
@given(MASKS)
def test_packed_pixels_come_out_as_they_went_in(pixels: NDArray[np.bool_]) -> None:
    assert (drawing(pixels).pixels() == pixels).all()


def test_packed_pixels_never_unpack_to_more_than_their_shape() -> None:
    bomb = b64encode(zlib.compress(b"\xff" * 10_000_000)).decode()
    assert drawing(square(0, 0), bits=bomb).pixels().shape == SIZE


@law
@given(
    st.lists(st.tuples(MASKS, st.integers(1, 2), st.sampled_from("abc")), min_size=1, max_size=4),
    st.sampled_from(["refuse", "majority", "newest"]),
)
def test_order_does_not_matter_and_no_class_comes_from_nowhere(said: list[tuple[NDArray[np.bool_], int, str]], policy: Any) -> None:
    drawings = [drawing(pixels, label, document, f"2024010{ord(document) - 96}") for pixels, label, document in said]
    found, backwards = compose(drawings, policy), compose(drawings[::-1], policy)
    assert type(found) is type(backwards)
    if isinstance(found, Why):
        assert found == backwards
        return
    assert (found == backwards).all()
    for label in (1, 2):
        drawn = np.logical_or.reduce([pixels for pixels, of, _ in said if of == label] or [np.zeros(SIZE, dtype=np.bool_)])
        assert not (found == label)[~drawn].any()


@pytest.mark.parametrize("policy", ["refuse", "majority", "newest"])
def test_two_things_by_two_documents_are_both_there(policy: Any) -> None:
    found = compose([drawing(square(0, 0), 1, "a"), drawing(square(3, 3), 2, "b")], policy)
    assert not isinstance(found, Why)
    assert (found == square(0, 0) * 1 + square(3, 3) * 2).all()


def test_two_outlines_of_one_thing_are_settled_as_the_site_says() -> None:
    first, second, third = (
        drawing(square(0, x), 1, name, date) for x, name, date in ((0, "a", "20240101"), (1, "b", "20240102"), (1, "c", "20240103"))
    )
    assert compose([first, second], "refuse") is Why.CONFLICT
    assert compose([first, second], "majority") is Why.TIE
    for policy, drawings, expected in (("majority", [first, second, third], square(0, 1)), ("newest", [second, first], square(0, 1))):
        found = compose(drawings, policy)  # type: ignore[arg-type]
        assert not isinstance(found, Why)
        assert (found == expected).all()
    assert compose([first, dataclasses.replace(second, date="")], "newest") is Why.UNDATED
    assert compose([first, dataclasses.replace(second, date="20240101")], "newest") is Why.TIE


@pytest.mark.parametrize("policy", ["refuse", "majority", "newest"])
def test_a_document_that_gives_a_pixel_two_classes_is_settled_by_no_policy(policy: Any) -> None:
    assert compose([drawing(square(0, 0), 1), drawing(square(1, 1), 2)], policy) is Why.CONFLICT


@pytest.fixture
def plan(plan_for: Callable[..., Plan]) -> Plan:
    plan = plan_for(height=SHAPE[0], width=SHAPE[1], orientation="canonical")
    return dataclasses.replace(plan, task=SegmentationSpec(kind="segmentation", classes=CLASSES), model=UNetSpec(family="unet"))


@pytest.fixture
def outlined(surveyor: Callable[..., Surveyor], plan: Plan) -> Callable[[Ward], Labels]:
    """outlined(ward) -> the masks of a plan that outlines nodules and livers."""

    def run(ward: Ward) -> Labels:
        rules_file = ward.folder / "labels.toml"
        assert isinstance(plan.task, SegmentationSpec)
        return gather_masks(surveyor(ward, plan.input), walk(ward.folder, skip=rules_file), rules_file, plan.task, plan.input)

    return run


def bright(mask: NDArray[np.bool_]) -> bytes:
    return (mask * 3000 + 500).astype(np.uint16).tobytes()


def test_a_mask_lies_where_it_was_drawn_however_the_image_is_turned(ward: Ward, plan: Plan, tmp_path: Path, secret: PatientSecret) -> None:
    corner, bar = np.zeros(SHAPE, dtype=np.bool_), np.zeros(SHAPE, dtype=np.bool_)
    corner[1:5, 2:9], bar[10:12, 1:4] = True, True
    for number, orientation in enumerate(([1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0])):
        drawn = [ward.image(f"MRN-{number}", ImageOrientationPatient=orientation, PixelData=bright(mask)) for mask in (corner, bar)]
        ward.image(f"MRN-{number}", ImageOrientationPatient=orientation)
        ward.segmentation([corner, bar], of=drawn, name=f"seg_{number}.dcm")
    ward.rules(RULES)
    data, report = open_dataset(DataSource(root=ward.folder), plan, cache=tmp_path / "cache", key=secret, workers=1)
    assert len(data) == 6
    assert (data.parts["mask"].shape, data.parts["mask"].dtype) == ((6, *SHAPE), np.uint8)
    middle = (int(data.images[:].max()) + int(data.images[:].min())) // 2
    assert ((data.images[:][:, 0] > middle) == (data.parts["mask"][:] == 1)).all()
    assert report.rejected == {Reason.NO_LABEL: 3, Reason.LABEL_SOURCE: 3}
    assert report.labels is not None
    assert report.labels.unlabelled == {Why.NOTHING_SAID: 3}


def test_nothing_drawn_is_background_only_where_the_site_says_so(ward: Ward, outlined: Callable[[Ward], Labels]) -> None:
    drawn, empty = np.zeros(SHAPE, dtype=np.bool_), np.zeros(SHAPE, dtype=np.bool_)
    drawn[2:6, 2:6] = True
    for _ in range(3):
        ward.image()
    ward.segmentation([drawn, empty], of=ward.images[:2])
    ward.segmentation([drawn], of=ward.images[2:], code=LIVER, name="liver.dcm")
    ward.rules(RULES)
    assert set(outlined(ward).masks) == {"image_00.dcm", "image_02.dcm"}
    ward.rules('[segmentation]\nabsent = "background"\n' + RULES)
    assert [int(mask.max()) for _, mask in sorted(outlined(ward).masks.items())] == [1, 0, 2]
    ward.rules('[segmentation]\nabsent = "nodule"\n' + RULES)
    with pytest.raises(LabelsMismatch, match="background, and that is the plan's first class"):
        outlined(ward)


def test_a_drawing_that_lies_elsewhere_than_it_says_is_no_mask(ward: Ward, outlined: Callable[[Ward], Labels]) -> None:
    drawn = np.zeros(SHAPE, dtype=np.bool_)
    drawn[2:6, 2:6] = True
    moved = [ward.image(), ward.image()][1]
    ward.segmentation([drawn, drawn])
    moved.ImagePositionPatient = [5.0, 0.0, 2.0]
    ward.keep(moved, "image_01.dcm")
    ward.rules(RULES)
    found = outlined(ward)
    assert set(found.masks) == {"image_00.dcm"}
    assert found.account is not None
    assert found.account.unused == {Why.OFF_GRID: 1}


def test_what_a_labels_file_cannot_say_is_named(ward: Ward, outlined: Callable[[Ward], Labels], plan: Plan, secret: PatientSecret) -> None:
    ward.image()
    ward.rules('[structured_report.classes]\nnodule = ["SCT:27925004"]\n')
    with pytest.raises(LabelsMismatch, match="no \\[segmentation\\] is there"):
        outlined(ward)
    (ward.folder / "labels.toml").unlink()
    (ward.folder / "labels.csv").write_text("path,label\nimage_00.dcm,nodule\n")
    with pytest.raises(LabelsMismatch, match="kind 'segmentation'"):
        open_dataset(DataSource(root=ward.folder), plan, cache=ward.folder / "cache", key=secret, workers=1)


def test_a_claim_is_not_believed_against_the_geometry() -> None:
    plane = Geometry(across=(1, 0, 0), down=(0, 1, 0), position_mm=(0, 0, 0), spacing_mm=(1, 1))
    here = drawing(square(0, 0), plane=plane)
    image: Any = type("Image", (), {"shape": SIZE, "geometry": plane})()
    moved: Any = type("Image", (), {"shape": SIZE, "geometry": dataclasses.replace(plane, position_mm=(0, 0, 1))})()
    unknown: Any = type("Image", (), {"shape": SIZE, "geometry": Geometry()})()
    assert masks.lies_on(dataclasses.replace(here, on_grid=False), image)
    assert not masks.lies_on(here, moved)
    assert masks.lies_on(here, unknown)
    assert not masks.lies_on(dataclasses.replace(here, on_grid=False), unknown)

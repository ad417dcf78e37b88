# SPDX-License-Identifier: Apache-2.0
"""Masks and boxes belong to their picture, to the pixel and to the voxel, or it is not used: the same before training and in it."""

import gzip
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.imaging import inventory, nifti
from client.imaging.dataset import Dataset
from client.imaging.identity import PatientSecret
from client.imaging.intake import DataSource, open_dataset
from client.imaging.rejection import Reason
from common.plan import DetectionSpec, InputSpec, Plan, SegmentationSpec, Window

Plans = Callable[..., Plan]
OUTLINE = SegmentationSpec(kind="segmentation", classes=("background", "lesion"))
ORGANS = SegmentationSpec(kind="segmentation", classes=("background", "lesion", "organ"))
ENDS = ("", "-mask")
CELLS = DetectionSpec(kind="detection", classes=("cell",), most_boxes=2)


@pytest.fixture
def opened(secret: PatientSecret, tmp_path: Path) -> Callable[[Path, Plan], tuple[Dataset, Counter[Reason]]]:
    """What an intake makes of a folder, of which `check-data` must have said the same."""

    def opening(root: Path, plan: Plan) -> tuple[Dataset, Counter[Reason]]:
        data, report = open_dataset(DataSource(root=root), plan, cache=tmp_path / "cache", key=secret, workers=1)
        assert inventory.take(root, plan, workers=1).report == report
        return data, Counter(report.rejected)

    return opening


Opened = Callable[[Path, Plan], tuple[Dataset, Counter[Reason]]]


def ramp(height: int = 12, width: int = 20) -> NDArray[np.uint8]:
    return np.arange(height * width, dtype=np.uint16).reshape(height, width).astype(np.uint8)


def folder(root: Path, files: dict[str, NDArray[Any] | bytes], **tables: str) -> Path:
    """Pictures or bytes by name, and tables by theirs."""
    root.mkdir()
    for name, content in files.items():
        if isinstance(content, bytes):
            (root / name).write_bytes(content)
        else:
            Image.fromarray(content).save(root / name)
    for name, text in tables.items():
        (root / f"{name}.csv").write_text(text)
    return root


def turned(path: Path, orientation: int) -> None:
    """Say in a picture that it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as picture:
        picture.save(path, exif=exif)


def test_a_mask_belongs_to_a_picture_of_its_proportions_that_nobody_turns(plan_for: Plans, opened: Opened, tmp_path: Path) -> None:
    shapes = {"same": (12, 20), "half": (6, 10), "rounded": (5, 9), "sideways": (20, 12), "square": (12, 12), "turned": (12, 20)}
    index = "file,mask_file,patient_id\n" + "".join(f"{name}.png,{name}-mask.png,{name}\n" for name in shapes)
    marks = {f"{name}-mask.png": np.eye(*shape, dtype=np.uint8) for name, shape in shapes.items()}
    root = folder(tmp_path / "root", {**{f"{name}.png": ramp() for name in shapes}, **marks}, index=index)
    turned(root / "turned.png", 3)
    turned(root / "same.png", 1)
    data, rejected = opened(root, replace(plan_for(modality="any"), task=OUTLINE))
    assert (rejected, len(data)) == ({Reason.MASK_SHAPE: 2, Reason.TURNED: 1}, 3)


def test_boxes_lie_in_the_picture_that_their_row_speaks_of(plan_for: Plans, opened: Opened, tmp_path: Path) -> None:
    """Width and height, the other way round, of another size, of a picture to be turned; and of a volume, which boxes are none of."""
    index = "file,width,height,patient_id\na.png,20,12,P1\nb.png,12,20,P2\nc.png,40,24,P3\nd.png,20,12,P4\ne.nii,20,12,P5\n"
    names = ("a.png", "b.png", "c.png", "d.png", "e.nii")
    boxes = "file,cls,x_min,y_min,x_max,y_max\n" + "".join(f"{name},cell,1,1,5,5\n" for name in names)
    pictures = {f"{name}.png": ramp() for name in "abcd"}
    root = folder(tmp_path / "root", {**pictures, "e.nii": packed(ramp(20, 12)[..., np.newaxis])}, index=index, boxes=boxes)
    turned(root / "d.png", 6)
    data, rejected = opened(root, replace(plan_for(modality="any"), task=CELLS))
    assert rejected == {Reason.SIZE: 2, Reason.TURNED: 1, Reason.BOXES: 1}
    np.testing.assert_allclose(data.parts["boxes"][0][0], [0, 1 / 20, 1 / 12, 5 / 20, 5 / 12], atol=1e-6)


def packed(values: NDArray[Any], affine: NDArray[np.float64] | None = None) -> bytes:
    content: bytes = nibabel.Nifti1Image(values, np.diag([1.0, 1, 3, 1]) if affine is None else affine).to_bytes()
    return content


def body() -> NDArray[np.int16]:
    """(right, forward, up), of which no two voxels of a slice are alike, and an empty slice."""
    values = np.random.default_rng(2).permutation(16 * 12 * 5).reshape(16, 12, 5).astype(np.int16)
    values[..., 1] = 0
    return values


def volumes(root: Path, pairs: dict[str, tuple[bytes, bytes]]) -> Path:
    """Volumes and their masks by name, packed, and a picture with its own."""
    index = "file,mask_file,patient_id\n" + "".join(f"{name}.nii.gz,{name}-mask.nii.gz,{name}\n" for name in pairs)
    files = {
        f"{name}{end}.nii.gz": gzip.compress(content)
        for name, pair in pairs.items()
        for end, content in zip(("", "-mask"), pair, strict=True)
    }
    flat = {"flat.png": ramp(), "flat-mask.png": np.eye(12, 20, dtype=np.uint8)}
    return folder(root, {**files, **flat}, index=index + "flat.png,flat-mask.png,flat\n")


def outlining(plan_for: Plans, task: SegmentationSpec = ORGANS, **fields: Any) -> Plan:
    window = Window(centre=480, width=1000)
    return replace(plan_for(modality="any", frames="each", window=window, height=12, width=16, **fields), task=task)


def test_each_slice_has_the_slice_of_its_volumes_mask_whatever_the_axes_and_also_behind_one_that_shows_nothing(
    plan_for: Plans, opened: Opened, tmp_path: Path
) -> None:
    values = body()
    marks = (values > 300).astype(np.uint8) + (values > 600)
    affine = np.array([[0, 1, 0, 0], [0, 0, 1, 0], [-3, 0, 0, 12], [0, 0, 0, 1.0]])  # axes of the file: down, right, forward
    pairs = {
        "plain": (packed(values), packed(marks)),
        "other": tuple(packed(each.transpose(2, 0, 1)[::-1], affine) for each in (values, marks)),
    }
    data, rejected = opened(volumes(tmp_path / "root", pairs), outlining(plan_for))
    assert not rejected
    assert data.images.shape == (9, 1, 12, 16), "twice four slices, and a picture"
    for number, place in enumerate((0, 2, 3, 4) * 2):
        shown = np.clip((values[::-1, ::-1, place].T + 20) / 1000, 0, 1)
        np.testing.assert_allclose(data.images[number][0] / 65535, shown, atol=1e-4)
        np.testing.assert_array_equal(data.parts["mask"][number], marks[::-1, ::-1, place].T)


def test_a_mask_that_is_not_the_volumes_costs_the_whole_volume(plan_for: Plans, opened: Opened, tmp_path: Path) -> None:
    shape = (16, 12, 5)
    masks = {
        "fewer slices": (packed(np.ones((16, 12, 4), dtype=np.uint8)), Reason.MASK_SHAPE),
        "lying": (packed(np.ones((12, 16, 5), dtype=np.uint8)), Reason.MASK_SHAPE),
        "mirrored": (packed(np.ones(shape, dtype=np.uint8), np.diag([-1.0, 1, 3, 1])), Reason.MASK_SHAPE),
        "thinner": (packed(np.ones(shape, dtype=np.uint8), np.diag([1.0, 1, 2.5, 1])), Reason.MASK_SHAPE),
        "class": (packed(np.full(shape, 3, dtype=np.uint8)), Reason.MASK_VALUES),
        "class in one slice": (packed(np.eye(16, 12, dtype=np.uint8)[..., np.newaxis] * np.uint8([0, 0, 0, 0, 9])), Reason.MASK_VALUES),
        "halves": (packed(np.full(shape, 0.5, dtype=np.float32)), Reason.NO_MASK),
        "no number": (packed(np.full(shape, np.nan, dtype=np.float32)), Reason.NO_MASK),
        "negative": (packed(np.full(shape, -1, dtype=np.int16)), Reason.NO_MASK),
        "several": (packed(np.ones((*shape, 2), dtype=np.uint8)), Reason.NO_MASK),
        "no volume": (b"no volume", Reason.NO_MASK),
    }
    root = volumes(tmp_path / "root", {name: (packed(body()), mask) for name, (mask, _) in masks.items()})
    data, rejected = opened(root, outlining(plan_for))
    assert rejected == Counter(why for _, why in masks.values())
    assert len(data) == 1, "the picture"


def test_a_white_mask_marks_one_thing_and_follows_its_image_into_the_plans_spacing() -> None:
    values = np.zeros((16, 12, 1), dtype=np.int16) + np.arange(16, dtype=np.int16)[:, np.newaxis, np.newaxis]
    values[3:6, 2:5] = 900
    spec = InputSpec(modality="any", height=14, width=40, frames="each", window=Window(centre=480, width=1000), spacing_mm=0.5)
    [(_, image)] = nifti.samples(nifti.open_volume(packed(values)), spec)
    [(_, mask)] = nifti.masks(nifti.open_volume(packed((values == 900).astype(np.uint8) * 255)), spec)
    assert mask.shape == (1, 14, 40)
    assert set(np.unique(mask).tolist()) == {0, 1}
    assert mask.sum() == pytest.approx((image > 30_000).sum(), abs=8)
    assert not (mask & (image < 10_000)).any()

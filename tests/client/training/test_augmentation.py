# SPDX-License-Identifier: Apache-2.0
"""Altered images: masks and boxes go along, one patient's say nothing of another's, and nothing is altered that the plan leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from client.imaging.dataset import whole
from client.training import LocalWork, UnsafeSeededNoise, predict, train_locally
from client.training.augmentation import SECRET_BYTES, Maps, shown
from client.training.batches import inputs, targets
from common.models import initial_weights
from common.plan import AugmentationSpec, PrivacySpec, RestorationSpec
from common.plan.consistency import broken_rules

SECRET = bytes(range(SECRET_BYTES))
EVERYTHING = AugmentationSpec(rotation_degrees=25, scale=0.2, shift=0.1, crop=0.2, flip="both", brightness=0.1, contrast=0.2, noise=0.02)
ALL = np.arange(6)


def altered(data, spec, make_plan, secret=SECRET, rows=ALL):
    found, places = shown(data, rows, replace(make_plan(), augmentation=spec), secret)
    assert list(places) == list(range(len(rows)))
    return found


def test_without_the_section_the_data_set_is_the_one_that_was_given(make_dataset, make_plan):
    data = make_dataset(6)
    found, rows = shown(data, ALL, make_plan(), b"")
    assert found is data
    assert rows is ALL


def test_what_is_done_to_a_patient_does_not_depend_on_who_else_is_there(make_dataset, make_plan):
    data = make_dataset(images_of=[2, 1, 3])
    together = altered(data, EVERYTHING, make_plan)
    for gone in range(3):
        left = np.flatnonzero(data.patients != gone)
        alone = altered(data.subset(left), EVERYTHING, make_plan, rows=np.arange(len(left)))
        np.testing.assert_array_equal(alone.images[:], together.images[left])


def test_another_secret_alters_otherwise_and_the_same_one_alike(make_dataset, make_plan):
    data = make_dataset(6)
    once, again = altered(data, EVERYTHING, make_plan), altered(data, EVERYTHING, make_plan)
    other = altered(data, EVERYTHING, make_plan, secret=SECRET[::-1])
    np.testing.assert_array_equal(once.images[:], again.images[:])
    assert all((once.images[row] != other.images[row]).any() for row in ALL)
    assert all((once.images[row] != data.images[row]).any() for row in ALL)


def test_without_a_secret_nothing_is_altered_and_nothing_trained(make_dataset, make_plan):
    with pytest.raises(AssertionError, match="secret"):
        altered(make_dataset(6), EVERYTHING, make_plan, secret=b"")


@pytest.mark.parametrize(("flip", "turned"), [("horizontal", (2, 1)), ("vertical", (1, 2))])
def test_half_of_the_images_are_mirrored(make_dataset, make_plan, flip, turned):
    data = make_dataset(200)
    found = altered(data, AugmentationSpec(flip=flip), make_plan, rows=np.arange(200)).images[:].astype(int)
    before = data.images[:].astype(int)
    mirrored = before[:, :, :, ::-1] if turned[0] == 2 else before[:, :, ::-1, :]
    same = np.abs(found - before).max(axis=(1, 2, 3)) <= 1
    other = np.abs(found - mirrored).max(axis=(1, 2, 3)) <= 1
    assert (same ^ other).all()
    assert 70 <= other.sum() <= 130


def test_a_quarter_turn_is_numpys(make_dataset):
    stored = make_dataset(1).images[:]
    quarter = Maps(turn=np.array([[[0.0, 1.0], [-1.0, 0.0]]]), offset=np.zeros((1, 2)), height=16, width=16)
    found = quarter.pictures(stored) * 65535
    np.testing.assert_allclose(found[0, 0], np.rot90(stored[0, 0], -1), atol=1)


def test_any_map_is_the_one_that_scipy_makes_of_it():
    rng = np.random.default_rng(0)
    stored = np.zeros((1, 1, 24, 32), dtype=np.uint16)
    stored[0, 0, 6:18, 8:24] = ndimage.gaussian_filter(rng.uniform(10000, 60000, (12, 16)), 1)
    spec = AugmentationSpec(rotation_degrees=40, scale=0.2, shift=0.1, crop=0.2, flip="both")
    maps = Maps.draw(spec, [np.random.default_rng(3)], height=24, width=32)
    swap = np.array([[0, 1], [1, 0]])  # SciPy counts rows first
    middle = np.array([23, 31]) / 2
    turn, offset = swap @ maps.turn[0] @ swap, maps.offset[0][::-1]
    theirs = ndimage.affine_transform(stored[0, 0].astype(float), turn, offset=middle - turn @ middle + offset, order=1)
    ours = maps.pictures(stored)[0, 0] * 65535
    np.testing.assert_allclose(ours[1:-1, 1:-1], theirs[1:-1, 1:-1], atol=25)


def test_masks_and_boxes_go_where_their_image_goes(make_dataset, make_plan):
    data = make_dataset(60, size=48)
    images, masks = np.zeros((60, 1, 48, 48), dtype=np.uint16), np.zeros((60, 48, 48), dtype=np.uint8)
    boxes = np.full((60, 2, 5), -1, dtype=np.float32)
    rng = np.random.default_rng(0)
    for row in range(60):
        top, left = rng.integers(12, 28, 2)
        images[row, 0, top : top + 8, left : left + 6] = 60000 + row  # no two images are alike
        masks[row, top : top + 8, left : left + 6] = 1
        boxes[row, 0] = (0, left / 48, top / 48, (left + 6) / 48, (top + 8) / 48)
    data = replace(data, images=whole(images), parts={"mask": whole(masks), "boxes": whole(boxes)})
    spec = AugmentationSpec(rotation_degrees=20, scale=0.2, shift=0.05, flip="both")
    found = altered(data, spec, make_plan, rows=np.arange(60))
    moved = 0
    for row in range(60):
        bright, mask = found.images[row][0] > 30000, found.parts["mask"][row] == 1
        assert (bright & mask).sum() >= 0.8 * max(bright.sum(), mask.sum())
        y, x = np.nonzero(mask)
        _, left, top, right, bottom = found.parts["boxes"][row][0] * 48
        assert left - 1 <= x.min()
        assert x.max() + 1 <= right + 1
        assert top - 1 <= y.min()
        assert y.max() + 1 <= bottom + 1
        assert (right - left) * (bottom - top) <= 3 * mask.sum()
        moved += int((mask != masks[row]).any())
        assert (found.parts["boxes"][row][1] == -1).all()
    assert moved > 50


def test_a_box_whose_middle_has_left_the_picture_is_dropped():
    away = Maps(turn=np.eye(2)[np.newaxis], offset=np.array([[20.0, 0.0]]), height=32, width=32)
    boxes = np.array([[[1, 0.1, 0.1, 0.5, 0.5], [1, 0.7, 0.1, 0.9, 0.5]]], dtype=np.float32)
    found = away.boxes(boxes)[0]
    assert (found[0] == -1).all()
    np.testing.assert_allclose(found[1], [1, 0.7 - 0.625, 0.1, 0.9 - 0.625, 0.5], atol=1e-6)


def test_brightness_and_contrast_stay_within_what_the_plan_says(make_dataset, make_plan):
    data = make_dataset(6)
    before = data.images[ALL].mean(axis=(1, 2, 3)) / 65535
    brighter = altered(data, AugmentationSpec(brightness=0.1), make_plan).images[:].mean(axis=(1, 2, 3)) / 65535
    assert (np.abs(brighter - before) <= 0.1 + 1e-3).all()
    assert np.abs(brighter - before).max() > 0.02
    spread = altered(data, AugmentationSpec(contrast=0.3), make_plan).images[:].std(axis=(1, 2, 3)) / data.images[ALL].std(axis=(1, 2, 3))
    assert ((spread > 0.69) & (spread < 1.31)).all()
    assert np.ptp(spread) > 0.05


def test_a_restored_image_is_measured_against_its_altered_self(make_dataset, make_plan):
    plan = replace(make_plan(), task=RestorationSpec(kind="restoration", degradation="noise", strength=0.1), augmentation=EVERYTHING)
    data, rows = shown(make_dataset(6), ALL, plan, SECRET)
    (given,), clean = inputs(data, rows, plan), targets(data, rows, plan, "clean")
    assert torch.std(given - clean).item() == pytest.approx(0.1 / plan.input.std, rel=0.05)


def test_noise_of_restoration_does_not_tell_who_else_is_there(make_dataset, make_plan):
    plan = replace(make_plan(), task=RestorationSpec(kind="restoration", degradation="noise", strength=0.1))
    data = make_dataset(6)
    (everybody,), (without,) = inputs(data, ALL, plan), inputs(data.subset(ALL[1:]), ALL[:-1], plan)
    assert torch.equal(everybody[1:], without)


@pytest.mark.parametrize("unit", ["none", "patient"])
def test_training_alters_and_predicting_does_not(make_dataset, make_plan, unit):
    data = make_dataset(images_of=[2, 3, 1, 4, 70])
    privacy = PrivacySpec(unit="none") if unit == "none" else PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=1.0)
    plan = replace(make_plan(), privacy=privacy, training=replace(make_plan().training, batch=4))
    with_it, start = replace(plan, augmentation=EVERYTHING), initial_weights(plan)
    work = LocalWork(steps=1, noise_multiplier=None if unit == "none" else 1.0, order_seed=b"order", noise=UnsafeSeededNoise(b"a" * 32))
    plain, once, again = (train_locally(start, data, each, work).values for each in (plan, with_it, with_it))
    np.testing.assert_array_equal(once, again)
    assert (once != plain).any()
    np.testing.assert_array_equal(predict(start, data, plan), predict(start, data, with_it))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"augmentation": AugmentationSpec()}, "rotation_degrees"),
        ({"augmentation": AugmentationSpec(flip="horizontal"), "laterality": "L"}, "flip"),
        ({"augmentation": AugmentationSpec(flip="both"), "laterality": "R"}, "flip"),
    ],
)
def test_augmentation_that_makes_no_sense_is_refused(make_plan, change, where):
    plan = make_plan()
    plan = replace(plan, augmentation=change["augmentation"], input=replace(plan.input, laterality=change.get("laterality")))
    assert ("augmentation", where) in [rule.where for rule in broken_rules(plan)]


def test_mirroring_upside_down_keeps_the_side(make_plan):
    plan = make_plan()
    plan = replace(plan, augmentation=AugmentationSpec(flip="vertical"), input=replace(plan.input, laterality="L"))
    assert not list(broken_rules(plan))

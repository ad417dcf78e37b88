# SPDX-License-Identifier: Apache-2.0
"""The detector's maps: drawn from true boxes, judged against them, and read back as boxes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.tasks.detection import BOX_VALUES, OVERLAP, PRIOR, Detection, _deviation
from common.tasks.scoring.detection import iou

K, HEIGHT, WIDTH = 2, 12, 16
TASK = Detection(outputs=K + BOX_VALUES, most_boxes=6)
BOXES = [
    [(0, 0.10, 0.20, 0.40, 0.60), (1, 0.60, 0.50, 0.95, 0.90)],
    [(1, 0.00, 0.00, 0.20, 0.25)],
    [],
]


def table(boxes: list[list[tuple[float, ...]]]) -> torch.Tensor:
    array = np.full((len(boxes), TASK.most_boxes, 5), -1.0)
    for row, found in enumerate(boxes):
        for place, box in enumerate(found):
            array[row, place] = box
    return torch.from_numpy(array)


def maps_of(boxes: list[list[tuple[float, ...]]], *, sure: float = 12.0) -> torch.Tensor:
    """What a model would answer that knows: sure of each centre, and nowhere else."""
    maps = np.full((len(boxes), K + BOX_VALUES, HEIGHT, WIDTH), 0.0)
    maps[:, :K] = -sure
    for row, found in enumerate(boxes):
        for kind, left, top, right, bottom in found:
            x, y = (left + right) / 2 * WIDTH, (top + bottom) / 2 * HEIGHT
            cell = row, slice(None), int(y), int(x)
            maps[row, int(kind), int(y), int(x)] = sure
            maps[cell][K:] = (right - left) * WIDTH, (bottom - top) * HEIGHT, x - int(x), y - int(y)
    return torch.from_numpy(maps)


def test_who_knows_the_boxes_loses_nothing_and_draws_them_again() -> None:
    maps, truth = maps_of(BOXES), table(BOXES)
    assert TASK.loss(maps, truth).max() < 1e-4
    found = TASK.predict(maps)
    assert found.shape == (3, 6, 6)
    for row, boxes in enumerate(BOXES):
        drawn = sorted((one[0], *one[2:]) for one in found[row].tolist() if one[1] > 0.5)
        assert np.allclose(np.array(drawn), np.array(sorted(boxes)))


def test_the_loss_is_the_papers_sum_over_cells() -> None:
    """Against loops over boxes, classes and cells."""
    maps, truth = torch.from_numpy(np.random.default_rng(0).normal(size=(3, K + BOX_VALUES, HEIGHT, WIDTH))), table(BOXES)
    for row, boxes in enumerate(BOXES):
        heat, distance = np.zeros((K, HEIGHT, WIDTH)), 0.0
        for kind, left, top, right, bottom in boxes:
            w, h, x, y = (right - left) * WIDTH, (bottom - top) * HEIGHT, (left + right) / 2 * WIDTH, (top + bottom) / 2 * HEIGHT
            column, line = int(x), int(y)
            spread = float(_deviation(torch.tensor([[w, h]], dtype=torch.float64)))
            for i in range(HEIGHT):
                for j in range(WIDTH):
                    bell = np.exp(-((i - line) ** 2 + (j - column) ** 2) / (2 * spread**2))
                    heat[int(kind), i, j] = max(heat[int(kind), i, j], bell)
            sides, offsets = maps[row, K : K + 2, line, column].numpy(), maps[row, K + 2 :, line, column].numpy()
            distance += 0.1 * np.abs(sides - (w, h)).sum() + np.abs(offsets - (x - column, y - line)).sum()
        p = 1 / (1 + np.exp(-(maps[row, :K].numpy() + PRIOR)))
        each = np.where(heat == 1, (1 - p) ** 2 * np.log(p), (1 - heat) ** 4 * p**2 * np.log(1 - p))
        expected = (-each.sum() + distance) / max(1, len(boxes))
        assert TASK.loss(maps, truth)[row].item() == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(width=st.floats(0.5, 60), height=st.floats(0.5, 60))
def test_a_centre_may_be_off_by_the_radius_and_the_boxes_overlap_enough(width: float, height: float) -> None:
    radius = 3 * float(_deviation(torch.tensor([width, height], dtype=torch.float64))) - 0.5
    true = np.array([[0, 0, width, height]])
    worst = [
        true + radius,
        true + np.array([radius, radius, -radius, -radius]),
        true + np.array([-radius, -radius, radius, radius]),
    ]
    overlaps = [iou(true, other)[0, 0] for other in worst]
    assert min(overlaps) == pytest.approx(OVERLAP, abs=1e-6)


def test_no_image_looks_at_another() -> None:
    maps, truth = torch.from_numpy(np.random.default_rng(1).normal(size=(3, K + BOX_VALUES, HEIGHT, WIDTH))), table(BOXES)
    alone = [TASK.loss(maps[i : i + 1], truth[i : i + 1]) for i in range(3)]
    assert torch.allclose(TASK.loss(maps, truth), torch.cat(alone))
    assert torch.equal(TASK.predict(maps), torch.cat([TASK.predict(maps[i : i + 1]) for i in range(3)]))


def test_an_image_without_boxes_has_a_loss_and_nothing_is_drawn_where_nothing_stands_out() -> None:
    maps = torch.zeros(1, K + BOX_VALUES, HEIGHT, WIDTH, requires_grad=True)
    loss = TASK.loss(maps, table([[]]))
    loss.sum().backward()
    assert loss.item() > 0
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()
    assert not maps.grad[:, K:].any()


def test_a_batch_of_nobody_has_no_losses_and_no_boxes() -> None:
    nobody = torch.zeros(0, K + BOX_VALUES, HEIGHT, WIDTH)
    assert TASK.loss(nobody, torch.zeros(0, 6, 5)).shape == (0,)
    assert TASK.predict(nobody).shape == (0, 6, 6)


def test_an_image_with_fewer_peaks_than_boxes_is_filled_up_with_none() -> None:
    maps = maps_of([[(0, 0.3, 0.3, 0.5, 0.5)]])
    maps[0, :K] = torch.where(maps[0, :K] > 0, 3.0, -200.0)  # probability 0, and so no peak
    found = TASK.predict(maps.float())[0]
    assert (found[:, 0] >= 0).sum() == 1
    assert found[1:].tolist() == [[-1, 0, 0, 0, 0, 0]] * 5


def test_two_maps_smaller_than_the_boxes_that_are_kept_still_give_as_many() -> None:
    assert Detection(outputs=5, most_boxes=50).predict(torch.zeros(2, 5, 2, 2)).shape == (2, 50, 6)

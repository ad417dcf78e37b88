# SPDX-License-Identifier: Apache-2.0
"""Images that are seen with their neighbours, for a truth that each has of its own."""

from pathlib import Path

import numpy as np
import pytest

from client.imaging.identity import load_or_create
from client.imaging.index import Item
from client.imaging.intake import DataSource, open_dataset
from client.imaging.parts import neighbours, sequences
from common.errors import LabelsMismatch
from common.plan import ClassificationSpec, Plan, parse
from simulations.made import MadeSpec, write

PLAN = """\
[plan]
name = "volumes"
purpose = "a test"
[input]
modality = "any"
height = 16
width = 16
sequence = 3
[task]
kind = "segmentation"
classes = ["background", "lesion"]
[model]
family = "unet"
widths = [4, 4]
[training]
rounds = 1
local_steps = 1
batch = 2
learning_rate = 0.1
[privacy]
unit = "none"
[aggregation]
"""


def item(patient: str, case: str, position: str) -> Item:
    return Item(
        name=f"{patient}{case}{position}", label=0, patient=patient, site="", split=None, cells={"case": case, "position": position}
    )


def test_each_image_stands_among_those_next_to_it_in_its_own_case() -> None:
    items = [item("a", "1", "2"), item("b", "1", "0"), item("a", "1", "10"), item("a", "2", "0"), item("a", "1", "0.5")]
    rows, around = neighbours(items, 3)
    assert rows == [0, 1, 2, 3, 4]
    assert around.tolist() == [[4, 0, 2], [1, 1, 1], [0, 2, 2], [3, 3, 3], [4, 4, 0]]
    assert around[:, 1].tolist() == rows


def test_a_sequence_is_one_row_and_takes_evenly_many() -> None:
    items = [item("a", "1", str(place)) for place in (4, 3, 2, 1, 0)]
    firsts, chosen = sequences(items, 3, ClassificationSpec(kind="classification", classes=("a", "b")))
    assert firsts == [4]
    assert chosen.tolist() == [[4, 2, 0]]


def test_a_position_that_is_no_number_is_refused_without_being_shown() -> None:
    with pytest.raises(LabelsMismatch, match="'position' is no number") as caught:
        neighbours([item("a", "1", "third")], 3)
    assert "third" not in str(caught.value)


def test_a_volume_comes_in_slice_by_slice_each_with_its_own_mask(tmp_path: Path) -> None:
    write(MadeSpec(kind="vessels", hospitals=1, patients_per_hospital=3, size_px=16), tmp_path / "made")
    plan: Plan = parse(PLAN)
    key = load_or_create(tmp_path / "patient.key")
    data, report = open_dataset(DataSource(root=tmp_path / "made"), plan, cache=tmp_path / "cache", key=key, workers=1)
    assert data.images.shape == (15, 3, 1, 16, 16)
    assert report.used == 15
    images, masks = data.images[:], data.parts["mask"][:]
    assert masks.shape == (15, 16, 16)
    for row in range(15):  # five slices a patient, in their order
        before, after = row - (row % 5 > 0), row + (row % 5 < 4)
        assert np.array_equal(images[row, 0], images[before, 1])
        assert np.array_equal(images[row, 2], images[after, 1])
    inside, outside = images[:, 1, 0][masks == 1], images[:, 1, 0][masks == 0]
    assert inside.mean() > outside.mean() + 5000

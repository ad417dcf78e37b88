# SPDX-License-Identifier: Apache-2.0
"""A federation small enough to be killed a thousand times: pictures that a tiny network can tell apart, of patients who do not exist."""

import csv
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

SIDE: Final = 16
_BAR: Final = slice(3, 13)
_GREY, _NOISE, _CONTRAST = 90, 25, 70
SMALLEST_HIDDEN: Final = 8
_A_UNIT: Final = 130

PLAN: Final = """\
[plan]
name = "toy"
purpose = "a toy federation that is broken on purpose"
[input]
modality = "any"
height = 16
width = 16
[task]
kind = "classification"
classes = ["left", "right"]
[model]
family = "cnn"
widths = [4, 8]
hidden = {hidden}
[training]
rounds = {rounds}
local_steps = 2
batch = 4
learning_rate = 0.2
momentum = 0.5
[privacy]
unit = "patient"
epsilon = 8
delta = 1e-6
clip_norm = 1
images_per_patient = 2
spare_rounds = {spare_rounds}
[aggregation]
minimum_cohort = {minimum_cohort}
deadline_s = {deadline_s}
"""
SIMULATED: Final = """\
[simulation]
sites = {sites}
partition = "iid"
folds = 4
"""


def plan_text(
    *, rounds: int = 3, minimum_cohort: int = 3, spare_rounds: int = 4, deadline_s: int = 60, hidden: int = SMALLEST_HIDDEN
) -> str:
    """The toy plan; hospitals may repeat `spare_rounds` of it after crashes without passing its epsilon."""
    return PLAN.format(rounds=rounds, minimum_cohort=minimum_cohort, spare_rounds=spare_rounds, deadline_s=deadline_s, hidden=hidden)


def hidden_for(parameters: int) -> int:
    """How wide the hidden layer is in a model of about so many parameters: 128 weights enter each unit, with a bias, and one leaves it."""
    return max(SMALLEST_HIDDEN, parameters // _A_UNIT)


def write_pictures(folder: Path, *, patients: int = 40, images_each: int = 2, seed: int = 0) -> Path:
    """An image folder with index.csv, as the intake reads them: a brighter bar on the left or on the right."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images: list[NDArray[np.uint8]] = []
    rows: list[dict[str, int | str]] = []
    for patient in range(patients):
        label = patient % 2
        for _ in range(images_each):
            image = rng.normal(_GREY, _NOISE, (SIDE, SIDE))
            image[_BAR, 10 * label + 1 : 10 * label + 5] += _CONTRAST
            rows.append({"row": len(images), "label": label, "patient_id": f"made {seed}-{patient}"})
            images.append(image.clip(0, 255).astype(np.uint8))
    np.savez(folder / "images.npz", images=np.stack(images))
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder

# SPDX-License-Identifier: Apache-2.0
"""Records without an image: the risk of an event from age, sex, smoking and a marker of the blood.

The marker means the opposite in women and in men, so that it says nothing unless both are seen; the event falls by chance, with the
probability that the risk gives, so that nobody can be right about everyone. One cell in eight is empty.
"""

from pathlib import Path

import numpy as np

from simulations.made.folder import patients, write_index
from simulations.made.spec import MadeSpec

SMOKING = ("never", "former", "current")
_EMPTY = 1 / 8


def write(spec: MadeSpec, folder: Path) -> None:
    """A line for each patient."""
    rows = []
    for patient in patients(spec):
        rng = patient.rng
        age, marker, sex, smoking = rng.normal(60, 12), rng.normal(), int(rng.integers(2)), int(rng.integers(3))
        risk = 1.5 * (age - 60) / 12 + 2.5 * marker * (2 * sex - 1) + 1.5 * (smoking - 1)
        event = int(rng.random() < 1 / (1 + np.exp(-1.5 * risk)))
        cells = {"age": f"{age:.0f}", "sex": "fm"[sex], "smoking": SMOKING[smoking], "marker": f"{2 + marker:.2f}"}
        kept = {name: "" if rng.random() < _EMPTY else cell for name, cell in cells.items()}
        rows.append(patient.row(**kept, label=event))
    write_index(folder, rows)

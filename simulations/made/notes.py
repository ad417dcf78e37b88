# SPDX-License-Identifier: Apache-2.0
"""Short clinical notes: is it pneumonia?

Every note mentions the same signs, found or denied ("fever", "no fever"), in any order and among other words; it is pneumonia if at least
two of the three that count were found. Single words say nothing: only "no" before them does. One note in thirty is empty.
"""

from pathlib import Path

from simulations.made.folder import patients, write_index
from simulations.made.spec import MadeSpec

_COUNT = ("fever", "cough", "crackles")
_OTHER = ("headache", "rash", "nausea")
_OPENINGS = ("seen today", "came by herself", "sent by the family doctor", "brought by relatives", "control after a week")
_EMPTY = 1 / 30


def write(spec: MadeSpec, folder: Path) -> None:
    """A line for each patient."""
    rows = []
    for patient in patients(spec):
        rng, ill = patient.rng, patient.number % 2
        found = set(rng.choice(_COUNT, size=int(rng.integers(2, 4)) if ill else int(rng.integers(2)), replace=False))
        found |= {sign for sign in _OTHER if rng.random() < 0.5}
        signs = [sign if sign in found else f"no {sign}" for sign in rng.permutation(_COUNT + _OTHER).tolist()]
        note = "" if rng.random() < _EMPTY else f"{rng.choice(_OPENINGS).capitalize()}. {', '.join(signs).capitalize()}."
        rows.append(patient.row(text=note, label=ill))
    write_index(folder, rows)

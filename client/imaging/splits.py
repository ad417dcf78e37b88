# SPDX-License-Identifier: Apache-2.0
"""Which patients are for training, which for choosing, which for the final score.

A patient is wholly on one side. An index that names a split is honoured, and refused if it puts one patient on two sides; without one,
the side follows from the patient's key alone, so it is the same on every machine that has the same secret, and adding patients moves
nobody who was there before.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from common.errors import PatientStraddles


class Split(IntEnum):
    """The three sides, as they stand in `Dataset.splits`."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


SPELLINGS = {
    "train": Split.TRAIN, "training": Split.TRAIN,
    "val": Split.VALIDATION, "valid": Split.VALIDATION, "validation": Split.VALIDATION, "dev": Split.VALIDATION,
    "test": Split.TEST, "testing": Split.TEST,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Fractions:
    """Expected shares of patients; what is left is for training."""

    validation: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise ValueError("split fractions: each at least 0, and together below 1")


def split_of(patient_key: str, fractions: Fractions) -> Split:
    """The side of one patient: SHA-256 of the key, read as a number in [0, 1), against the fractions."""
    draw = int.from_bytes(hashlib.sha256(b"fedward split" + patient_key.encode()).digest()[:8], "big") / 2**64
    if draw < fractions.test:
        return Split.TEST
    return Split.VALIDATION if draw < fractions.test + fractions.validation else Split.TRAIN


def check_disjoint(patients: NDArray[np.int32], splits: NDArray[np.int8]) -> None:
    """Shapes: (N,) both. Raises: PatientStraddles, if one patient is on two sides."""
    pairs = np.unique(np.stack([patients.astype(np.int64), splits.astype(np.int64)]), axis=1)
    straddling = pairs.shape[1] - np.unique(patients).size
    if straddling:
        raise PatientStraddles(
            f"splits: {straddling} patients are on more than one side; each patient must be wholly in train, validation or test.",
            fix="Correct the split column so that it is constant for each patient, or leave it out to have patients split here.",
        )

# SPDX-License-Identifier: Apache-2.0
"""How much made data, and how hard: the public facts of one set of phantoms.

Everything else about a set (who has a nodule, which scanner a hospital owns) follows from these numbers and the seed, so two people
who name the same spec hold the same bytes.
"""

from dataclasses import dataclass

import numpy as np

from common.errors import PlanValue

SLICES_STREAM = 3  # keeps these draws apart from those of hospitals and patients
MOST_SLICES = 9

MIN_SIZE_PX = 32
MAX_SIZE_PX = 512
MIN_DIAMETER_MM = 16.0
MAX_DIAMETER_MM = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomSpec:
    """The size of a made federation.

    slices_per_patient: one number for everybody, or the fewest and the most, which patients then differ in. size_px: rows and columns of
    each slice. nodule_diameter_mm: the smallest and largest nodule; smaller is harder.
    Raises: PlanValue, if a number is outside what the anatomy can show.
    """

    hospitals: int = 10
    patients_per_hospital: int = 250
    slices_per_patient: int | tuple[int, int] = 4
    size_px: int = 64
    nodule_diameter_mm: tuple[float, float] = (20.0, 34.0)
    seed: int = 0

    def __post_init__(self) -> None:
        _within("hospitals", self.hospitals, 1, 999)
        _within("patients_per_hospital", self.patients_per_hospital, 2, 99_999)
        fewest, most = self._slices_range
        _within("slices_per_patient", fewest, 1, MOST_SLICES)
        _within("slices_per_patient", most, fewest, MOST_SLICES)
        _within("size_px", self.size_px, MIN_SIZE_PX, MAX_SIZE_PX)
        _within("seed", self.seed, 0, 2**63 - 1)
        smallest, largest = self.nodule_diameter_mm
        _within("nodule_diameter_mm[0]", smallest, MIN_DIAMETER_MM, largest)
        _within("nodule_diameter_mm[1]", largest, smallest, MAX_DIAMETER_MM)

    def slices_of(self, hospital: int, patient: int) -> int:
        """How many slices one patient has; a draw of its own, so that what else is drawn of the patient does not depend on it."""
        fewest, most = self._slices_range
        if fewest == most:
            return fewest
        return int(np.random.default_rng([self.seed, SLICES_STREAM, hospital, patient]).integers(fewest, most + 1))

    @property
    def num_slices(self) -> int:
        """All files of all hospitals."""
        fewest, most = self._slices_range
        if fewest == most:
            return self.hospitals * self.patients_per_hospital * fewest
        return sum(self.slices_of(hospital, patient) for hospital in range(self.hospitals) for patient in range(self.patients_per_hospital))

    @property
    def _slices_range(self) -> tuple[int, int]:
        slices = self.slices_per_patient
        return (slices, slices) if isinstance(slices, int) else slices


def _within(name: str, found: float, low: float, high: float) -> None:
    if not low <= found <= high:
        raise PlanValue(f"phantoms.{name}: found {found}, expected {low} to {high}.", fix=f"Choose a value for {name} in this range.")

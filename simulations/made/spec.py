# SPDX-License-Identifier: Apache-2.0
"""How much made data, and of which kind: the public facts of one set.

Two people who name the same spec hold the same pictures: whatever else a set is follows from these values, patient by patient.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from common.errors import PlanValue

Kind = Literal[
    "cells",
    "tissue",
    "vessels",
    "blood",
    "slices",
    "follow-up",
    "slides",
    "findings",
    "records",
    "notes",
    "pairs",
    "complaints",
    "organs",
    "growths",
]
"""One module each; its docstring says what is to be learnt."""
KINDS: tuple[Kind, ...] = get_args(Kind)
SMALLEST_PX, LARGEST_PX = 16, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeSpec:
    """[simulation.made]. size_px: rows and columns of each picture, where the kind has pictures. Raises: PlanValue."""

    kind: Kind
    hospitals: int = 4
    patients_per_hospital: int = 40
    size_px: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        for name, found, low, high in (
            ("hospitals", self.hospitals, 1, 999),
            ("patients_per_hospital", self.patients_per_hospital, 2, 99_999),
            ("size_px", self.size_px, SMALLEST_PX, LARGEST_PX),
            ("seed", self.seed, 0, 2**63 - 1),
        ):
            if not low <= found <= high:
                raise PlanValue(f"made.{name}: found {found}, expected {low} to {high}.", fix=f"Choose a value for {name} in this range.")

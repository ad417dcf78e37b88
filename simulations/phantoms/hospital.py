# SPDX-License-Identifier: Apache-2.0
"""What makes one hospital's images unlike another's: its scanner, its protocol and the people it sees.

Models that learn at one hospital fail at the next mostly for dull reasons: another reconstruction kernel, more noise on a low-dose
protocol, contrast agent or none, a drifted calibration, a different share of sick patients. A `Hospital` fixes those for one site.
The vendors are made up, but each writes its stored values the way a real one does: unsigned with intercept -1024, signed with
intercept 0, in twelve bits or fourteen, or with a slope that is not 1. Whoever forgets the rescale sees four data sets.
"""

from dataclasses import dataclass

import numpy as np

HOSPITAL_STREAM = 1  # keeps the draws of hospitals apart from those of patients


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """How a manufacturer encodes Hounsfield units: hu = slope * stored + intercept (PS3.3 C.11.1)."""

    manufacturer: str
    model: str
    slope: float
    intercept: float
    signed: bool
    bits_stored: int
    windows: tuple[tuple[int, int], ...]  # (centre, width) in HU


VENDORS = (
    Vendor(
        manufacturer="Alpenglow Imaging", model="Firn 64", slope=1.0, intercept=-1024.0, signed=False, bits_stored=12,
        windows=((-600, 1500),),
    ),
    Vendor(
        manufacturer="BRACKWATER MEDICAL", model="Delta VCT", slope=1.0, intercept=-1024.0, signed=True, bits_stored=16,
        windows=((-700, 1500),),
    ),
    Vendor(
        manufacturer="Cinder & Vale", model="Ember 128", slope=1.0, intercept=0.0, signed=True, bits_stored=16,
        windows=((-500, 1400), (40, 400)),
    ),
    Vendor(
        manufacturer="Dovetail Healthcare", model="Mortise 32", slope=0.5, intercept=-1000.0, signed=False, bits_stored=14,
        windows=((-600, 1600),),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """One site's scanner and patients. Lengths in mm, intensities in HU, shares in 0..1."""

    index: int
    vendor: Vendor
    sharpness: float  # 0: soft tissue kernel, 1: bone kernel
    noise_hu: float
    offset_hu: float
    slice_spacing_mm: float
    contrast_hu: float  # how much brighter blood is than muscle
    girth: float  # mean body size, 1 is the reference adult
    prevalence: float

    @property
    def name(self) -> str:
        """The folder's name, and what `labels.csv` stands under."""
        return f"hospital_{self.index:02d}"

    @property
    def issuer(self) -> str:
        """Who assigns the patient numbers (0010,0021): the same number elsewhere is another person."""
        return f"HOSPITAL-{self.index:02d}"


def draw(seed: int, index: int) -> Hospital:
    """The hospital with this index in the set with this seed; the same arguments give the same hospital."""
    rng = np.random.default_rng([seed, HOSPITAL_STREAM, index])
    return Hospital(
        index=index,
        vendor=VENDORS[index % len(VENDORS)],
        sharpness=float(rng.uniform(0.0, 1.0)),
        noise_hu=float(rng.uniform(12.0, 35.0)),
        offset_hu=float(rng.uniform(-15.0, 15.0)),
        slice_spacing_mm=float(np.round(rng.uniform(2.0, 4.0), 1)),
        contrast_hu=float(rng.choice([0.0, 60.0, 120.0])),
        girth=float(rng.uniform(0.94, 1.06)),
        prevalence=float(rng.uniform(0.4, 0.6)),
    )


def draw_findings(hospital: Hospital, num_patients: int, seed: int) -> tuple[bool, ...]:
    """Who has a nodule, in order of the patient's number: as many as the prevalence says, at least one with and one without."""
    rng = np.random.default_rng([seed, HOSPITAL_STREAM, hospital.index, num_patients])
    sick = int(np.clip(round(hospital.prevalence * num_patients), 1, num_patients - 1))
    return tuple(bool(patient < sick) for patient in rng.permutation(num_patients))

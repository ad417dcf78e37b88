# SPDX-License-Identifier: Apache-2.0
"""One made patient, from the seed to the files: chest, finding, scanner, DICOM.

A pure function of (spec, hospital, patient): any process can make any patient, in any order, and the bytes are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simulations.phantoms import ct_file, findings, scanner, thorax
from simulations.phantoms.canvas import Grid
from simulations.phantoms.findings import Mass
from simulations.phantoms.hospital import Hospital
from simulations.phantoms.spec import PhantomSpec
from simulations.phantoms.thorax import Chest

PATIENT_STREAM = 2  # keeps the draws of patients apart from those of hospitals


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFile:
    """One slice: its file name, its identifier, whether a nodule is to be seen in it, and its bytes."""

    name: str
    sop_instance_uid: str
    label: int
    content: bytes


def make_patient(spec: PhantomSpec, hospital: Hospital, patient: int, *, has_nodule: bool) -> Iterator[LabelledFile]:
    """All slices of one patient, from feet to head; the stack is centred on the finding, or where it would have been."""
    rng = np.random.default_rng([spec.seed, PATIENT_STREAM, hospital.index, patient])
    chest = thorax.draw_chest(rng, hospital, spec.size_px)
    mass = findings.draw_mass(rng, chest, spec.nodule_diameter_mm)
    study = ct_file.draw_study(rng, hospital, spec.seed, patient, chest)
    num_slices = spec.slices_of(hospital.index, patient)
    for index in range(num_slices):
        z_mm = (index - (num_slices - 1) / 2) * hospital.slice_spacing_mm
        draw = _draw_with_nodule if has_nodule else _draw_without_nodule
        hu_YX = scanner.scan(rng, draw(rng, chest, mass, z_mm, spec.size_px), hospital)
        sop_instance_uid, content = ct_file.encode(study, scanner.encode(hu_YX, hospital.vendor), index, z_mm)
        yield LabelledFile(
            name=f"{ct_file.FIRST_PATIENT_NUMBER + patient:06d}_{index + 1}.dcm",
            sop_instance_uid=sop_instance_uid,
            label=int(has_nodule and findings.is_visible(mass, z_mm)),
            content=content,
        )


def _draw_with_nodule(rng: np.random.Generator, chest: Chest, mass: Mass, z_mm: float, size_px: int) -> Grid:
    canvas, lung_YX = thorax.draw_slice(rng, chest, z_mm, size_px)
    findings.paint_nodule(canvas, lung_YX, mass, z_mm)
    return canvas.hu_YX


def _draw_without_nodule(rng: np.random.Generator, chest: Chest, mass: Mass, z_mm: float, size_px: int) -> Grid:
    canvas, lung_YX = thorax.draw_slice(rng, findings.chest_of_twin(chest, mass, z_mm), z_mm, size_px)
    canvas.paint_tubes(findings.twin_vessels(mass, z_mm), mass.hu, lung_YX)
    return canvas.hu_YX

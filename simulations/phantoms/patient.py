# SPDX-License-Identifier: Apache-2.0
"""One made patient, from the seed to the files: chest, finding, scanner, DICOM.

A pure function of (spec, hospital, patient): any process can make any patient, in any order, and the bytes are the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simulations.phantoms import ct_file, findings, scanner, thorax
from simulations.phantoms.hospital import Hospital
from simulations.phantoms.spec import PhantomSpec

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
    study = ct_file.draw_study(rng, hospital, spec.seed, patient, chest.spacing_mm)
    for index in range(spec.slices_per_patient):
        z_mm = (index - (spec.slices_per_patient - 1) / 2) * hospital.slice_spacing_mm
        canvas, lung_YX = thorax.draw_slice(rng, chest, z_mm, spec.size_px)
        visible = has_nodule and findings.paint_nodule(canvas, lung_YX, mass, z_mm)
        if not has_nodule:
            findings.paint_twin(canvas, lung_YX, mass, z_mm)
        stored_YX = scanner.encode(scanner.scan(rng, canvas.hu_YX, hospital), hospital.vendor)
        sop_instance_uid, content = ct_file.encode(study, stored_YX, index, z_mm)
        name = f"{ct_file.FIRST_PATIENT_NUMBER + patient:06d}_{index + 1}.dcm"
        yield LabelledFile(name=name, sop_instance_uid=sop_instance_uid, label=int(visible), content=content)

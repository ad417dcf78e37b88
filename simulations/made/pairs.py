# SPDX-License-Identifier: Apache-2.0
"""CT with MR and a record: a nodule is malignant if two of three say so: hollow in CT, hollow in MR, a high marker.

No source is enough, and two are not always. Three patients in ten have no MR, one in ten no marker.
"""

from pathlib import Path

from simulations.made.folder import IMAGES, patients, write_index, write_picture
from simulations.made.nodules import nodule, tissue
from simulations.made.spec import MadeSpec

_NO_SECOND, _NO_MARKER = 0.3, 0.1


def write(spec: MadeSpec, folder: Path) -> None:
    """A picture, mostly a second one, and a record for each patient."""
    rows, size = [], spec.size_px
    for patient in patients(spec):
        rng = patient.rng
        says = rng.random(3) < 0.5
        centre, radius = tuple(rng.uniform(0.4, 0.6, 2) * size), rng.uniform(0.2, 0.26) * size
        paths = []
        for place, name in enumerate(("ct", "mr")):
            scene = tissue(size, rng) + rng.uniform(0.2, 0.35) * nodule(size, centre, radius, hollow=bool(says[place]))
            paths.append((f"{IMAGES}/{patient.number:06}_{name}.png", patient.camera.picture(scene, rng)))
        has_second, has_marker = rng.random() >= _NO_SECOND, rng.random() >= _NO_MARKER
        rows.append(
            patient.row(
                file=write_picture(folder, *paths[0]),
                second_file=write_picture(folder, *paths[1]) if has_second else "",
                age=f"{rng.normal(60, 12):.0f}",
                marker=f"{5 + 2 * (2 * int(says[2]) - 1) + 0.7 * rng.standard_normal():.2f}" if has_marker else "",
                label=int(says.sum() >= 2),
            )
        )
    write_index(folder, rows)

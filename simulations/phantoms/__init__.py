# SPDX-License-Identifier: Apache-2.0
"""Made DICOM: chest CT of people who do not exist, so that a newcomer can run a federation without anyone's data.

    PhantomSpec -> Hospital -> Chest -> Canvas (HU) -> scanner -> stored values -> DICOM file

Each hospital has its own scanner, kernel, noise, calibration and share of sick patients (`hospital`); each patient an own chest
(`thorax`) and either a nodule or its twin, the same tissue shaped as vessels (`findings`), seen through the scanner (`scanner`) in
several neighbouring slices. A model must learn what a nodule looks like: brightness alone says next to nothing.

Good for: showing and testing the whole way from a file to a model. Not good for: any claim about medicine. A figure measured here
says that the machinery learns, not that it would find anything in a person.
"""

from simulations.phantoms.folder import write
from simulations.phantoms.spec import PhantomSpec

__all__ = ["PhantomSpec", "write"]

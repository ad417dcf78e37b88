# SPDX-License-Identifier: Apache-2.0
"""Whom the promise is about: the training units of a data set, each with the rows that are its.

With `unit = "patient"` a unit is everything that a site holds of one patient; with "record" it is one image, and a patient of m images is
m units, whose guarantee is about m times weaker. How many units there are is what a site's noise is calibrated with; it stays here.

    N  images      U  units
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from common.errors import NoPatientId
from common.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Units:
    """`rows` (N,) of a data set, those of one unit side by side; unit u has rows[starts[u] : starts[u + 1]], `starts` (U + 1,)."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many images each unit has, (U,)."""
        return np.diff(self.starts)

    def rows_of(self, unit: int) -> NDArray[np.int64]:
        """The rows of one unit."""
        return self.rows[self.starts[unit] : self.starts[unit + 1]]


def units_of(data: Dataset, plan: Plan) -> Units:
    """The units of a plan in a data set; records, if the plan promises nothing.

    Raises: NoPatientId, if the plan promises privacy to patients and the data do not say who is one.
    """
    if plan.privacy.unit != "patient":
        return Units(rows=np.arange(len(data)), starts=np.arange(len(data) + 1))
    if data.unit_source in ("none", "image_id"):
        found = "carry no patient id" if data.unit_source == "none" else "are named one by one, not by patient"
        raise NoPatientId(
            f"plan '{plan.name}' promises privacy to patients, and these images {found}: one patient's could not be told from another's.",
            fix='Give a patient id with every image, or set [privacy] unit = "record", which protects single images only.',
        )
    sizes = np.unique(data.patients, return_counts=True)[1]
    return Units(rows=np.argsort(data.patients, kind="stable"), starts=np.concatenate([[0], np.cumsum(sizes)]))

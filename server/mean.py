# SPDX-License-Identifier: Apache-2.0
"""The mean of a cohort's deltas, in constant memory and to the last bit the same.

Floating-point sums depend on their order, and replies come in any. So deltas are summed in the order of site names, in float64; one
that comes before its turn waits.
"""

from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from common.errors import CohortTooSmall
from common.update import AggregateDelta, ReleasedDelta


class RunningMean:
    """A sum that grows in the order of names. With sites asked in that order only a handful of deltas ever wait, whatever the cohort."""

    def __init__(self, cohort: Iterable[str]) -> None:
        self._turns = deque(sorted(cohort))
        self._waiting: dict[str, ReleasedDelta | None] = {}
        self._total: NDArray[np.float64] | None = None
        self.num_sites = 0

    def add(self, site: str, update: ReleasedDelta | None) -> None:
        """Take a site's delta, or note that it will not come."""
        self._waiting[site] = update
        while self._turns and self._turns[0] in self._waiting:
            self._sum(self._waiting.pop(self._turns.popleft()))

    def finish(self) -> AggregateDelta:
        """The mean of all that came, whoever is still missing. Raises: CohortTooSmall, if nobody came."""
        for site in sorted(self._waiting):
            self._sum(self._waiting.pop(site))
        self._turns.clear()
        if self._total is None:
            raise CohortTooSmall("no site answered.", fix="Start at least minimum_cohort sites.")
        return AggregateDelta(values=(self._total / self.num_sites).astype(np.float32), num_sites=self.num_sites)

    def _sum(self, update: ReleasedDelta | None) -> None:
        if update is None:
            return
        if self._total is None:
            self._total = update.values.astype(np.float64)
        else:
            self._total += update.values
        self.num_sites += 1


def mean_of(updates: Mapping[str, ReleasedDelta]) -> AggregateDelta:
    """The mean of deltas that are all there."""
    mean = RunningMean(updates)
    for site, update in updates.items():
        mean.add(site, update)
    return mean.finish()

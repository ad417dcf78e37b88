# SPDX-License-Identifier: Apache-2.0
"""Large cohorts as groups, and what a coordinator may do with the groups' means.

Above the plan's `max_group` a cohort is split into groups, each an FSA1 instance of its own with its own threshold. Who is with whom
follows from the roster alone: sites are ordered by a digest of the roster's epoch and their name, and cut into equal parts. A
coordinator can neither choose nor retry it, and every site computes its own group.

With the plan's consent the groups' means may be combined by a coordinate-wise median or trimmed mean (Yin et al. 2018,
https://arxiv.org/abs/1803.01498), which fewer than half bad groups cannot drag away. The price is disclosure: the coordinator then
sees each group's sum instead of the whole cohort's, so the group is what an update hides in.

    >>> [len(group) for group in partition([f"s{i}" for i in range(10)], epoch=1, max_group=4)]
    [4, 3, 3]
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from common import canonical
from common.errors import CohortTooSmall


def partition(site_ids: Sequence[str], *, epoch: int, max_group: int) -> tuple[frozenset[str], ...]:
    """Disjoint groups of at most `max_group` that cover all sites and differ in size by one at most."""
    ordered = sorted(site_ids, key=lambda site_id: canonical.digest(b"FSA1 group", epoch.to_bytes(8, "big"), site_id.encode()))
    count = max(1, math.ceil(len(ordered) / max_group))
    return tuple(frozenset(ordered[len(ordered) * i // count : len(ordered) * (i + 1) // count]) for i in reversed(range(count)))


def group_of(site_id: str, site_ids: Sequence[str], *, epoch: int, max_group: int) -> frozenset[str]:
    """The group that a site belongs to: what its terms name as `members`."""
    return next(group for group in partition(site_ids, epoch=epoch, max_group=max_group) if site_id in group)


def weighted_mean(means: Sequence[NDArray[np.float32]], weights: Sequence[int]) -> NDArray[np.float32]:
    """The mean over all sites from the means over groups. Shapes: each (d,), result (d,)."""
    total = sum(np.asarray(mean, dtype=np.float64) * weight for mean, weight in zip(means, weights, strict=True))
    return np.asarray(total / sum(weights), dtype=np.float32)


def median(means: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Coordinate-wise median: robust to fewer than half bad groups. Shapes: each (d,), result (d,)."""
    return np.median(np.stack(means), axis=0).astype(np.float32)


def trimmed_mean(means: Sequence[NDArray[np.float32]], *, trim: int) -> NDArray[np.float32]:
    """Coordinate-wise mean without the `trim` lowest and `trim` highest: robust to that many bad groups.

    Raises: CohortTooSmall when nothing would be left.
    """
    if len(means) <= 2 * trim:
        raise CohortTooSmall(
            f"{len(means)} groups reported, a mean that drops {trim} on each side needs {2 * trim + 1}.", fix="Wait for more groups."
        )
    ordered = np.sort(np.stack(means), axis=0)
    return np.asarray(ordered[trim : len(means) - trim].mean(axis=0, dtype=np.float64), dtype=np.float32)

# SPDX-License-Identifier: Apache-2.0
"""From the groups' sums to the round's mean delta, by the plan's choice.

One group: its mean. More: the mean over all their sites, or a coordinate-wise median or trimmed mean over the groups' means, which fewer
than half, or a quarter, of bad groups cannot drag away (`common.secagg.groups`, with its price).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import CohortTooSmall
from common.plan import AggregationSpec
from common.plan.round_rules import FEWEST_GROUPS
from common.secagg import groups, quantise
from common.secagg.quantise import Grid
from common.update import AggregateDelta, Words


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSum:
    """The integer sum over a group's survivors. Shapes: words (P,)."""

    words: Words
    total_weight: int
    sites: tuple[str, ...]


def total(words: Sequence[Words], grid: Grid) -> tuple[int, ...]:
    """Whole numbers, added up over groups: what noised counts need, which are never averaged. Shapes: each (n,), result n long."""
    added = np.stack([each.view(grid.signed_word) for each in words]).sum(axis=0, dtype=np.int64)
    return tuple(int(cell) for cell in added)


def combine(sums: Sequence[GroupSum], grid: Grid, spec: AggregationSpec) -> AggregateDelta:
    """Raises: CohortTooSmall, with fewer groups than the plan's choice needs."""
    num_sites = sum(len(each.sites) for each in sums)
    means = [quantise.mean(each.words, grid, total_weight=each.total_weight) for each in sums]
    if spec.combine != "mean" and len(means) < FEWEST_GROUPS:
        raise CohortTooSmall(
            f"{len(means)} groups reported, a {spec.combine} over groups needs {FEWEST_GROUPS}.",
            fix='Enrol more sites or lower the plan\'s max_group; or set combine = "mean".',
        )
    match spec.combine:
        case "median":
            values = groups.median(means)
        case "trimmed":
            values = groups.trimmed_mean(means, trim=max(1, len(means) // 4))
        case "mean":
            values = means[0] if len(means) == 1 else groups.weighted_mean(means, [each.total_weight for each in sums])
    return AggregateDelta(values=values, num_sites=num_sites)

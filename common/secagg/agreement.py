# SPDX-License-Identifier: Apache-2.0
"""From a plan and a roster to the protocol's terms: computed by each party for itself, never received.

The quantiser's range is the plan's bound on a whole update, so no coordinate of a clipped delta is ever cut off, and its error is at most
half of update_norm / (2^(bits-1) - 1). How far a model may move in a round follows from the same bound:

    mean of the deltas             C
    median of k groups' means      sqrt(2) C    half of the groups are at least as far out as the median, in every coordinate
    mean of the inner half         sqrt(2) C    a square of a mean is at most the mean of squares; half of k remain

and with server momentum b and learning rate l, l / (1 - b) times that.

    >>> step_limit("median", 10.0, learning_rate=1.0, momentum=0.5)
    28.284271247461902
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from common.plan import Plan, digest_of
from common.roster import Roster
from common.secagg import groups
from common.secagg.quantise import Grid
from common.secagg.terms import Terms
from common.update import Weights


def grid_of(plan: Plan, roster: Roster) -> Grid:
    """The lattice that updates of this plan lie on."""
    spec = plan.aggregation
    heaviest = max((member.weight for member in roster.members), default=1)
    finest = Grid.for_cohort(spec.max_group, coordinate_range=spec.update_norm, max_weight=heaviest)
    return finest if spec.bits is None else replace(finest, bits=min(spec.bits, finest.bits))


def groups_of(plan: Plan, roster: Roster) -> tuple[frozenset[str], ...]:
    """The groups of a plan's enrolled sites; one, unless there are more than max_group."""
    return groups.partition(_enrolled(roster), epoch=roster.epoch, max_group=plan.aggregation.max_group)


def terms_of(plan: Plan, initial: Weights, roster: Roster, group: frozenset[str]) -> Terms:
    """What the sites of one group have agreed to."""
    spec, training, grid = plan.aggregation, plan.training, grid_of(plan, roster)
    longest = grid.norm_limit(spec.update_norm, initial.layout.size)
    return Terms(
        plan=bytes.fromhex(digest_of(plan)),
        layout=initial.layout.digest,
        num_values=initial.layout.size,
        initial_model=initial.digest,
        members=group,
        grid=grid,
        max_norm=spec.update_norm,
        step_norm=step_limit(spec.combine, longest, learning_rate=training.server_learning_rate, momentum=training.server_momentum),
        max_cohort=spec.max_group,
        max_rounds=training.rounds,
        min_cohort=spec.minimum_cohort,
    )


def group_around(site_id: str, plan: Plan, roster: Roster) -> frozenset[str]:
    """The group of one site; only itself, for a site that the roster does not name: every cohort is then refused."""
    return next((group for group in groups_of(plan, roster) if site_id in group), frozenset({site_id}))


def step_limit(combine: str, update_norm: float, *, learning_rate: float, momentum: float) -> float:
    """How far one round can move the model at most."""
    spread = 1.0 if combine == "mean" else math.sqrt(2)
    return spread * update_norm * learning_rate / (1 - momentum)


def _enrolled(roster: Roster) -> Sequence[str]:
    return [member.site_id for member in roster.members if not member.revoked]

# SPDX-License-Identifier: Apache-2.0
"""From a plan and a roster to the protocol's terms: computed by each party for itself, never received.

In words of 32 bits the quantiser's range is the plan's bound on a whole update, so no coordinate of a clipped delta is ever cut off, and
its error is at most half of update_norm / (2^(bits-1) - 1). Words of 16 bits have 16 - ceil(log2 max_group) left for one site, too few to
span a whole update's norm in every coordinate: there the range is the plan's coordinate_range, and the error, right on average, below one
step of it. With distributed noise updates lie on the noise's own lattice already, and the bound on one is what its draw and its noise can
reach. How far a model may move in a round follows from the same bound:

    mean of the deltas             C
    median of k groups' means      sqrt(2) C    half of the groups are at least as far out as the median, in every coordinate
    mean of the inner half         sqrt(2) C    a square of a mean is at most the mean of squares; half of k remain

Under fedavgm with server momentum b and learning rate l it is l / (1 - b) times that; so it is under fedsgd with SGD. Adam divides by what
its gradients were, so there every coordinate moves by at most l (1 - b1) / sqrt((1 - b2) (1 - b1^2 / b2)), by Cauchy's inequality over its
memory: 7.3 l. Weight decay adds l * decay * |w|, and |w| is at most where it began and what all rounds can add.

    >>> round(ADAM_STEP, 2)
    7.27
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from common.counting import forms_of
from common.errors import RosterFormat, UnknownVersion
from common.plan import Plan, digest_of
from common.plan.spec import ADAM_FIRST, ADAM_SECOND
from common.privacy.lattice import lattice_of, longest_share
from common.roster import Roster
from common.secagg import groups, terms
from common.secagg.quantise import Grid
from common.secagg.terms import Terms
from common.update import Weights

ADAM_STEP: Final = (1 - ADAM_FIRST) / math.sqrt((1 - ADAM_SECOND) * (1 - ADAM_FIRST**2 / ADAM_SECOND))
"""How many learning rates Adam moves a coordinate at most."""
_RING_BITS: Final = 32


def grid_of(plan: Plan, roster: Roster) -> Grid:
    """The lattice that updates of this plan lie on. Raises: RosterFormat, if sites that share noise are weighted."""
    if plan.shares_noise:
        return _noise_grid(plan, roster)
    spec = plan.aggregation
    heaviest = max((member.weight for member in roster.members), default=1)
    finest = Grid.for_cohort(
        spec.max_group, coordinate_range=spec.coordinate_range or spec.update_norm, ring_bits=spec.word_bits, max_weight=heaviest
    )
    return finest if spec.bits is None else replace(finest, bits=min(spec.bits, finest.bits))


def groups_of(plan: Plan, roster: Roster) -> tuple[frozenset[str], ...]:
    """The groups of a plan's enrolled sites; one, unless there are more than max_group."""
    return groups.partition(_enrolled(roster), epoch=roster.epoch, max_group=plan.aggregation.max_group)


def terms_of(plan: Plan, initial: Weights, roster: Roster, group: frozenset[str]) -> Terms:
    """What the sites of one group have agreed to. Raises: UnknownVersion, where the plan's version is not spoken here."""
    _check_spoken(plan)
    spec, grid = plan.aggregation, grid_of(plan, roster)
    longest = longest_share(plan, initial.layout.size) if plan.shares_noise else spec.update_norm
    return Terms(
        plan=bytes.fromhex(digest_of(plan)),
        layout=initial.layout.digest,
        num_values=initial.layout.size,
        model_layout=initial.layout.digest,
        model_size=initial.layout.size,
        initial_model=initial.digest,
        members=group,
        grid=grid,
        max_norm=longest,
        step_norm=step_limit(plan, grid.norm_limit(longest, initial.layout.size), initial),
        max_cohort=spec.max_group,
        rounds=range(1, plan.training.rounds + 1),
        min_cohort=spec.minimum_cohort,
        noise_quorum=plan.noise_quorum,
        versions=frozenset({spec.protocol}),
    )


def terms_beside(updates: Terms, plan: Plan) -> tuple[Terms, ...]:
    """The terms of what a plan counts beside updates: the same sites, models and quorums; other vectors, other rounds.

    Raises: EpsilonImpossible.
    """
    return tuple(
        replace(
            updates,
            kind=form.kind,
            layout=form.layout,
            num_values=len(form.cells),
            grid=form.grid,
            max_norm=form.max_norm,
            rounds=form.rounds,
        )
        for form in forms_of(plan)
    )


def group_around(site_id: str, plan: Plan, roster: Roster) -> frozenset[str]:
    """The group of one site; only itself, for a site that the roster does not name: every cohort is then refused."""
    return next((group for group in groups_of(plan, roster) if site_id in group), frozenset({site_id}))


def step_limit(plan: Plan, longest: float, initial: Weights) -> float:
    """How far one round can move the model at most, when one update is no longer than `longest` (L2)."""
    training = plan.training
    spread = 1.0 if plan.aggregation.combine == "mean" else math.sqrt(2)
    match training.strategy:
        case "fedavg":
            return spread * longest
        case "fedavgm":
            return spread * longest * training.server_learning_rate / (1 - training.server_momentum)
        case "fedsgd":
            adam = training.optimiser == "adam"
            direction = ADAM_STEP * math.sqrt(initial.layout.size) if adam else spread * longest / (1 - training.momentum)
            step = training.learning_rate * direction
            furthest = float(np.linalg.norm(initial.values)) + training.rounds * step
            return step + training.learning_rate * training.weight_decay * furthest


def _check_spoken(plan: Plan) -> None:
    asked = plan.aggregation.protocol
    if asked not in terms.SPOKEN:
        raise UnknownVersion(
            f"plan '{plan.name}' holds its rounds in version {asked} of secure aggregation, spoken here: {sorted(terms.SPOKEN)}.",
            fix="Bring this machine to a version of fedward that speaks it; the plan and everything approved stay as they are.",
        )


def _noise_grid(plan: Plan, roster: Roster) -> Grid:
    """The noise's lattice, in units of a site's mean gradient: whole numbers enter the ring as they are."""
    heavy = [member.site_id for member in roster.members if member.weight != 1]
    if heavy:
        raise RosterFormat(
            f"site '{heavy[0]}' has a weight other than 1; weights would scale its share of the noise.",
            fix='Enrol all sites with weight 1, or set [privacy] noise = "local".',
        )
    bits = _RING_BITS - (plan.aggregation.max_group - 1).bit_length()
    unit = Grid(ring_bits=_RING_BITS, bits=bits, coordinate_range=1.0)
    return replace(unit, coordinate_range=lattice_of(plan).step / plan.training.batch * unit.largest)


def _enrolled(roster: Roster) -> Sequence[str]:
    return [member.site_id for member in roster.members if not member.revoked]

# SPDX-License-Identifier: Apache-2.0
"""The integers on which clipped gradients are summed and noised.

A unit's clipped gradient is truncated towards zero to multiples of `step`, which cannot lengthen it; units are summed exactly, in int64;
noise is an integer too. What comes out lies on a grid that no patient's data has moved, so there are no floating-point gaps to read
(Mironov 2012; Jin et al. 2021, https://arxiv.org/abs/2112.05307).

    step = C / 2^fineness        one unit is at most 2^fineness steps long

With local noise the lattice is as fine as float32 gradients are worth. With distributed noise the integers themselves enter the ring of
secure aggregation, so it is the finest of which a group's sum cannot wrap: a draw has at most `most_drawn` units, but for a chance of
2^-100, and a share of noise is within 14 standard deviations. A plan is refused where shares are so narrow that their sum is not, to the
ninth digit of epsilon, the Gaussian that is charged (`discrete.py`).
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from common.errors import PlanConflict
from common.plan import Plan
from common.privacy.calibration import LEAST_NOISE, calibrate
from common.privacy.counts import events_beside_training
from common.privacy.discrete import charged_as, log_ratio
from common.privacy.events import sampling_rate

FINEST: Final = 16
COARSEST: Final = 8
RING_HALF: Final = 2**31
_TAIL: Final = 14.0
"""Standard deviations: P(|Z| > 14) < 2^-140, so that 2^28 coordinates stay within together."""
_LOG_CHANCE: Final = 100 * math.log(2)
_MOST_OVER_PUBLIC: Final = 1.25
"""A public count is more than four fifths of the true one."""
_MOST_VALUES: Final = 2**28
_NEGLIGIBLE: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Multiples of C / 2^fineness, C the clip norm."""

    clip_norm: float
    fineness: int

    @property
    def clip_steps(self) -> int:
        """The clip norm, counted in steps."""
        return 1 << self.fineness

    @property
    def step(self) -> float:
        """The width of the lattice, in the gradient's units."""
        return self.clip_norm / self.clip_steps


def plan_noise(plan: Plan) -> float:
    """sigma of a plan with distributed noise, for the sum over a noise quorum: what its smallest site needs. Raises: EpsilonImpossible."""
    privacy, training = plan.privacy, plan.training
    assert plan.shares_noise
    assert privacy.minimum_patients is not None
    assert privacy.epsilon is not None
    assert privacy.delta is not None
    rate = sampling_rate(batch=training.batch, units=privacy.minimum_patients)
    rounds = training.rounds + privacy.spare_rounds
    return calibrate(privacy.epsilon, privacy.delta, rate, rounds, beside=events_beside_training(plan))


def share_of_noise(plan: Plan) -> float:
    """The noise multiplier of one site's share: sigma / sqrt(m - c). Raises: EpsilonImpossible."""
    return plan_noise(plan) / math.sqrt(plan.noise_quorum - plan.privacy.colluders)


def most_drawn(batch: int) -> int:
    """Units that one draw holds at most, but for a chance of 2^-100 (Bernstein's inequality, Poisson sampling of mean 1.25 batch).

    >>> most_drawn(64)
    211
    """
    mean = _MOST_OVER_PUBLIC * batch
    third = _LOG_CHANCE / 3
    return math.ceil(mean + third + math.sqrt(third * third + 2 * _LOG_CHANCE * mean))


@lru_cache(maxsize=64)
def lattice_of(plan: Plan) -> Lattice:
    """The lattice of a private plan. Raises: EpsilonImpossible; PlanConflict, if no lattice is fine enough for this plan's cohort."""
    assert plan.privacy.clip_norm is not None
    fineness = _shared_fineness(plan) if plan.shares_noise else FINEST
    lattice = Lattice(clip_norm=plan.privacy.clip_norm, fineness=fineness)
    if (excess := lattice_excess(plan, lattice)) >= _NEGLIGIBLE:
        width = math.sqrt(_least_variance(plan, lattice))
        raise PlanConflict(
            f"one site's noise is only {width:.3g} steps of the lattice wide, and the sum of the shares "
            f"could cost {excess:.1g} times epsilon more than the Gaussian that is charged, expected below {_NEGLIGIBLE:g}.",
            fix="Lower max_group, batch or noise_quorum, or ask for a smaller epsilon.",
        )
    return lattice


def lattice_excess(plan: Plan, lattice: Lattice) -> float:
    """How much more than epsilon all rounds may cost because noise is discrete, and shared noise a sum: a bound, relative to epsilon.

    Every outcome of a step is as likely as under the mechanism that is charged but for a factor, over all steps and 2^28 coordinates; twice
    the factor's logarithm is added to epsilon at most.
    """
    assert plan.privacy.epsilon is not None
    steps = (plan.training.rounds + plan.privacy.spare_rounds) * (plan.training.local_steps or 1)
    shares = plan.noise_quorum - plan.privacy.colluders if plan.shares_noise else 1
    return 2 * steps * _MOST_VALUES * log_ratio(_least_variance(plan, lattice), shares) / plan.privacy.epsilon


def _least_variance(plan: Plan, lattice: Lattice) -> float:
    """The least variance that one site draws, in steps^2."""
    return float(charged_as(share_of_noise(plan) if plan.shares_noise else LEAST_NOISE, lattice.clip_steps))


def _shared_fineness(plan: Plan) -> int:
    clips = plan.aggregation.max_group * (most_drawn(plan.training.batch) + _TAIL * share_of_noise(plan))
    fineness = min(FINEST, math.floor(math.log2(RING_HALF / clips)))
    if fineness < COARSEST:
        raise PlanConflict(
            f"with max_group {plan.aggregation.max_group} and batch {plan.training.batch} a clip norm would be {2.0**fineness:.3g} steps "
            f"of the lattice, expected at least {1 << COARSEST}.",
            fix="Lower max_group or batch, or ask for a larger epsilon.",
        )
    return fineness


def longest_share(plan: Plan, num_values: int) -> float:
    """The L2 norm that a site's noised mean gradient has at most, but for a chance of 2^-99: (draw + noise) * C / batch.

    The norm of d standard Gaussians is above sqrt(d) + sqrt(2 t) with a chance of at most exp(-t) (Laurent and Massart 2000, lemma 1).
    """
    assert plan.privacy.clip_norm is not None
    noise = share_of_noise(plan) * (math.sqrt(num_values) + math.sqrt(2 * _LOG_CHANCE))
    return (most_drawn(plan.training.batch) + noise) * plan.privacy.clip_norm / plan.training.batch

# SPDX-License-Identifier: Apache-2.0
"""What other rounds, batches or noise would cost at the hospital for which the plan costs most.

Two questions, for each neighbour of the plan: with the noise as it is, what would epsilon be; and to keep epsilon as it is, how much noise
would it take, and how much of that is left on a step's mean gradient? More rounds cost noise on each step and give more steps; larger
batches cost noise too, and divide it among more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from common.errors import EpsilonImpossible, PlanConflict, TooFewPatients
from common.plan import Plan
from common.privacy import Charge, lattice_of, round_charge
from simulations.planner.forecast import ModeForecast, relative_noise, spent

FACTORS: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
NOISE_FACTORS: Final = (0.5, 0.75, 1.0, 1.5, 2.0)
POINTS: Final = 40
"""Of a curve over the rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The plan with another number of rounds, or another batch.

    `epsilon`: with the plan's noise; `noise`: what keeps the plan's epsilon, None where nothing does; `relative_noise`: what that leaves.
    """

    value: int
    epsilon: float
    noise: float | None
    relative_noise: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternatives:
    """`rounds_so_far`: (round, epsilon, own share); `noises`: (noise multiplier, epsilon)."""

    rounds: tuple[Alternative, ...]
    batches: tuple[Alternative, ...]
    noises: tuple[tuple[float, float], ...]
    rounds_so_far: tuple[tuple[int, float, float], ...]


def alternatives(found: ModeForecast) -> Alternatives | None:
    """Around this plan, at the hospital where epsilon is highest; None if no hospital takes part."""
    if not found.costs:
        return None
    plan, charge = found.plan, max(found.costs, key=lambda cost: cost.epsilon).charge
    return Alternatives(
        rounds=tuple(_with_rounds(plan, charge, found.units)),
        batches=tuple(_with_batches(plan, charge, found.units)),
        noises=tuple(_with_noise(plan, charge)),
        rounds_so_far=tuple(_so_far(plan, charge)),
    )


def _with_rounds(plan: Plan, charge: Charge, units: Sequence[int]) -> Iterator[Alternative]:
    for rounds in _around(plan.training.rounds):
        other = replace(plan, training=replace(plan.training, rounds=rounds))
        yield _alternative(other, rounds, spent(other, charge, rounds=rounds)[0], units)


def _with_batches(plan: Plan, charge: Charge, units: Sequence[int]) -> Iterator[Alternative]:
    for batch in _around(plan.training.batch):
        rate = charge.outside.sampling_rate * batch / plan.training.batch
        if rate <= 1:
            other = replace(plan, training=replace(plan.training, batch=batch))
            drawn = Charge.local(replace(charge.outside, sampling_rate=rate))
            yield _alternative(other, batch, spent(other, drawn, rounds=plan.training.rounds)[0], units)


def _alternative(other: Plan, value: int, epsilon: float, units: Sequence[int]) -> Alternative:
    try:
        lattice_of(other)
        charges = [round_charge(other, count) for count in units]
    except (EpsilonImpossible, TooFewPatients, PlanConflict):
        return Alternative(value=value, epsilon=epsilon, noise=None, relative_noise=None)
    most = max(charge.outside.noise_multiplier for charge in charges)
    return Alternative(value=value, epsilon=epsilon, noise=most, relative_noise=relative_noise(other, charges))


def _with_noise(plan: Plan, charge: Charge) -> Iterator[tuple[float, float]]:
    for factor in NOISE_FACTORS:
        noise = factor * charge.outside.noise_multiplier
        noised = Charge.local(replace(charge.outside, noise_multiplier=noise))
        yield noise, spent(plan, noised, rounds=plan.training.rounds)[0]


def _so_far(plan: Plan, charge: Charge) -> Iterator[tuple[int, float, float]]:
    last = plan.training.rounds
    for rounds in sorted({max(1, round(last * point / POINTS)) for point in range(POINTS + 1)}):
        yield rounds, *spent(plan, charge, rounds=rounds)


def _around(value: int) -> list[int]:
    return sorted({max(1, round(factor * value)) for factor in FACTORS})

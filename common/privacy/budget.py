# SPDX-License-Identifier: Apache-2.0
"""What one round of a plan costs at a site of a given size.

Noise is calibrated so that all rounds together, the plan's spare ones, and what it releases beside updates (`counts`), cost its epsilon.
With local noise each site calibrates its own: the larger the site, the smaller its sampling rate and the less noise it needs. With
distributed noise sigma is the plan's, enough for its smallest site, and each site adds a share of variance sigma^2 / (m - c), m the noise
quorum and c the assumed colluders.

A pure function of public numbers and the site's own count, so that a simulator or a planner can know beforehand what a site will find.
"""

from common.errors import TooFewPatients
from common.plan import Plan
from common.privacy.accountant import epsilon
from common.privacy.calibration import calibrate
from common.privacy.counts import charges_beside_training, events_beside_training
from common.privacy.events import Charge, Event, public_count, sampling_rate
from common.privacy.lattice import plan_noise, share_of_noise


def round_charge(plan: Plan, units: int) -> Charge:
    """What one round of a private plan costs, with `units` training units at the site.

    Raises: TooFewPatients, if the site is smaller than the batch or the plan's minimum; EpsilonImpossible, if no noise is enough.
    """
    privacy, training = plan.privacy, plan.training
    assert training.local_steps is not None, "a private plan without local_steps does not parse"
    assert privacy.epsilon is not None
    assert privacy.delta is not None
    rate = sampling_rate(batch=training.batch, units=units)
    if not plan.shares_noise:
        steps = (training.rounds + privacy.spare_rounds) * training.local_steps
        noise = calibrate(privacy.epsilon, privacy.delta, rate, steps, beside=events_beside_training(plan))
        return Charge.local(Event(sampling_rate=rate, noise_multiplier=noise, steps=training.local_steps))
    assert privacy.minimum_patients is not None
    if public_count(units) < public_count(privacy.minimum_patients):
        raise TooFewPatients(
            f"{public_count(units)} training patients here (rounded down); this plan's shared noise is enough for "
            f"{privacy.minimum_patients} or more.",
            fix='Let this site leave the plan, lower its [privacy] minimum_patients for all, or set noise = "local".',
        )
    return Charge(
        outside=Event(sampling_rate=rate, noise_multiplier=plan_noise(plan), steps=1),
        own_share=Event(sampling_rate=rate, noise_multiplier=share_of_noise(plan), steps=1),
    )


def plan_charge(plan: Plan, units: int) -> Charge:
    """What all rounds of training cost together, spare ones included, without `charges_beside_training`. Raises: as `round_charge`."""
    return round_charge(plan, units).times(plan.training.rounds + plan.privacy.spare_rounds)


def own_share_epsilon(plan: Plan) -> float | None:
    """What the smallest site of a plan with distributed noise is left with if more sites collude than the plan assumes; else None."""
    if not plan.shares_noise:
        return None
    assert plan.privacy.minimum_patients is not None
    assert plan.privacy.delta is not None
    charges = (plan_charge(plan, plan.privacy.minimum_patients), *charges_beside_training(plan))
    return epsilon([charge.own_share for charge in charges], plan.privacy.delta)

# SPDX-License-Identifier: Apache-2.0
"""What a plan's evaluations and its statistic cost: plain Gaussian noise on counts of units, without sampling.

Each gets the noise with which all of its kind together, the spare ones included, cost the epsilon of its section at the plan's delta. They
are not added to the plan's own epsilon but are part of it: training's noise is calibrated beside them (`calibrate`), so the plan promises
one number for all that it releases. Rényi divergences add, so that costs training little: epsilon 1 of 8 is its noise times 1.01 or so.

No patient is both trained on and judged, so counting both kinds for everybody is more than any one of them pays; the ledger, which knows
no splits, counts it all the same.

With distributed noise a site adds a share here as in training, of variance sigma^2 / (m - c).
"""

import math
from collections import Counter
from functools import lru_cache

from common.plan import Plan
from common.privacy.calibration import calibrate
from common.privacy.events import Charge, Event


@lru_cache(maxsize=64)
def evaluation_charge(plan: Plan) -> Charge:
    """What one evaluation costs. Raises: EpsilonImpossible."""
    spec = plan.evaluation
    assert spec is not None
    return _charge(plan, spec.epsilon, times=len(plan.evaluation_rounds) + spec.spare)


@lru_cache(maxsize=64)
def statistic_charge(plan: Plan) -> Charge:
    """What the statistic costs, once. Raises: EpsilonImpossible."""
    spec = plan.statistics
    assert spec is not None
    return _charge(plan, spec.epsilon, times=1 + spec.spare)


def allowances(plan: Plan) -> Counter[Charge]:
    """How often each charge beside training's may be made, the spare ones included. Raises: EpsilonImpossible."""
    allowed: Counter[Charge] = Counter()
    if plan.evaluation is not None:
        allowed[evaluation_charge(plan)] += len(plan.evaluation_rounds) + plan.evaluation.spare
    if plan.statistics is not None:
        allowed[statistic_charge(plan)] += 1 + plan.statistics.spare
    return allowed


def charges_beside_training(plan: Plan) -> tuple[Charge, ...]:
    """Everything that a plan may release beside updates, the spare ones included. Raises: EpsilonImpossible."""
    return tuple(charge.times(number) for charge, number in allowances(plan).items())


def events_beside_training(plan: Plan) -> tuple[Event, ...]:
    """The same, as seen from outside."""
    return tuple(charge.outside for charge in charges_beside_training(plan))


def _charge(plan: Plan, epsilon: float, *, times: int) -> Charge:
    privacy = plan.privacy
    assert privacy.delta is not None
    noise = calibrate(epsilon, privacy.delta, 1.0, times)
    event = Event(sampling_rate=1.0, noise_multiplier=noise, steps=1)
    if not plan.shares_noise:
        return Charge.local(event)
    share = noise / math.sqrt(plan.noise_quorum - privacy.colluders)
    return Charge(outside=event, own_share=Event(sampling_rate=1.0, noise_multiplier=share, steps=1))

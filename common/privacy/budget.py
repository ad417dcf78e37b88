# SPDX-License-Identifier: Apache-2.0
"""What one round of a plan costs at a site of a given size.

Noise is calibrated so that all rounds together, and the plan's spare ones, cost its epsilon: the larger the site, the smaller its
sampling rate
and the less noise it needs. A pure function of public numbers and the site's own count, so that a simulator or a planner can know
beforehand what a site will find.
"""

from common.plan import Plan
from common.privacy.calibration import calibrate
from common.privacy.events import Event, sampling_rate


def round_event(plan: Plan, units: int) -> Event:
    """The event of one round of a private plan, with `units` training units at the site.

    Raises: TooFewPatients, if the batch is larger than the site; EpsilonImpossible, if no noise is enough.
    """
    privacy, training = plan.privacy, plan.training
    assert training.local_steps is not None, "a private plan without local_steps does not parse"
    assert privacy.epsilon is not None
    assert privacy.delta is not None
    rate = sampling_rate(batch=training.batch, units=units)
    steps = (training.rounds + privacy.spare_rounds) * training.local_steps
    noise = calibrate(privacy.epsilon, privacy.delta, rate, steps)
    return Event(sampling_rate=rate, noise_multiplier=noise, steps=training.local_steps)

# SPDX-License-Identifier: Apache-2.0
"""How much noise a budget needs.

Epsilon falls as noise grows, so the smallest sufficient noise multiplier is found by closing in on it from both sides; what is returned has
been recomputed by the accountant and costs at most the target, and at least 99 % of it. The search looks at whole Rényi orders first:
those are several times quicker and never too small, so their answer is safe, and usually already tight.

    >>> noise = calibrate(8.0, 1e-5, 0.05, 300)
    >>> 7.92 <= epsilon([Event(sampling_rate=0.05, noise_multiplier=noise, steps=300)], 1e-5) <= 8.0
    True
"""

import math
from collections.abc import Callable
from functools import lru_cache

from common.errors import EpsilonImpossible
from common.privacy.accountant import ORDERS, WHOLE_ORDERS, epsilon
from common.privacy.events import Event

LEAST_NOISE = 0.2
MOST_NOISE = 1000.0  # noise a thousand times one patient's largest influence leaves nothing to learn at any hospital
TINY = 1e-12  # for the logarithm: very much noise costs 0
UNUSED = 0.01  # the part of the target that may stay unused


@lru_cache(maxsize=256)
def calibrate(target: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The noise multiplier with which `steps` steps cost at most epsilon `target`, and at least 99 % of it.

    Never below 0.2, even where less would do. Raises: EpsilonImpossible, with an epsilon and a number of steps that would work.
    """

    def cost(noise: float, orders: tuple[float, ...] = ORDERS) -> float:
        return epsilon([Event(sampling_rate=sampling_rate, noise_multiplier=noise, steps=steps)], delta, orders=orders)

    if cost(LEAST_NOISE) <= target:
        return LEAST_NOISE
    if cost(MOST_NOISE) > target:
        raise _impossible(target, delta, sampling_rate, steps)
    noise = _least(lambda candidate: cost(candidate, WHOLE_ORDERS), target, unused=UNUSED / 10, most=MOST_NOISE)
    if cost(noise) < (1 - UNUSED) * target:
        noise = _least(cost, target, unused=UNUSED / 2, most=noise)
    return noise


def _least(cost: Callable[[float], float], target: float, *, unused: float, most: float) -> float:
    """The least noise that costs between (1 - unused) * target and target.

    Epsilon is nearly a power of the noise, so the search aims along the straight line between its two ends on logarithmic paper, with a
    step of at least a tenth of the range lest one end stay where it is.
    """
    low, high = LEAST_NOISE, most
    cost_low, cost_high = cost(low), cost(high)
    aim = (1 - unused / 2) * target
    while cost_high < (1 - unused) * target and high > low * (1 + 1e-9):
        share = math.log(aim / max(cost_high, TINY)) / math.log(cost_low / max(cost_high, TINY))
        middle = high * (low / high) ** min(max(share, 0.1), 0.9)
        cost_middle = cost(middle)
        if cost_middle <= target:
            high, cost_high = middle, cost_middle
        else:
            low, cost_low = middle, cost_middle
    return high


def _impossible(target: float, delta: float, sampling_rate: float, steps: int) -> EpsilonImpossible:
    def cost(steps: int) -> float:
        return epsilon([Event(sampling_rate=sampling_rate, noise_multiplier=MOST_NOISE, steps=steps)], delta)

    reachable = math.ceil(cost(steps) * 1000) / 1000
    fitting, beyond = 0, steps
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        fitting, beyond = (middle, beyond) if cost(middle) <= target else (fitting, middle)
    fewer = f", or train {fitting} steps in all" if fitting else ""
    return EpsilonImpossible(
        f"epsilon {target:g} at delta {delta:g} cannot be kept over {steps} steps at sampling rate {sampling_rate:.4g}: "
        f"even noise of {MOST_NOISE:g} times the clip norm costs {reachable:g}.",
        fix=f"Set [privacy] epsilon to {reachable:g} or more{fewer}.",
    )

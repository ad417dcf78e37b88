# SPDX-License-Identifier: Apache-2.0
"""How much noise a budget needs.

Epsilon falls as noise grows, so the smallest sufficient noise multiplier is found by closing in on it from both sides; what is returned has
been recomputed by the accountant and costs at most the target, and at least 99 % of it.

One look at all Rényi orders takes tens of milliseconds, nearly all of them for orders that do not matter: a few around the best one give
the same epsilon, and a few are never too small. So the search looks at a coarse set; at what it finds the accountant looks at all orders
once; if that shows room, the orders around the best one join the set and the search goes on. One or two looks are enough, and the last is
the one that the ledger needs anyway.

    >>> noise = calibrate(8.0, 1e-5, 0.05, 300)
    >>> 7.92 <= epsilon([Event(sampling_rate=0.05, noise_multiplier=noise, steps=300)], 1e-5) <= 8.0
    True
"""

import math
from collections.abc import Callable
from functools import lru_cache

from common.errors import EpsilonImpossible
from common.privacy.accountant import ORDERS, epsilon, epsilon_and_order
from common.privacy.events import Event

LEAST_NOISE = 0.2
MOST_NOISE = 1000.0  # noise a thousand times one patient's largest influence leaves nothing to learn at any hospital
TINY = 1e-12  # for the logarithm: very much noise costs 0
UNUSED = 0.01  # the part of the target that may stay unused
COARSE_ORDERS: tuple[float, ...] = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 63.0)
AROUND = 2  # neighbours on either side of the best order


@lru_cache(maxsize=256)
def calibrate(target: float, delta: float, sampling_rate: float, steps: int, *, beside: tuple[Event, ...] = ()) -> float:
    """The noise multiplier with which `steps` steps, and the events `beside` them, cost at most epsilon `target`, and at least 99 % of it.

    Never below 0.2, even where less would do. Raises: EpsilonImpossible, with an epsilon and a number of steps that would work.
    """

    def look(noise: float, orders: tuple[float, ...] = ORDERS) -> tuple[float, float]:
        event = Event(sampling_rate=sampling_rate, noise_multiplier=noise, steps=steps)
        return epsilon_and_order([event, *beside], delta, orders=orders)

    def search(orders: tuple[float, ...], most: float) -> float:
        return _least(lambda noise: look(noise, orders)[0], target, most=most)

    orders, noise = COARSE_ORDERS, MOST_NOISE
    if look(noise, orders)[0] > target:
        spent, best = look(noise)
        if spent > target:
            raise _impossible(target, delta, sampling_rate, steps, beside)
        orders = _with_neighbours(orders, best)
    while True:
        noise = search(orders, noise)
        spent, best = look(noise)
        if spent >= (1 - UNUSED) * target or best in orders or noise == LEAST_NOISE:
            return noise
        orders = _with_neighbours(orders, best)


def _with_neighbours(orders: tuple[float, ...], best: float) -> tuple[float, ...]:
    index = ORDERS.index(best)
    return tuple(sorted({*orders, *ORDERS[max(0, index - AROUND) : index + AROUND + 1]}))


def _least(cost: Callable[[float], float], target: float, *, most: float) -> float:
    """The least noise that costs between 99.9 % of the target and the target, or LEAST_NOISE if even that costs no more.

    Epsilon is nearly a power of the noise, so the search aims along the straight line between its two ends on logarithmic paper, with a
    step of at least a tenth of the range lest one end stay where it is.
    """
    low, high = LEAST_NOISE, most
    cost_low, cost_high = cost(low), cost(high)
    if cost_low <= target:
        return low
    least = (1 - UNUSED / 10) * target
    while cost_high < least and high > low * (1 + 1e-9):
        share = math.log((least + target) / 2 / max(cost_high, TINY)) / math.log(cost_low / max(cost_high, TINY))
        middle = high * (low / high) ** min(max(share, 0.1), 0.9)
        cost_middle = cost(middle)
        if cost_middle <= target:
            high, cost_high = middle, cost_middle
        else:
            low, cost_low = middle, cost_middle
    return high


def _impossible(target: float, delta: float, sampling_rate: float, steps: int, beside: tuple[Event, ...]) -> EpsilonImpossible:
    def cost(steps: int) -> float:
        return epsilon([Event(sampling_rate=sampling_rate, noise_multiplier=MOST_NOISE, steps=steps), *beside], delta)

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

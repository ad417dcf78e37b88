# SPDX-License-Identifier: Apache-2.0
"""From events to epsilon: the sum of everything that was ever done, never the last round alone.

Rényi differential privacy (Mironov 2017, https://arxiv.org/abs/1702.07476; subsampled Gaussian: Mironov, Talwar and Zhang 2019,
https://arxiv.org/abs/1908.10530) adds up: the divergence at each order is steps times that of one step, events are summed, and one
conversion at the end gives epsilon. The order of events does not matter and equal ones merge, so a thousand rounds cost one table look-up.
The sum stays valid when later events are chosen in the light of earlier ones (Feldman and Zrnic 2020, https://arxiv.org/abs/2008.11193):
this is the figure that gates. The privacy loss distribution gives a smaller one for events fixed beforehand: that is for showing.

The arithmetic of both is Google's dp-accounting; a test compares it with Opacus's own.

    >>> epsilon([], 1e-5)
    0.0
    >>> one_round = Event(sampling_rate=0.01, noise_multiplier=1.0, steps=100)
    >>> round(epsilon([one_round], 1e-5), 2), round(epsilon([one_round] * 10, 1e-5), 2)
    (1.21, 2.1)
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from common.privacy.events import Event

if TYPE_CHECKING:
    import dp_accounting
    from dp_accounting import pld

# dp-accounting brings scipy's distributions, a second to import: it is imported where it is first needed, or by `load`.

ORDERS: tuple[float, ...] = (*(1 + x / 10 for x in range(1, 100)), *map(float, range(11, 64)), 128.0, 256.0, 512.0, 1024.0)
"""dp-accounting's own choice (a test holds the two equal)."""
PLD_INTERVAL = 1e-3


def load() -> None:
    """Import what counts, before anything is to be counted: once in a process that others are forked from, not in each of them."""
    import dp_accounting  # noqa: F401 - for those that come after


def epsilon(events: Iterable[Event], delta: float, *, orders: tuple[float, ...] = ORDERS) -> float:
    """What all events together cost at this delta, by Rényi differential privacy; infinite if one of them has no noise.

    Fewer `orders` are quicker and never too small, only less tight.
    """
    bound, _ = epsilon_and_order(events, delta, orders=orders)
    return bound


def epsilon_and_order(events: Iterable[Event], delta: float, *, orders: tuple[float, ...] = ORDERS) -> tuple[float, float]:
    """The same, and which order gives it; of nothing the cost is 0, by any order."""
    merged = _merge(events)
    if not merged:
        return 0.0, orders[0]
    total = _summed(merged, orders)
    from dp_accounting import rdp

    bound, order = rdp.compute_epsilon(orders, total, delta)
    return float(bound), float(order)


def epsilon_at_most(choices: Iterable[tuple[int, Sequence[Sequence[Event]]]], delta: float) -> float:
    """What the costliest way of choosing would cost: of each `(how many, alternatives)` so many of the alternatives, whichever they are.

    At each order the costliest are added up, so the bound holds also where the choice is made in the light of what was released before.

        >>> few, many = [Event(sampling_rate=0.01, noise_multiplier=1.0, steps=steps) for steps in (10, 100)]
        >>> epsilon_at_most([(1, [[few], [many]]), (2, [[few], [few]])], 1e-5) == epsilon([many, few, few], 1e-5)
        True
    """
    total = np.zeros(len(ORDERS))
    for number, alternatives in choices:
        costs = (
            np.sort([_summed(_merge(events), ORDERS) for events in alternatives], axis=0) if alternatives else np.zeros((0, len(ORDERS)))
        )
        total += costs[max(0, len(alternatives) - number) :].sum(axis=0)
    if not total.any():
        return 0.0
    from dp_accounting import rdp

    return float(rdp.compute_epsilon(ORDERS, total, delta)[0])


def epsilon_pld(events: Iterable[Event], delta: float) -> float:
    """The same by privacy loss distributions, rounded up: tighter, valid for events fixed beforehand. Takes tenths of a second."""
    merged = _merge(events)
    return float(_loss_distribution(merged).get_epsilon(delta)) if merged else 0.0


def deltas_pld(events: Iterable[Event], epsilons: Sequence[float]) -> list[float]:
    """The delta that belongs to each epsilon, by privacy loss distributions: the whole promise, of which (epsilon, delta) is one point."""
    merged = _merge(events)
    return [float(delta) for delta in _loss_distribution(merged).get_delta(list(epsilons))] if merged else [0.0] * len(epsilons)


def _summed(merged: dict[tuple[float, float], int], orders: tuple[float, ...]) -> NDArray[np.float64]:
    """Rényi divergence of all events together at each order."""
    total = np.zeros(len(orders))
    for (rate, noise), steps in merged.items():
        total += steps * _divergences(rate, noise, orders)
    return total


def _loss_distribution(merged: dict[tuple[float, float], int]) -> "pld.PLDAccountant":
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=PLD_INTERVAL)
    for (rate, noise), steps in merged.items():
        accountant.compose(_mechanism(rate, noise), steps)
    return accountant


def _merge(events: Iterable[Event]) -> dict[tuple[float, float], int]:
    """Steps for each distinct (sampling rate, noise multiplier)."""
    merged: Counter[tuple[float, float]] = Counter()
    for event in events:
        merged[event.sampling_rate, event.noise_multiplier] += event.steps
    return {kind: steps for kind, steps in sorted(merged.items()) if steps}


@lru_cache(maxsize=1024)
def _divergences(rate: float, noise: float, orders: tuple[float, ...]) -> NDArray[np.float64]:
    """Rényi divergence of one step at each order."""
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(orders)
    with _unconverged_orders_unsaid():
        accountant.compose(_mechanism(rate, noise))
    # Not public, hence the exact pin of dp-accounting and a test: without it each look at the ledger would cost 50 ms.
    return np.asarray(accountant._rdp, dtype=np.float64)


def _mechanism(rate: float, noise: float) -> "dp_accounting.DpEvent":
    import dp_accounting

    return dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))


@contextmanager
def _unconverged_orders_unsaid() -> Iterator[None]:
    """dp-accounting logs a line for each small order whose series does not converge, and leaves the order out, which is safe."""

    def unsaid(record: logging.LogRecord) -> bool:
        return "failed to converge" not in record.getMessage()

    logger = logging.getLogger("absl")
    logger.addFilter(unsaid)
    try:
        yield
    finally:
        logger.removeFilter(unsaid)

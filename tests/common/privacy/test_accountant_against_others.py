# SPDX-License-Identifier: Apache-2.0
"""The accountant against second opinions: Opacus's two accountants, and the definitions written out for one step.

Opacus is given the same orders. Beyond an epsilon of about 16, which nobody promises, dp-accounting leaves out orders whose series does not
converge, and its figure is larger (by 5 % at 46): safe, and not compared here. PRV is Gopi et al. 2021, https://arxiv.org/abs/2106.02848.
"""

import math
from itertools import product

import numpy as np
import pytest
from opacus.accountants import PRVAccountant, RDPAccountant
from scipy.integrate import quad
from scipy.stats import norm

from common.privacy import Event, epsilon, epsilon_pld
from common.privacy.accountant import ORDERS, _divergences

NOISES = {
    0.002: (0.7, 0.9, 1.2, 2.0, 3.0),
    0.01: (0.7, 0.9, 1.2, 2.0, 4.0),
    0.04: (0.9, 1.2, 2.0, 4.0, 6.0),
    0.1: (1.2, 2.0, 3.0, 5.0, 8.0),
    0.25: (3.0, 4.0, 5.0, 8.0, 12.0),
}
GRID = [(rate, noise, *rest) for rate in NOISES for noise, rest in product(NOISES[rate], ((100, 1e-5), (500, 1e-6)))]
PRV_ERROR = 0.01

pytestmark = pytest.mark.filterwarnings("ignore:Optimal order is the:UserWarning")  # where the largest order is the best


def told(accountant, events):
    accountant.history = [(event.noise_multiplier, event.sampling_rate, event.steps) for event in events]
    return accountant


def opacus_rdp(events, delta):
    return told(RDPAccountant(), events).get_epsilon(delta, alphas=list(ORDERS))


def opacus_prv(events, delta):
    return told(PRVAccountant(), events).get_epsilon(delta, eps_error=PRV_ERROR)


def test_the_grid_has_fifty_points():
    assert len(set(GRID)) == 50


@pytest.mark.parametrize(("rate", "noise", "steps", "delta"), GRID)
def test_epsilon_agrees_with_opacus(rate, noise, steps, delta):
    events = [Event(sampling_rate=rate, noise_multiplier=noise, steps=steps)]
    assert epsilon(events, delta) == pytest.approx(opacus_rdp(events, delta), rel=0.005)
    prv = opacus_prv(events, delta)
    assert abs(epsilon_pld(events, delta) - prv) <= 0.005 * prv + PRV_ERROR


def test_events_of_a_ledger_agree_with_opacus():
    """Rounds of two plans in turn, as a ledger holds them: entry by entry, not merged for the others."""
    first, second = Event(sampling_rate=0.05, noise_multiplier=1.1, steps=10), Event(sampling_rate=0.02, noise_multiplier=0.9, steps=4)
    ledger = [first, second] * 6
    assert epsilon(ledger, 1e-5) == pytest.approx(opacus_rdp(ledger, 1e-5), rel=0.005)
    prv = opacus_prv(ledger, 1e-5)
    assert abs(epsilon_pld(ledger, 1e-5) - prv) <= 0.005 * prv + PRV_ERROR


@pytest.mark.parametrize("spent", [epsilon, epsilon_pld])
def test_equal_events_merge(spent):
    one, other = Event(sampling_rate=0.05, noise_multiplier=1.1, steps=10), Event(sampling_rate=0.02, noise_multiplier=0.9, steps=4)
    merged = [Event(sampling_rate=0.02, noise_multiplier=0.9, steps=12), Event(sampling_rate=0.05, noise_multiplier=1.1, steps=30)]
    assert spent([one, other, one, other, one, other], 1e-5) == spent(merged, 1e-5)


# One step, by the definitions, for a data set with a patient more (P: drawn with probability q) and one without (Q)


@pytest.mark.parametrize(("rate", "noise"), [(0.01, 0.8), (0.1, 1.0), (0.5, 2.0)])
def test_one_step_is_worth_what_adding_or_removing_a_patient_is_worth(rate, noise):
    """delta(epsilon) in closed form, in both directions. What replaces a patient by another would be worth more."""

    def beyond(shift, edge):
        return norm.sf((edge - shift) / noise)

    def removed(eps):
        """sup over events of P - e^eps Q: where the likelihood ratio is above e^eps, which is a half-line."""
        edge = 0.5 + noise**2 * math.log((math.exp(eps) - 1 + rate) / rate)
        return (1 - rate - math.exp(eps)) * beyond(0, edge) + rate * beyond(1, edge)

    def added(eps):
        if math.exp(-eps) <= 1 - rate:
            return 0.0
        edge = 0.5 + noise**2 * math.log((math.exp(-eps) - 1 + rate) / rate)
        return (1 - beyond(0, edge)) - math.exp(eps) * (1 - (1 - rate) * beyond(0, edge) - rate * beyond(1, edge))

    for eps in (0.1, 0.5, 1.0):
        delta = max(removed(eps), added(eps))
        if delta > 1e-12:
            ours = epsilon_pld([Event(sampling_rate=rate, noise_multiplier=noise, steps=1)], delta)
            assert eps - 1e-6 <= ours <= eps + 2e-3


@pytest.mark.parametrize(("rate", "noise"), [(0.05, 1.0), (0.3, 3.0)])
@pytest.mark.parametrize("order", [2.0, 5.0, 16.0, 1.5, 4.5])
def test_the_divergence_of_one_step_is_the_larger_of_both_directions(rate, noise, order):
    """By quadrature. At whole orders the library is exact; between them its series ignores signs, which makes it larger, never smaller."""

    def log_with(x):
        return np.logaddexp(math.log1p(-rate) + norm.logpdf(x, 0, noise), math.log(rate) + norm.logpdf(x, 1, noise))

    def log_without(x):
        return norm.logpdf(x, 0, noise)

    def renyi(log_p, log_q):
        span = (-12 * noise, 12 * noise + order)
        value, _ = quad(lambda x: math.exp(order * log_p(x) + (1 - order) * log_q(x)), *span, points=(0.0, 1.0, order), limit=500)
        return math.log(value) / (order - 1)

    [ours] = _divergences(rate, noise, (order,))
    larger = max(renyi(log_with, log_without), renyi(log_without, log_with))
    if order == int(order):
        assert ours == pytest.approx(larger, rel=1e-6)
    else:
        assert ours >= larger * (1 - 1e-6)

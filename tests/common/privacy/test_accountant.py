# SPDX-License-Identifier: Apache-2.0
"""The sum of what was spent, against the closed form, and against the classic way to get it wrong; and the noise that a budget needs."""

import doctest
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import EpsilonImpossible, TooFewPatients
from common.privacy import (
    Event,
    accountant,
    calibrate,
    calibration,
    epsilon,
    epsilon_pld,
    events,
    groups,
    lattice,
    public_count,
    sampling_rate,
)
from common.privacy.entries import Tallied
from common.privacy.events import Charge
from common.privacy.tally import Tally, View

DELTA = 1e-5
ROUND = Event(sampling_rate=0.05, noise_multiplier=1.1, steps=10)


@pytest.mark.parametrize(("rate", "noise", "steps"), [(0.01, 1.0, 1000), (0.05, 1.0, 200), (0.25, 2.0, 100)])
def test_privacy_loss_distributions_are_tighter_and_not_by_much(rate, noise, steps):
    events = [Event(sampling_rate=rate, noise_multiplier=noise, steps=steps)]
    assert 0.8 * epsilon(events, DELTA) < epsilon_pld(events, DELTA) <= epsilon(events, DELTA)


def test_without_sampling_it_is_the_gaussian_mechanism_in_closed_form():
    """Renyi divergence of order a is a * steps / (2 noise^2); the best order over the reals bounds what any grid can reach."""
    steps, noise = 8, 5.0
    rho = steps / (2 * noise**2)
    classic = rho + 2 * math.sqrt(rho * math.log(1 / DELTA))  # Bun and Steinke 2016, proposition 1.3
    ours = epsilon([Event(sampling_rate=1.0, noise_multiplier=noise, steps=steps)], DELTA)
    assert 0.8 * classic < ours <= classic


def test_a_hundred_rounds_are_not_forgotten():
    """The classic bug: an engine made anew each round reports each round as if it were the first."""
    spent, history = [], []
    for _ in range(100):
        history.append(ROUND)
        spent.append(epsilon(history, DELTA))
    assert all(later > earlier for earlier, later in pairwise(spent))
    whole = Event(sampling_rate=0.05, noise_multiplier=1.1, steps=1000)
    assert spent[-1] == pytest.approx(epsilon([whole], DELTA), rel=1e-12)
    assert spent[-1] > 3 * spent[0]


def test_different_events_are_summed_and_not_only_the_last_kind():
    noisy, quiet = ROUND, Event(sampling_rate=0.05, noise_multiplier=0.8, steps=10)
    both = epsilon([noisy, quiet], DELTA)
    assert max(epsilon([noisy], DELTA), epsilon([quiet], DELTA)) < both <= epsilon([noisy], DELTA) + epsilon([quiet], DELTA)
    assert both == epsilon([quiet, noisy], DELTA)


def test_all_plans_together_count_patients_and_records():
    """A patient of one image is a record as well: two budgets side by side would be twice the budget."""
    tally, charge = Tally(), Charge.local(Event(sampling_rate=0.1, noise_multiplier=1.0, steps=50))
    for unit, plan in (("record", "a" * 64), ("patient", "b" * 64)):
        tally.add(Tallied(unit=unit, plan=plan, charge=charge, times=1))
    both = epsilon([replace(charge.outside, steps=100)], 1e-5)
    assert tally.epsilon(View(unit="patient"), 1e-5) == tally.epsilon(View(unit="record"), 1e-5) == pytest.approx(both)
    assert tally.epsilon(View(unit="patient", plan="b" * 64), 1e-5) == pytest.approx(epsilon([charge.outside], 1e-5))
    assert tally.epsilon(View(unit="patient", plan="a" * 64), 1e-5) == 0


def test_nothing_costs_nothing_and_no_noise_costs_everything():
    assert epsilon([], DELTA) == 0.0 == epsilon_pld([], DELTA)
    assert epsilon([Event(sampling_rate=0.05, noise_multiplier=1.0, steps=0)], DELTA) == 0.0
    assert epsilon([ROUND, Event(sampling_rate=0.05, noise_multiplier=0.0, steps=1)], DELTA) == math.inf


def test_orders_that_do_not_converge_are_left_out_in_silence(caplog, capfd):
    assert 15 < epsilon([Event(sampling_rate=0.25, noise_multiplier=1.0, steps=100)], DELTA) < 25
    assert "converge" not in caplog.text + capfd.readouterr().err


@pytest.mark.parametrize("target", [0.5, 1.0, 3.0, 8.0, 30.0])
@pytest.mark.parametrize(("rate", "steps"), [(0.001, 10), (0.01, 2000), (0.1, 300), (0.5, 50), (1.0, 20)])
def test_calibrated_noise_costs_the_target_and_not_a_bit_more(target, rate, steps):
    noise = calibrate(target, DELTA, rate, steps)
    spent = epsilon([Event(sampling_rate=rate, noise_multiplier=noise, steps=steps)], DELTA)
    assert spent <= target
    assert spent >= 0.99 * target or noise == 0.2  # the least noise there is


def test_calibration_is_spent_exactly_by_its_rounds_one_by_one():
    noise = calibrate(8.0, DELTA, 0.1, 12 * 5)
    rounds = [Event(sampling_rate=0.1, noise_multiplier=noise, steps=5)] * 12
    assert epsilon(rounds, DELTA) <= 8.0 < epsilon([*rounds, rounds[0]], DELTA)


def test_calibration_looks_at_all_orders_once_or_twice(monkeypatch):
    """That is what it costs: tens of milliseconds a look, beside which the search over a few orders is nothing."""
    looks = []
    divergences = accountant._divergences.__wrapped__

    def counted(rate, noise, orders):
        looks.append(orders)
        return divergences(rate, noise, orders)

    monkeypatch.setattr(accountant, "_divergences", counted)
    cases = [(8.0, 1e-5, batch / patients, steps) for batch in (32, 64) for patients in (224, 768, 2048) for steps in (121, 1001)]
    for case in cases:
        looks.clear()
        calibrate.__wrapped__(*case)
        assert looks.count(accountant.ORDERS) in (1, 2), case
        assert len(looks) < 25, case


def test_a_generous_target_still_gets_some_noise():
    assert calibrate(1e6, DELTA, 0.1, 10) == 0.2


def test_an_impossible_epsilon_is_refused_with_numbers_that_work():
    with pytest.raises(EpsilonImpossible, match=r"epsilon 0\.01 .* 300 steps") as refusal:
        calibrate(0.01, DELTA, 0.25, 300)
    words = refusal.value.fix.replace(",", "").split()
    larger, fewer = float(words[words.index("to") + 1]), int(words[words.index("train") + 1])
    assert calibrate(larger, DELTA, 0.25, 300) > 0
    assert calibrate(0.01, DELTA, 0.25, fewer) > 0
    with pytest.raises(EpsilonImpossible):
        calibrate(0.01, DELTA, 0.25, fewer + 1)


def test_where_no_number_of_steps_would_do_none_is_proposed():
    with pytest.raises(EpsilonImpossible) as refusal:
        calibrate(1e-4, DELTA, 0.25, 300)
    assert "train" not in refusal.value.fix


@given(st.integers(0, 10**9))
def test_the_public_count_hides_all_but_three_bits_and_never_flatters(units):
    count = public_count(units)
    assert count <= units < count * 1.25 + 1
    assert bin(count).rstrip("0").count("1") <= 3
    assert public_count(count) == count


def test_the_accounted_rate_is_never_below_the_true_one():
    assert sampling_rate(batch=16, units=1000) == 16 / 896 >= 16 / 1000
    assert sampling_rate(batch=8, units=9) == 1.0
    with pytest.raises(TooFewPatients, match=r"8 training units here \(rounded down\), the plan's batch needs at least 9"):
        sampling_rate(batch=9, units=9)


@pytest.mark.parametrize("module", [accountant, calibration, events, groups, lattice], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_hold(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0

# SPDX-License-Identifier: Apache-2.0
"""The forecast is the accountant's own arithmetic, for both kinds of noise, and says who cannot take part."""

import math
from dataclasses import replace

import pytest

from common.errors import CohortTooSmall, EpsilonImpossible, PlanConflict
from common.plan import EvaluationSpec, PrivacySpec, parse, to_toml
from common.privacy import Event, epsilon, epsilon_pld, round_charge
from simulations.planner import Hospitals
from simulations.planner.alternatives import alternatives
from simulations.planner.forecast import Cost, Refusal, forecast, relative_noise
from simulations.planner.modes import in_mode
from tests.simulations.planner.planned import local, shared

FIVE = Hospitals(patients=(128, 200, 200, 200, 1600))


def cost(site):
    assert isinstance(site.outcome, Cost)
    return site.outcome


def test_each_hospital_costs_what_its_rounds_cost_together():
    found = forecast(shared(), FIVE).asked
    for site in (found.sites[0], found.sites[-1]):
        charge = round_charge(found.plan, site.units)
        rounds = [charge.outside] * found.plan.training.rounds
        assert cost(site).epsilon == pytest.approx(epsilon(rounds, 1e-5), rel=1e-12)
        assert cost(site).epsilon_pld == pytest.approx(epsilon_pld(rounds, 1e-5), rel=1e-9)
        assert cost(site).own_share == pytest.approx(epsilon([charge.own_share] * len(rounds), 1e-5), rel=1e-12)
        assert cost(site).epsilon < cost(site).reserved <= 8.0


def test_larger_hospitals_pay_less_where_noise_is_shared_and_the_same_where_it_is_not():
    found = forecast(shared(), FIVE)
    together, alone = ([cost(site).epsilon for site in found.modes[mode].sites] for mode in ("distributed", "local"))
    assert together == sorted(together, reverse=True)
    assert together[0] > 3 * together[-1]
    assert max(alone) - min(alone) < 0.1 * max(alone)
    noises = [cost(site).charge.outside.noise_multiplier for site in found.modes["local"].sites]
    assert noises == sorted(noises, reverse=True)


def test_with_local_noise_nobody_is_relied_on():
    for site in forecast(shared(), FIVE).modes["local"].sites:
        assert cost(site).own_share == cost(site).epsilon


def test_evaluations_are_in_the_sum():
    plan = replace(shared(), evaluation=EvaluationSpec(every=10, epsilon=1.0))
    with_them, without = forecast(plan, FIVE).asked, forecast(shared(), FIVE).asked
    assert cost(with_them.sites[0]).charge.outside.noise_multiplier > cost(without.sites[0]).charge.outside.noise_multiplier
    trained = epsilon([cost(with_them.sites[0]).charge.outside] * 40, 1e-5)
    assert trained < cost(with_them.sites[0]).epsilon < cost(with_them.sites[0]).reserved <= 8.0


def test_a_hospital_that_is_too_small_is_told_so_and_the_others_go_on():
    found = forecast(shared(), Hospitals(patients=(100, 20, 200, 200, 200, 1600))).asked
    assert [type(site.outcome) for site in found.sites] == [Refusal, Refusal, Cost, Cost, Cost, Cost]
    assert "96 training patients" in found.sites[0].outcome.message
    assert found.sites[1].outcome.code == "E_TOO_FEW_PATIENTS"
    assert found.holds_rounds
    assert not forecast(shared(), Hospitals(patients=(100, 20, 200, 200, 1600))).asked.holds_rounds


def test_an_impossible_epsilon_names_the_hospital_and_numbers_that_work():
    plan = local(steps=8, epsilon=0.02)
    with pytest.raises(EpsilonImpossible, match=r"hospital 1: epsilon 0\.02") as refusal:
        forecast(plan, Hospitals(patients=(64,) * 3))
    larger = float(refusal.value.fix.split("epsilon to ")[1].split(" ")[0])
    assert forecast(local(steps=8, epsilon=larger), Hospitals(patients=(64,) * 3)).asked.costs


def test_a_mode_that_the_plan_cannot_have_is_refused_and_the_other_is_not():
    plan = local()
    plan = replace(plan, aggregation=replace(plan.aggregation, minimum_cohort=1))
    found = forecast(plan, FIVE)
    assert found.asked.mode == "local"
    assert isinstance(found.modes["distributed"], Refusal)
    assert "colluders" in found.modes["distributed"].message


def test_hospitals_too_few_for_a_round_are_refused():
    with pytest.raises(CohortTooSmall, match=r"3 hospital\(s\) given, a round needs 4") as refusal:
        forecast(shared(), Hospitals(patients=(800,) * 3))
    assert "noise_quorum to 3" in refusal.value.fix
    with pytest.raises(CohortTooSmall) as refusal:
        forecast(shared(), Hospitals(patients=(800,)))
    assert "noise_quorum" not in refusal.value.fix


def test_a_plan_without_privacy_has_nothing_to_forecast():
    with pytest.raises(PlanConflict, match="protects nobody"):
        forecast(replace(shared(), privacy=PrivacySpec(unit="none")), FIVE)


def test_where_images_are_counted_a_hospital_has_as_many_units_as_images():
    found = forecast(local(unit="record"), Hospitals(patients=(50, 100, 100), images_each=4))
    assert [site.units for site in found.asked.sites] == [200, 400, 400]
    assert [site.units for site in forecast(local(), Hospitals(patients=(50, 100, 100), images_each=4)).asked.sites] == [50, 100, 100]


# The sibling with the other noise


@pytest.mark.parametrize("plan", [shared(), local(), local(strategy="fedsgd", steps=1)], ids=["shared", "local steps", "local"])
def test_both_modes_are_whole_plans(plan):
    for mode in ("local", "distributed"):
        sibling = in_mode(plan, mode, FIVE.patients)
        assert parse(to_toml(sibling)) == sibling
        assert sibling.shares_noise == (mode == "distributed")


def test_a_sibling_takes_as_many_steps_in_all_and_keeps_its_momentum():
    sibling = in_mode(local(steps=3), "distributed", FIVE.patients)
    assert sibling.training.rounds == 120
    assert (sibling.training.momentum, sibling.training.server_momentum) == (0.9, 0.0)
    assert sibling.privacy.minimum_patients == 128


def test_a_sibling_leaves_out_hospitals_smaller_than_the_batch():
    sibling = in_mode(local(), "distributed", (20, 50, 400))
    assert sibling.privacy.minimum_patients == 48


# Relative noise


def test_shared_noise_is_less_by_the_root_of_those_who_share_it():
    """Hospitals alike, m of n sharing: local noise over sqrt(m - c), at the same epsilon."""
    found = forecast(shared(), Hospitals(patients=(256,) * 5))
    together, alone = (found.modes[mode].relative_noise for mode in ("distributed", "local"))
    smaller = in_mode(shared(minimum_patients=256), "local", (256,) * 5)
    assert alone == pytest.approx(relative_noise(smaller, [round_charge(smaller, 256)] * 5))
    same_promise = forecast(shared(minimum_patients=256), Hospitals(patients=(256,) * 5)).asked.relative_noise
    assert same_promise == pytest.approx(alone / math.sqrt(4 - 1), rel=0.001)
    assert together > same_promise  # noise for hospitals of 128 is more than these need


def test_it_is_the_deviation_of_a_steps_mean_gradient():
    found = forecast(local(strategy="fedsgd", steps=1), Hospitals(patients=(128, 1024, 1024))).asked
    sigmas = [each.charge.own_share.noise_multiplier for each in found.costs]
    assert found.relative_noise == pytest.approx(math.sqrt(sum(sigma**2 for sigma in sigmas)) / (3 * 32))


# What else could be chosen


@pytest.mark.parametrize("mode", ["distributed", "local"])
def test_the_plan_is_among_its_own_alternatives(mode):
    found = forecast(shared(), FIVE).modes[mode]
    others = alternatives(found)
    most = max(each.epsilon for each in found.costs)
    for rows, own in ((others.rounds, 40), (others.batches, 32)):
        [row] = [row for row in rows if row.value == own]
        assert row.epsilon == pytest.approx(most)
        assert row.noise == max(each.charge.outside.noise_multiplier for each in found.costs)
        assert row.relative_noise == found.relative_noise
    assert others.noises[2][1] == pytest.approx(most)
    assert others.rounds_so_far[-1][:2] == (40, pytest.approx(most))


@pytest.mark.parametrize("mode", ["distributed", "local"])
def test_more_rounds_and_larger_batches_cost_more_and_more_noise_less(mode):
    others = alternatives(forecast(shared(), FIVE).modes[mode])
    for rows in (others.rounds, others.batches):
        assert [row.epsilon for row in rows] == sorted(row.epsilon for row in rows)
        assert [row.noise for row in rows] == sorted(row.noise for row in rows)
    assert [spent for _, spent in others.noises] == sorted((spent for _, spent in others.noises), reverse=True)
    assert [spent for _, spent, _ in others.rounds_so_far] == sorted(spent for _, spent, _ in others.rounds_so_far)


def test_the_noise_that_keeps_epsilon_keeps_it():
    plan = local(strategy="fedsgd", steps=1)
    for row in alternatives(forecast(plan, Hospitals(patients=(128, 128, 128))).asked).rounds:
        event = Event(sampling_rate=32 / 128, noise_multiplier=row.noise, steps=row.value + plan.privacy.spare_rounds)
        assert 0.99 * 8 <= epsilon([event], 1e-5) <= 8


def test_an_alternative_that_cannot_be_is_no_number():
    others = alternatives(forecast(local(), Hospitals(patients=(64, 64, 64))).asked)
    assert [row.value for row in others.batches] == [8, 16, 32, 64]  # 128 are more than there are
    assert all(row.noise is not None for row in others.batches)

# SPDX-License-Identifier: Apache-2.0
"""The lattice of noised gradients fits the ring, and shared noise adds up to what was promised."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from common.errors import PlanConflict, TooFewPatients
from common.plan import Plan, parse
from common.privacy import round_charge
from common.privacy.events import public_count
from common.privacy.lattice import lattice_excess, lattice_of, longest_share, most_drawn, plan_noise, share_of_noise

PLAN = """
[plan]
name = "shared"
purpose = "shared noise"
[input]
modality = "CT"
height = 16
width = 16
[task]
kind = "classification"
classes = ["a", "b"]
[model]
family = "cnn"
widths = [4]
hidden = 4
[training]
strategy = "fedsgd"
rounds = 50
local_steps = 1
batch = 32
learning_rate = 0.1
[privacy]
unit = "patient"
noise = "distributed"
noise_quorum = 5
colluders = 1
minimum_patients = 512
epsilon = 8.0
delta = 1e-5
clip_norm = 1.0
[aggregation]
minimum_cohort = 3
"""


def plan_with(*, batch: int = 32, max_group: int = 64) -> Plan:
    plan = parse(PLAN)
    return dataclasses.replace(
        plan,
        training=dataclasses.replace(plan.training, batch=batch),
        privacy=dataclasses.replace(plan.privacy, minimum_patients=max(512, 4 * batch)),
        aggregation=dataclasses.replace(plan.aggregation, max_group=max_group),
    )


@pytest.mark.parametrize(("batch", "max_group"), [(4, 3), (32, 64), (256, 64), (1024, 200)])
def test_the_largest_sum_of_a_group_fits_the_ring(batch: int, max_group: int) -> None:
    plan = plan_with(batch=batch, max_group=max_group)
    lattice = lattice_of(plan)
    one_site = most_drawn(batch) * lattice.clip_steps + 14 * share_of_noise(plan) * lattice.clip_steps
    assert max_group * one_site < 2**31
    assert lattice.fineness == 16 or max_group * 2 * one_site >= 2**31, "a finer lattice would have fitted"


@given(st.integers(1, 2000), st.integers(1, 10**6))
def test_a_draw_beyond_the_bound_is_rarer_than_one_in_2_to_the_100(batch: int, units: int) -> None:
    if public_count(units) >= batch:
        assert binom.logsf(most_drawn(batch), units, batch / public_count(units)) < -100 * math.log(2)


def test_the_honest_shares_of_a_quorum_make_the_plans_noise() -> None:
    plan = plan_with()
    assert 4 * share_of_noise(plan) ** 2 == pytest.approx(plan_noise(plan) ** 2)


def test_a_larger_site_pays_less_and_a_smaller_one_is_refused() -> None:
    plan = plan_with()
    at_least, twice = round_charge(plan, 512), round_charge(plan, 1024)
    assert at_least.outside.noise_multiplier == twice.outside.noise_multiplier == plan_noise(plan)
    assert twice.outside.sampling_rate == at_least.outside.sampling_rate / 2
    assert at_least.own_share.noise_multiplier == share_of_noise(plan)
    with pytest.raises(TooFewPatients, match="448 training patients"):
        round_charge(plan, 511)


def test_local_noise_costs_the_same_against_everybody() -> None:
    plan = parse(PLAN.replace('noise = "distributed"\nnoise_quorum = 5\ncolluders = 1\nminimum_patients = 512\n', ""))
    charge = round_charge(plan, 512)
    assert charge.outside == charge.own_share


def test_no_share_is_longer_than_the_bound() -> None:
    plan = plan_with()
    size = 1000
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((10_000, size)) * share_of_noise(plan)
    along = np.zeros(size)
    along[0] = most_drawn(32)
    longest = np.linalg.norm(noise + along, axis=1).max() / 32
    assert longest <= longest_share(plan, size)


def test_discrete_noise_costs_no_digit_of_epsilon() -> None:
    plan = plan_with()
    assert lattice_excess(plan, lattice_of(plan)) < 1e-14
    assert lattice_excess(plan, dataclasses.replace(lattice_of(plan), fineness=0)) > 1e-9  # a share is then under two steps wide


def test_shares_too_narrow_to_add_up_to_a_gaussian_are_refused() -> None:
    plan = plan_with(batch=4, max_group=65_536)
    with pytest.raises(PlanConflict, match="steps of the lattice wide"):
        lattice_of(dataclasses.replace(plan, privacy=dataclasses.replace(plan.privacy, noise_quorum=65_536)))

# SPDX-License-Identifier: Apache-2.0
"""A draw of sites leaves every group that takes part enough to hide an update in, and everybody an equal chance."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.plan import AggregationSpec, Plan, parse
from common.plan.round_rules import FEWEST_GROUPS
from common.secagg import groups
from common.secagg.terms import FLOOR
from server.cohort import draw
from tests.common.test_plan import GOOD

PLAN = parse(GOOD)


def plan(**aggregation: object) -> Plan:
    return replace(PLAN, aggregation=AggregationSpec(**aggregation))  # type: ignore[arg-type] # of the spec's own types


def names(count: int) -> list[str]:
    return [f"s{i:03d}" for i in range(count)]


def by_group(drawn: list[str], parts: tuple[frozenset[str], ...]) -> list[int]:
    return [size for part in parts if (size := len(part.intersection(drawn)))]


@settings(deadline=None)
@given(
    st.integers(3, 120),
    st.integers(3, 20),
    st.integers(1, 6),
    st.integers(3, 120),
    st.sampled_from(["mean", "median", "trimmed"]),
    st.floats(0.5, 1),
    st.integers(1, 1000),
)
def test_no_group_is_asked_for_fewer_than_a_sum_needs(
    enrolled: int, max_group: int, minimum: int, wanted: int, combine: str, connected: float, number: int
) -> None:
    minimum, wanted = min(minimum, max_group), max(wanted, minimum)
    chosen = plan(minimum_cohort=minimum, max_group=max_group, sites_per_round=wanted, combine=combine)
    parts = groups.partition(names(enrolled), epoch=1, max_group=max_group)
    here = names(enrolled)[: max(1, int(enrolled * connected))]
    drawn = draw(here, parts, chosen, number)
    smallest = max(FLOOR, minimum)
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= set(here)
    if len(here) <= wanted:
        assert drawn == here
        return
    assert len(drawn) <= wanted
    viable = [part for part in parts if len(part.intersection(here)) >= smallest]
    if viable and wanted >= smallest:
        assert min(by_group(drawn, parts)) >= smallest
        assert drawn == draw(here, parts, chosen, number)


def test_a_mean_is_over_as_few_groups_as_hold_the_number() -> None:
    parts = groups.partition(names(200), epoch=3, max_group=50)
    for wanted, sizes in ((20, [20]), (50, [50]), (51, [25, 26]), (150, [50, 50, 50])):
        assert sorted(by_group(draw(names(200), parts, plan(max_group=50, sites_per_round=wanted), 1), parts)) == sizes


def test_where_two_groups_would_be_too_small_one_is_asked_whole() -> None:
    parts = groups.partition(names(100), epoch=3, max_group=50)
    asked = draw(names(100), parts, plan(minimum_cohort=30, max_group=50, sites_per_round=55), 1)
    assert by_group(asked, parts) == [50]


@pytest.mark.parametrize("combine", ["median", "trimmed"])
def test_a_robust_mean_is_over_as_many_groups_as_can_be_filled(combine: str) -> None:
    parts = groups.partition(names(60), epoch=1, max_group=10)
    for wanted, count in ((30, 6), (20, 4), (15, 3)):
        chosen = plan(minimum_cohort=5, max_group=10, sites_per_round=wanted, combine=combine)
        assert len(by_group(draw(names(60), parts, chosen, 1), parts)) == count >= FEWEST_GROUPS


def test_every_site_is_asked_about_as_often() -> None:
    """Four groups of fifteen and one of them a site short: 600 rounds of twenty sites, each expected in about 203 (13 is one sigma)."""
    here, chosen = names(59), plan(max_group=15, sites_per_round=20)
    parts = groups.partition(here, epoch=1, max_group=15)
    counts = Counter(site for number in range(600) for site in draw(here, parts, chosen, number))
    assert set(counts) == set(here)
    assert max(abs(count - 600 * 20 / 59) for count in counts.values()) < 5 * 13


def test_another_seed_is_another_draw() -> None:
    parts = groups.partition(names(30), epoch=1, max_group=64)
    chosen = plan(sites_per_round=5)
    other = replace(chosen, training=replace(chosen.training, seed=1))
    assert draw(names(30), parts, chosen, 1) != draw(names(30), parts, other, 1)

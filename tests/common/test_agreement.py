# SPDX-License-Identifier: Apache-2.0
"""The grid that follows from a plan: as fine as its words allow, and no sum over a group can wrap."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.agreement import grid_of, terms_of
from common.models import initial_weights
from common.plan import AggregationSpec, Plan, parse
from common.plan.consistency import broken_rules
from common.roster import Member, Roster
from common.secagg import quantise
from tests.common.secagg.federation import seeded
from tests.common.test_plan import GOOD

PLAN = parse(GOOD)


def with_aggregation(**changes: object) -> Plan:
    plan = replace(PLAN, aggregation=AggregationSpec(**changes))  # type: ignore[arg-type] # of the spec's own types
    assert not list(broken_rules(plan))
    return plan


def roster(count: int = 3, *, weights: tuple[int, ...] = ()) -> Roster:
    members = tuple(
        Member(site_id=f"s{i:03d}", public_key=bytes([i, *bytes(31)]), not_before=0, not_after=1, weight=weights[i] if weights else 1)
        for i in range(count)
    )
    return Roster(epoch=1, not_before=0, not_after=1, coordinator=bytes(32), members=members)


@pytest.mark.parametrize(
    ("spec", "ring_bits", "bits", "reach"),
    [
        ({}, 32, 24, 10.0),
        ({"bits": 20}, 32, 20, 10.0),
        ({"max_group": 1000}, 32, 22, 10.0),
        ({"word_bits": 16}, 16, 10, 10.0),
        ({"word_bits": 16, "coordinate_range": 0.25}, 16, 10, 0.25),
        ({"word_bits": 16, "max_group": 10}, 16, 12, 10.0),
        ({"word_bits": 16, "max_group": 256}, 16, 8, 10.0),
        ({"word_bits": 16, "max_group": 10, "bits": 9}, 16, 9, 10.0),
    ],
    ids=str,
)
def test_the_grid_is_the_finest_of_the_plans_words_and_range(spec: dict[str, object], ring_bits: int, bits: int, reach: float) -> None:
    grid = grid_of(with_aggregation(**spec), roster())
    assert (grid.ring_bits, grid.bits, grid.coordinate_range) == (ring_bits, bits, reach)


def test_the_heaviest_member_of_the_roster_fills_the_grid() -> None:
    assert grid_of(with_aggregation(word_bits=16), roster(weights=(1, 4, 2))).max_weight == 4


@pytest.mark.parametrize("word_bits", [16, 32])
def test_a_group_at_its_limits_fills_the_ring_and_does_not_wrap(word_bits: int) -> None:
    """Every group size that a plan may name, each site at the end of the range in the same direction."""
    for max_group in range(3, 257):
        grid = grid_of(with_aggregation(word_bits=word_bits, max_group=max_group), roster())
        ends = quantise.quantise(np.float32([-99.0, 99.0]), grid, weight=1, entropy=seeded(max_group)).body
        total = np.zeros(2, grid.word)
        for _ in range(max_group):
            np.add(total, ends, out=total)
        assert total.view(grid.signed_word).tolist() == [-max_group * grid.largest, max_group * grid.largest]
        assert max_group * grid.largest < 2 ** (word_bits - 1)


@settings(deadline=None, max_examples=50)
@given(st.integers(3, 64), st.floats(1e-3, 10), st.integers(0, 2**32))
def test_the_mean_of_short_words_is_within_a_step_of_the_mean(max_group: int, reach: float, seed: int) -> None:
    grid = grid_of(with_aggregation(word_bits=16, max_group=max_group, coordinate_range=reach), roster())
    deltas = np.random.default_rng(seed).uniform(-reach, reach, (max_group, 20)).astype(np.float32)
    total = np.zeros(20, grid.word)
    for number, delta in enumerate(deltas):
        total += quantise.quantise(delta, grid, weight=1, entropy=seeded(seed, number)).body
    error = quantise.mean(total, grid, total_weight=max_group) - deltas.mean(axis=0, dtype=np.float64)
    assert np.abs(error).max() <= grid.step * (1 + 1e-4)


def test_a_site_accepts_its_own_short_update_however_coarse_the_grid() -> None:
    """Rounding lengthens a vector: the longest honest one must pass the site's own check, and the coordinator's."""
    plan = with_aggregation(word_bits=16, max_group=256, coordinate_range=0.5)
    initial = initial_weights(plan)
    terms = terms_of(plan, initial, roster(), frozenset({"s000"}))
    longest = np.full(initial.layout.size, plan.aggregation.update_norm / initial.layout.size**0.5, dtype=np.float32)
    update = quantise.quantise(longest, terms.grid, weight=1, entropy=seeded("longest"))
    quantise.check_update(update, terms.grid, num_values=initial.layout.size, max_norm=terms.max_norm)
    assert quantise.ring_norm(update.body, terms.grid) > plan.aggregation.update_norm
    assert terms.step_norm >= quantise.ring_norm(update.body, terms.grid)

# SPDX-License-Identifier: Apache-2.0
"""One unit moves a sum by what is charged for and no more; the noise is as wide as stated; nothing wraps."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.counting import Form, evaluation, form_of, forms_of, statistics
from common.counting.form import MOST_UNITS, read
from common.plan import Plan
from common.privacy import noise_of
from common.secagg import quantise
from common.secagg.terms import Kind
from tests.common.counting.plans import THREE, counting_plan
from tests.common.secagg.federation import seeded

PLANS = {"two classes": counting_plan(), "three classes": counting_plan(THREE), "shared noise": counting_plan(shared=True)}
KINDS = [Kind.EVAL, Kind.STAT]


def units(plan: Plan, kind: Kind, seed: int, count: int) -> NDArray[np.int64]:
    """What so many units write in all; the first ones do not change when there are more."""
    rng = np.random.default_rng(seed)
    draws = rng.random((count, 8))
    labels = (draws[:, 0] * len(plan.task.classes)).astype(np.int64)
    if kind is Kind.EVAL:
        raw = draws[:, 1 : 1 + len(plan.task.classes)]
        return evaluation.count(plan, (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32), labels)
    return statistics.count(plan, labels, draws[:, 1], draws[:, 1] * draws[:, 2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLANS)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 40))
def test_one_unit_more_moves_the_sum_by_no_more_than_is_charged_for(name: str, kind: Kind, seed: int, count: int) -> None:
    plan = PLANS[name]
    form = form_of(plan, kind)
    moved = np.linalg.norm(units(plan, kind, seed, count + 1) - units(plan, kind, seed, count))
    assert moved <= form.clip_steps
    if kind is Kind.EVAL:
        assert moved == form.clip_steps == form.steps


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, 0.4999, np.nextafter(0.5, 1), 1.7, -3.0])
def test_no_intensity_carries_a_unit_past_its_bound(value: float) -> None:
    """The corners of what a unit may write, and values that no image has."""
    plan = counting_plan()
    form = form_of(plan, Kind.STAT)
    for other in (0.0, 0.5, 1.0):
        written = statistics.count(plan, np.array([1]), np.array([value]), np.array([other]))
        assert np.linalg.norm(written) <= form.clip_steps
    corner = statistics.count(plan, np.array([0]), np.array([1.0]), np.array([0.0]))
    assert np.linalg.norm(corner) == pytest.approx(math.sqrt(1.5) * form.steps)
    assert form.clip_steps - np.linalg.norm(corner) < 1, "the bound is reached, to less than a step"


def test_every_unit_is_in_one_cell_and_those_of_the_threshold_are_positive() -> None:
    plan = counting_plan(("threshold = 0.5", "threshold = 0.37"))
    assert evaluation.edges(plan)[8] == 0.37
    positive = np.array([0.0, 0.3699, 0.37, 0.999, 1.0], dtype=np.float32)
    counted = evaluation.count(plan, np.stack([1 - positive, positive], axis=1), np.array([0, 0, 1, 1, 1])) / form_of(plan, Kind.EVAL).steps
    table = counted.reshape(2, 16)
    assert table.sum() == 5
    assert (table[0, 0], table[0, 7], table[1, 8], table[1, 15]) == (1, 1, 1, 2)


@pytest.mark.parametrize("bins", [2, 3, 7, 10, 100])
@pytest.mark.parametrize("threshold", [0.001, 0.31, 0.5, 0.999])
def test_edges_rise_and_one_is_the_threshold(bins: int, threshold: float) -> None:
    plan = counting_plan(("threshold = 0.5", f"threshold = {threshold}"), ("every = 1", f"every = 1\nbins = {bins}"))
    found = evaluation.edges(plan)
    assert len(found) == bins + 1
    assert (found[0], found[-1]) == (0.0, 1.0)
    assert list(found) == sorted(set(found))
    assert found[bins // 2] == threshold
    odds = np.log(np.array(found[1:-1]) / (1 - np.array(found[1:-1])))
    assert np.allclose(np.diff(odds), 8 / bins)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [False, True], ids=["local", "shared"])
def test_the_noise_of_a_sum_is_as_wide_as_it_says(shared: bool, kind: Kind) -> None:
    """Over many draws; with shares the sum of the noise quorum less the colluders has what one site alone would add."""
    plan = counting_plan(shared=shared)
    form, sites = form_of(plan, kind), 3
    drawn = sum(noise_of(form.variance).draw(200_000, seeded("noise", site)) for site in range(sites)) / form.steps
    assert drawn.std() == pytest.approx(form.noise_sd(sites), rel=0.01)
    assert abs(drawn.mean()) < 5 * form.noise_sd(sites) / math.sqrt(drawn.size)
    honest = plan.noise_quorum - plan.privacy.colluders if shared else 1
    charged = form.charge.outside.noise_multiplier * math.sqrt(form.norm_squared)
    assert charged <= form.noise_sd(honest) <= 1.01 * charged


@pytest.mark.parametrize("max_group", [3, 16, 64, 65, 256])
def test_the_largest_counts_of_a_full_group_do_not_wrap(max_group: int) -> None:
    """Every site with all the units that it may have in one cell, and noise at its furthest."""
    plan = counting_plan(("minimum_cohort = 3", f"minimum_cohort = 3\nmax_group = {max_group}"))
    for form in forms_of(plan):
        assert form.steps >= 32
        noise = math.ceil(14 * math.sqrt(form.variance))
        longest = np.array([MOST_UNITS * form.steps + noise], dtype=np.int64)
        body = quantise.on_lattice(longest, form.grid).body
        total = np.zeros(1, dtype=form.grid.word)
        for _ in range(max_group):
            np.add(total, body, out=total)
        assert total.view(form.grid.signed_word)[0] == max_group * longest[0]


def test_a_site_accepts_its_own_counts_up_to_the_most_and_refuses_more_by_name() -> None:
    plan = counting_plan()
    form = form_of(plan, Kind.EVAL)
    noise = noise_of(form.variance).draw(len(form.cells), seeded("most"))

    def check(count: int) -> None:
        steps = noise + np.eye(len(form.cells), dtype=np.int64)[3] * count * form.steps
        quantise.check_update(quantise.on_lattice(steps, form.grid), form.grid, num_values=len(form.cells), max_norm=form.max_norm)

    check(MOST_UNITS)
    with pytest.raises(Exception, match="times what the plan allows"):
        check(MOST_UNITS + 4000)


def test_kinds_and_questions_have_layouts_of_their_own() -> None:
    plans = [
        counting_plan(),
        counting_plan(("every = 1", "every = 1\nbins = 11")),
        counting_plan(("epsilon = 0.5", "epsilon = 0.5\nintensity = false")),
        counting_plan(("epsilon = 0.5", "epsilon = 0.5\nclasses = false")),
        counting_plan(THREE),
    ]
    layouts = [form.layout for plan in plans for form in forms_of(plan)]
    assert len(set(layouts)) == 3 + 4


def test_a_plan_that_asks_nothing_counts_nothing() -> None:
    plan = replace(counting_plan(), evaluation=None, statistics=None)
    assert forms_of(plan) == ()
    assert len(plan.evaluation_rounds) == 0


def test_what_is_read_is_what_was_counted() -> None:
    plan = counting_plan()
    form: Form = form_of(plan, Kind.EVAL)
    counted = read(form, np.arange(len(form.cells), dtype=np.int64) * form.steps, num_sites=4)
    assert counted.values.tolist() == list(range(len(form.cells)))
    assert counted.noise_sd == form.noise_sd(4)

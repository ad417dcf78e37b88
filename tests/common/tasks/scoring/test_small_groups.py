# SPDX-License-Identifier: Apache-2.0
"""Figures by group, and the attack they invite: to learn of a few patients by subtracting what is shown from the whole."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from common.tasks.scoring.groups import FEWEST_PATIENTS, Groups, by_group


def groups_of(sizes):
    """As many patients in each group, each with two images."""
    names = np.repeat([f"group {chr(97 + place)}" for place in range(len(sizes))], sizes)
    return np.repeat(names, 2).tolist(), np.repeat(np.arange(len(names)), 2)


def test_each_group_is_scored_on_its_own_rows_and_counted_in_patients():
    names, patients = groups_of([12, 15])
    found = by_group(names, patients, lambda rows: rows.tolist())
    assert [(one.name, one.patients) for one in found.shown] == [("group a", 12), ("group b", 15)]
    assert found.shown[0].scores == list(range(24))
    assert found.shown[1].scores == list(range(24, 54))
    assert found.hidden == 0


def test_a_small_group_is_not_scored_at_all():
    names, patients = groups_of([30, 4, 7, 20])
    asked = []
    found = by_group(names, patients, asked.append)
    assert [one.name for one in found.shown] == ["group a", "group d"]
    assert found.hidden == 2
    assert len(asked) == 2


def test_a_column_of_record_numbers_names_nobody():
    found = by_group([f"MRN-{number}" for number in range(40)], np.arange(40), len)
    assert found == Groups(shown=(), hidden=40)


def test_one_small_group_takes_the_next_smallest_with_it_so_that_nobody_subtracts():
    names, patients = groups_of([30, 4, 20])
    assert [one.patients for one in by_group(names, patients, len).shown] == [30]


def test_two_groups_of_whom_one_is_small_are_both_left_out():
    names, patients = groups_of([50, 9])
    assert by_group(names, patients, len) == Groups(shown=(), hidden=2)


def test_a_patient_in_two_groups_counts_in_both():
    found = by_group(["front"] * 10 + ["side"] * 10, np.tile(np.arange(10), 2), len)
    assert [one.patients for one in found.shown] == [10, 10]


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(1, 25), min_size=1, max_size=7))
def test_whoever_subtracts_the_shown_from_the_whole_has_ten_patients_or_nothing(sizes):
    names, patients = groups_of(sizes)
    found = by_group(names, patients, len)
    shown = [one.patients for one in found.shown]
    left = sum(sizes) - sum(shown)
    assert all(size >= FEWEST_PATIENTS for size in shown)
    assert left == 0 or left >= FEWEST_PATIENTS or not shown

# SPDX-License-Identifier: Apache-2.0
"""Who is a unit, who takes part in a step and with which images: the law that the accountant was told, from bits nobody can foresee."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.training import SystemNoise, Units, units_of
from client.training.sampler import Draw, draw, pick
from common.errors import NoPatientId
from common.plan import PrivacySpec

PATIENTS = PrivacySpec(unit="patient", epsilon=8.0, delta=1e-5, clip_norm=1.0)


def units_with(sizes):
    return Units(rows=np.random.default_rng(0).permutation(sum(sizes)), starts=np.concatenate([[0], np.cumsum(sizes)]))


# Units


def test_a_patient_is_one_unit_with_all_rows_of_theirs(make_plan, make_dataset):
    data = make_dataset(images_of=[3, 1, 500, 2])
    units = units_of(data, make_plan(private=True, privacy=PATIENTS))
    assert len(units) == data.num_patients == 4
    assert units.sizes.tolist() == [3, 1, 500, 2]
    for unit in range(4):
        assert sorted(units.rows_of(unit)) == np.flatnonzero(data.patients == unit).tolist()


def test_patients_of_whom_no_image_is_left_are_no_units(make_plan, make_dataset):
    data = make_dataset(images_of=[3, 1, 5, 2])
    units = units_of(data.subset(data.patients != 2), make_plan(private=True, privacy=PATIENTS))
    assert units.sizes.tolist() == [3, 1, 2]


@pytest.mark.parametrize("private", [True, False])
def test_without_the_patient_unit_every_record_is_one(make_plan, make_dataset, private):
    data = make_dataset(images_of=[3, 1, 5])
    units = units_of(replace(data, unit_source="none"), make_plan(private=private))
    assert units.sizes.tolist() == [1] * 9
    assert units.rows.tolist() == list(range(9))


@pytest.mark.parametrize("source", ["none", "image_id"])
def test_data_without_patients_are_refused_with_what_to_do(make_plan, make_dataset, source):
    with pytest.raises(NoPatientId, match='unit = "record"'):
        units_of(replace(make_dataset(), unit_source=source), make_plan(private=True, privacy=PATIENTS))
    assert len(units_of(replace(make_dataset(), unit_source="group_id"), make_plan(private=True, privacy=PATIENTS))) == 24


# Who takes part


def test_each_unit_is_drawn_at_the_rate_and_independently():
    draws = np.zeros((2000, 50), dtype=bool)
    for drawn in draws:
        drawn[draw(50, 0.3, SystemNoise().open())] = True
    assert draws.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / draws.size))
    assert np.abs(draws.mean(axis=0) - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 2000)
    sizes = draws.sum(axis=1)
    assert sizes.var() == pytest.approx(50 * 0.3 * 0.7, rel=0.2)  # binomial: batches are not of a fixed size
    assert np.abs(np.corrcoef(draws.T) - np.eye(50)).max() < 6 / np.sqrt(2000)


def test_the_rate_is_never_exceeded_by_rounding():
    at_threshold, below = (1 << 62).to_bytes(8, "little"), ((1 << 62) - 1).to_bytes(8, "little")
    assert draw(2, 0.25, lambda _: at_threshold + below).tolist() == [1]
    assert draw(3, 1.0, lambda _: b"").tolist() == [0, 1, 2]
    assert draw(3, 1e-30, lambda size: bytes(size)).tolist() == []


def test_whether_a_patient_is_drawn_does_not_depend_on_how_many_images_they_have(make_plan, make_dataset):
    units = units_of(make_dataset(images_of=[1] * 30 + [40] * 10), make_plan(private=True, privacy=PATIENTS))
    drawn = np.zeros(40)
    for _ in range(1500):
        drawn[draw(len(units), 0.2, SystemNoise().open())] += 1
    assert np.abs(drawn / 1500 - 0.2).max() < 5 * np.sqrt(0.2 * 0.8 / 1500)


# With which images


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8), most=st.integers(1, 6), data=st.data())
def test_a_patient_brings_at_most_k_images_of_theirs_and_none_twice(sizes, most, data):
    units = units_with(sizes)
    chosen = np.array(sorted(data.draw(st.sets(st.integers(0, len(sizes) - 1)))), dtype=np.int64)
    drawn = pick(units, chosen, most, SystemNoise().open())
    assert drawn.sizes.tolist() == [min(most, sizes[unit]) for unit in chosen]
    ends = np.cumsum(drawn.sizes)
    for unit, start, end in zip(chosen, ends - drawn.sizes, ends, strict=True):
        rows = drawn.rows[start:end]
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(units.rows_of(unit))


def test_every_set_of_k_images_is_equally_likely():
    """Chi-square over the 20 ways of choosing 3 images of 6, for the second of three patients."""
    units, counts = units_with([2, 6, 9]), {}
    for _ in range(4000):
        rows = pick(units, np.arange(3), 3, SystemNoise().open()).rows[2:5]
        counts[frozenset(rows.tolist())] = counts.get(frozenset(rows.tolist()), 0) + 1
    assert len(counts) == 20
    chi2 = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert chi2 < 55  # 19 degrees of freedom: one failure in 40,000


def test_patients_with_few_images_take_no_bits():
    assert pick(units_with([1, 3, 2]), np.arange(3), 3, None).rows.size == 6


# Chunks


@given(sizes=st.lists(st.integers(1, 30), max_size=20), units=st.integers(1, 9))
def test_chunks_hold_whole_units_of_equal_size_and_all_of_them(sizes, units):
    whole = Draw(rows=np.arange(sum(sizes)), sizes=np.array(sizes, dtype=np.int64))
    ends = np.cumsum(sizes, dtype=int).tolist()
    expected = [tuple(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
    got = []
    for alike in whole.alike():
        assert len(set(alike.sizes)) == 1
        for chunk in alike.chunks(units):
            assert len(chunk) <= units
            rows = [tuple(rows) for rows in chunk.rows.reshape(len(chunk), -1).tolist()]
            got += rows
            filled = chunk.filled(units)
            assert (len(filled), len(filled.rows)) == (units, units * alike.sizes[0])
            assert [tuple(each) for each in filled.rows.reshape(units, -1).tolist()] == rows + [rows[0]] * (units - len(chunk))
    assert sorted(got) == sorted(expected)

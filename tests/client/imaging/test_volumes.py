# SPDX-License-Identifier: Apache-2.0
"""Slices in the order in which they lie, whatever their files are called; gaps and copies are counted."""

import random

from hypothesis import given
from hypothesis import strategies as st

from client.imaging.volumes import Slice, sort_slices

AXIAL, SAGITTAL = (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)


def stack(places: list[float], normal: tuple[float, float, float] = AXIAL) -> list[Slice[int]]:
    return [Slice(name=name, normal=normal, place_mm=place) for name, place in enumerate(places)]


@given(st.integers(3, 40), st.floats(0.3, 10), st.floats(-500, 500), st.randoms(use_true_random=False))
def test_a_shuffled_series_comes_back_in_order_and_whole(count: int, spacing: float, start: float, dice: random.Random) -> None:
    slices = stack([start + spacing * number for number in range(count)])
    dice.shuffle(slices)
    (volume,) = sort_slices(slices)
    assert volume.order == tuple(range(count))
    assert volume.is_whole
    assert volume.spacing_mm is not None
    assert abs(volume.spacing_mm - spacing) < 1e-6


@given(st.integers(16, 40), st.sets(st.integers(1, 6), min_size=1, max_size=3), st.integers(0, 3))
def test_missing_slices_and_copies_are_counted(count: int, lost: set[int], copies: int) -> None:
    places = [2.0 * number for number in range(count) if number not in lost]
    (volume,) = sort_slices(stack(places + places[:1] * copies))
    assert (volume.missing, volume.duplicates) == (len(lost), copies)
    assert len(volume.order) == len(places) + copies


def test_scouts_and_slices_are_volumes_of_their_own() -> None:
    volumes = sort_slices(stack([0, 1, 2, 3]) + stack([0], SAGITTAL))
    assert [len(volume.order) for volume in volumes] == [4, 1]
    assert all(volume.is_whole for volume in volumes)


def test_slices_without_a_place_stay_as_they_came_and_nothing_is_claimed_of_them() -> None:
    (volume,) = sort_slices([Slice(name=name, normal=None, place_mm=None) for name in "cab"])
    assert volume.order == ("c", "a", "b")
    assert (volume.spacing_mm, volume.missing, volume.duplicates) == (None, 0, 0)


@given(st.lists(st.tuples(st.sampled_from([AXIAL, SAGITTAL, None]), st.floats(-100, 100)), max_size=30))
def test_no_slice_is_lost(found: list[tuple[tuple[float, float, float] | None, float]]) -> None:
    slices = [Slice(name=name, normal=normal, place_mm=place) for name, (normal, place) in enumerate(found)]
    volumes = sort_slices(slices)
    assert sorted(name for volume in volumes for name in volume.order) == list(range(len(found)))

# SPDX-License-Identifier: Apache-2.0
"""A mailbox looks often while a round runs, and no oftener than the round needs; and seldom when nothing happens."""

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.mailbox.retrying import BUSY_S, IDLE_S, Pace


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def until_found(pace: Pace, clock: Clock, after_s: float) -> tuple[int, float]:
    """How many looks it takes to find what is there after so long, and how long."""
    began, looks = clock.now, 0
    while True:
        clock.now += max(0.0, pace.left_s)
        looks += 1
        if clock.now - began >= after_s:
            pace.came()
            return looks, clock.now - began
        pace.looked()


@given(st.floats(0.2, 2.5))
def test_steps_of_the_same_length_are_found_in_few_looks_and_soon(step_s: float) -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    for number in range(12):
        pace.answered("MASK")
        looks, took_s = until_found(pace, clock, step_s)
        if number > 2:
            assert looks <= 4
            assert took_s <= 1.35 * step_s + BUSY_S


def test_looking_seldom_does_not_make_steps_slow() -> None:
    """After a slow step come quick ones, and the pace follows within a few."""
    clock = Clock()
    pace = Pace(clock=clock)
    pace.answered("MASK")
    until_found(pace, clock, 3.0)
    took = []
    for _ in range(8):
        pace.answered("MASK")
        took.append(until_found(pace, clock, 0.15)[1])
    assert took[0] < 2.2
    assert took[-1] <= 2 * BUSY_S + 0.05


def test_when_nothing_happens_looks_come_down_to_one_a_second() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    pace.came()
    for _ in range(200):
        clock.now += max(0.0, pace.left_s)
        pace.looked()
    assert pace.left_s == pytest.approx(IDLE_S)


def test_a_long_step_makes_no_other_late() -> None:
    """Everybody waits for the slowest to train; what follows is quick, in every round."""
    clock = Clock()
    pace = Pace(clock=clock)
    took = []
    for _ in range(4):
        for kind, step_s in (("KEYS", 2.9), ("SHARE", 0.3), ("MASK", 0.3)):
            pace.answered(kind)
            took.append(until_found(pace, clock, step_s)[1])
    assert max(took[1:3] + took[4:6] + took[7:9]) < 0.45


def test_while_a_hospital_works_at_a_step_there_are_few_looks() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    pace.came()
    looks = 0
    while clock.now < 1003.0:
        clock.now += max(0.0, pace.left_s)
        pace.looked()
        looks += 1
    assert looks <= 8


@pytest.mark.parametrize("what", [Pace.wake, lambda pace: pace.answered("MASK")], ids=["wake", "answered"])
def test_who_waits_is_woken(what: Callable[[Pace], None]) -> None:
    pace = Pace()
    for _ in range(200):
        pace._busy_until = 0.0
        pace.looked()
    threading.Timer(0.1, lambda: what(pace)).start()
    began = time.monotonic()
    pace.wait()
    assert time.monotonic() - began < 0.8 * IDLE_S

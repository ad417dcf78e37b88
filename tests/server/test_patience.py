# SPDX-License-Identifier: Apache-2.0
"""A step waits for everybody until the deadline, or for a grace once it has what it needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.transport.patience import Patience, grace_s


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def after(self, seconds: float) -> None:
        self.now = 1000.0 + seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_training_is_waited_for_until_the_deadline(clock: Clock) -> None:
    patience = Patience(600, asked=10, needed=None, clock=clock)
    for second in range(9):
        clock.after(second)
        patience.note(good=True)
    assert patience.end == 1600


@pytest.mark.parametrize(("took", "end"), [(0.5, 60.5), (30.0, 120.0), (200.0, 600.0)], ids=["quick", "slow", "never past the deadline"])
def test_once_enough_have_answered_the_others_have_a_grace(clock: Clock, took: float, end: float) -> None:
    patience = Patience(600, asked=10, needed=7, clock=clock)
    for _ in range(6):
        patience.note(good=True)
    assert patience.end == 1600
    clock.after(took)
    patience.note(good=True)
    assert patience.end == 1000 + end


def test_a_bad_answer_is_not_one_that_the_step_can_do_with(clock: Clock) -> None:
    patience = Patience(600, asked=5, needed=3, clock=clock)
    for good in (True, True, False):
        patience.note(good=good)
    assert patience.end == 1600


def test_a_later_answer_does_not_lengthen_the_grace(clock: Clock) -> None:
    patience = Patience(600, asked=5, needed=3, clock=clock)
    for _ in range(3):
        patience.note(good=True)
    clock.after(40)
    patience.note(good=True)
    assert patience.end == 1060


@pytest.mark.parametrize("needed", [None, 2, 5])
def test_when_all_have_answered_nobody_is_waited_for(clock: Clock, needed: int | None) -> None:
    patience = Patience(600, asked=2, needed=needed, clock=clock)
    clock.after(3)
    patience.note(good=True)
    patience.note(good=False)
    assert patience.end == 1003


def test_who_asks_nobody_waits_for_nobody(clock: Clock) -> None:
    assert Patience(600, asked=0, needed=0, clock=clock).end == 1000


@given(st.floats(0.1, 1e6), st.floats(0, 1e6))
def test_a_grace_is_never_shorter_than_a_tenth_of_the_deadline(deadline: float, took: float) -> None:
    assert grace_s(deadline, took) >= deadline / 10
    assert grace_s(deadline, took) >= took

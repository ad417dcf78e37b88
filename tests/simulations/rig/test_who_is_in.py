# SPDX-License-Identifier: Apache-2.0
"""The journey looks whether who was revoked is out, and in is who was added, cut off before, or has a stock SuperNode."""

import pytest

from server.journal import CommittedRound
from simulations.rig.journey import Cut, Script, _is_as_enrolled


def done(number: int, *sites: str) -> CommittedRound:
    return CommittedRound(round=number, attempt=0, sites=sites, missing=(), checkpoint="c", sha256="0", seconds=1.0, update_norm=1.0)


@pytest.mark.parametrize(
    ("committed", "right"),
    [
        (done(1, "h1", "h2", "h3"), True),
        (done(2, "h1", "h2", "h3"), False),
        (done(2, "h1", "h2"), True),
        (done(3, "h1", "h2"), True),
        (done(4, "h1", "h2"), False),
        (done(4, "h1", "h2", "h4"), True),
        (done(3, "h1", "h2", "h4"), False),
    ],
)
def test_a_round_is_of_those_who_were_in_by_then(committed: CommittedRound, *, right: bool) -> None:
    script = Script(sites=3, rounds=4, minimum_cohort=2, revoke_after=1, add_after=3)
    assert _is_as_enrolled(script, committed) == right


@pytest.mark.parametrize(
    ("committed", "right"),
    [
        (done(1, "h1", "h3"), True),
        (done(2, "h1", "h3"), False),
        (done(2, "h1", "h2", "h3"), True),
        (done(3, "h1", "h3"), True),
        (done(3, "h1", "h2"), False),
    ],
)
def test_who_was_cut_off_is_back_in_the_round_after_and_a_stock_supernode_is_in_every_round(
    committed: CommittedRound, *, right: bool
) -> None:
    cuts = [Cut(round=1, phase="KEYS", hospital=2)]
    script = Script(sites=3, rounds=3, minimum_cohort=2, cuts=cuts, stock=frozenset({3}))
    assert _is_as_enrolled(script, committed) == right

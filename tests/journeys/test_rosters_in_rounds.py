# SPDX-License-Identifier: Apache-2.0
"""A consortium changes while a run goes on: who is revoked is out of the next round, who is new is in it, and nobody pays twice for it."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from common import credentials, roster
from common.errors import RosterChanged, SurvivorSet
from common.roster import Roster
from common.update import Weights
from server.journal import CommittedRound
from server.phases import Heard, Phase, Phases
from simulations import consortium
from simulations.consortium import Consortium
from simulations.engine.nursery import Nursery
from simulations.stage import Stage
from tests.journeys.made import Quiet, made_federation, made_scenario, made_stage, reserved_rounds, train

NEWCOMER, GOING = 4, 1


class Custodian:
    """The consortium's root, and everybody's roster file: five sites have homes, the first four are enrolled at first."""

    def __init__(self, stage: Stage) -> None:
        self._homes = {site: stage.home(site) for site in stage.sites}
        self._coordinator = stage.coordinator
        self._all: Consortium = consortium.found(stage.sites, entropy=os.urandom, now=int(time.time()))
        for folder in (*self._homes.values(), self._coordinator):
            for name in (credentials.KEY_FILE, "identity.pub", credentials.ROSTER_FILE, credentials.ROOTS_FILE):
                (folder / name).unlink()
        consortium.enrol(self._all, homes=self._homes, coordinator=self._coordinator)
        members = self._all.roster.members
        self._newcomer = members[NEWCOMER]
        self.first = replace(self._all.roster, members=members[:NEWCOMER])
        self.issue(self.first)

    def with_newcomer(self, before: Roster) -> Roster:
        return roster.with_member(before, self._newcomer)

    def issue(self, found: Roster, *, to_sites: bool = True) -> None:
        """Sign it, and bring it to everybody."""
        signed = roster.sign(roster.render(found), root_seed=self._all.root.seed)
        for folder in (self._coordinator, *(self._homes.values() if to_sites else ())):
            (folder / credentials.ROSTER_FILE).write_bytes(signed)


class After(Quiet):
    """Does something once a round is committed."""

    def __init__(self, **deeds: Callable[[], None]) -> None:
        self._deeds = deeds

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        self._deeds.pop(f"round_{done.round}", lambda: None)()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return made_stage(tmp_path / "run", made_scenario(private=True).with_changes(sites=5))


@pytest.fixture
def custodian(stage: Stage) -> Custodian:
    return Custodian(stage)


def test_a_new_site_is_in_the_next_round_and_a_revoked_one_is_out_of_it(stage: Stage, custodian: Custodian, nursery: Nursery) -> None:
    second = custodian.with_newcomer(custodian.first)
    third = roster.with_revoked(second, stage.sites[GOING])
    watch = After(round_1=lambda: custodian.issue(second), round_2=lambda: custodian.issue(third))
    _, rounds = made_federation(stage).train(watch, engine="local", workers=2, nursery=nursery)
    assert [done.sites for done in rounds] == [
        stage.sites[:4],
        stage.sites,
        *[tuple(site for site in stage.sites if site != stage.sites[GOING])] * 2,
    ]
    assert all(done.attempt == 0 for done in rounds)
    assert reserved_rounds(stage, stage.sites[GOING]) == [1, 2], "who is out is not made to pay"


@contextmanager
def cut(number: int, step: str, when: str) -> Iterator[None]:
    """Pull the plug on the coordinator when a step's answers are to be written down."""
    write = Phases.hear

    def hear(self: Phases, phase: Phase, heard: Heard) -> None:
        due = (phase.round, phase.step) == (number, step)
        if due and when == "before":
            raise KeyboardInterrupt
        write(self, phase, heard)
        if due:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Phases, "hear", hear)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.parametrize(
    ("step", "when"),
    [
        pytest.param("SHARE", "after", marks=pytest.mark.slow),
        ("MASK", "before"),
        pytest.param("CONFIRM", "after", marks=pytest.mark.slow),
    ],
)
def test_what_is_half_done_is_finished_under_the_roster_that_it_was_opened_with(
    stage: Stage, custodian: Custodian, nursery: Nursery, step: str, when: str
) -> None:
    with cut(2, step, when):
        train(stage, nursery)
    custodian.issue(roster.with_revoked(custodian.first, stage.sites[GOING]))
    _, rounds = train(stage, nursery)
    assert [stage.sites[GOING] in done.sites for done in rounds] == [True, True, False, False]
    assert [done.attempt for done in rounds] == [0, 0, 0, 0]
    assert [reserved_rounds(stage, site) for site in stage.sites[:4]] == [[1, 2, 3, 4], [1, 2], [1, 2, 3, 4], [1, 2, 3, 4]]


def test_where_nobody_was_heard_the_next_attempt_follows_the_newer_roster_and_nobody_trains_twice(
    stage: Stage, custodian: Custodian, nursery: Nursery
) -> None:
    """All have trained under the old roster, and the coordinator died before it wrote that down."""
    with cut(2, "KEYS", "before"):
        train(stage, nursery)
    custodian.issue(roster.with_revoked(custodian.first, stage.sites[GOING]))
    _, rounds = train(stage, nursery)
    assert [stage.sites[GOING] in done.sites for done in rounds] == [True, False, False, False]
    assert [done.attempt for done in rounds] == [0, 1, 0, 0]
    assert reserved_rounds(stage, stage.sites[0]) == [1, 2, 3, 4]


def test_updates_that_left_masked_are_masked_again_for_free_under_a_newer_roster(
    stage: Stage, custodian: Custodian, nursery: Nursery
) -> None:
    """Two of four fall before masking, twice: all give both attempts up, and say so to whoever opens the next one with a fifth site."""
    with pytest.raises(SurvivorSet):
        train(stage, nursery, *(f"{site}:raise:2:mask" for site in stage.sites[:2]))
    custodian.issue(custodian.with_newcomer(custodian.first))
    _, rounds = train(stage, nursery)
    # Attempts 0 and 1 were given up; 2 may have been asked under the old roster for all that the journal knows.
    assert [(done.attempt, len(done.sites)) for done in rounds] == [(0, 4), (3, 5), (0, 5), (0, 5)]
    assert {tuple(reserved_rounds(stage, site)) for site in stage.sites[:4]} == {(1, 2, 3, 4)}


def test_a_coordinator_does_not_go_back_to_an_older_roster(stage: Stage, custodian: Custodian, nursery: Nursery) -> None:
    second = custodian.with_newcomer(custodian.first)
    watch = After(round_1=lambda: custodian.issue(second), round_2=lambda: custodian.issue(custodian.first, to_sites=False))
    with pytest.raises(RosterChanged, match="epoch 1 is older than epoch 2"):
        made_federation(stage).train(watch, engine="local", workers=2, nursery=nursery)
    custodian.issue(second)
    assert len(train(stage, nursery)[1]) == 4

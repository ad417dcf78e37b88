# SPDX-License-Identifier: Apache-2.0
"""A deployed coordinator waits where a simulation gives up; and only where waiting can help and costs nobody."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.supercore.task_identity import TaskIdentity

from common.counting import Form
from common.errors import (
    AggregateNorm,
    CohortTooSmall,
    ConfirmQuorum,
    FedwardError,
    JournalLost,
    RosterFormat,
    RunStopped,
    SecondCoordinator,
)
from common.models import initial_weights
from common.plan import digest_of
from common.secagg.messages import Step
from common.update import AggregateDelta, Weights
from server.aggregation import Collected
from server.checkpoint import CheckpointFolder
from server.counts import CountedRound
from server.gate import FolderGate, Gate, Open
from server.home import STOP_FILE
from server.journal import Journal
from server.membership.roll import Roll
from server.persistence import Persistence
from server.rounds import Coordinator
from server.transport.exchange import Line
from tests.journeys.made import Quiet, made_scenario
from tests.server.lobby import Lobby

PLAN = made_scenario(private=False).plan
SITES = ("east", "north", "south")
QUICK = Persistence(first_s=0.02, longest_s=0.05)
TOO_FEW = CohortTooSmall("2 sites announced keys, expected at least 3.")


@pytest.fixture(autouse=True)
def _in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's messages say from which run and node they are."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Weather:
    """An aggregation that fails as told, then sums up nothing."""

    def __init__(self, *failures: FedwardError) -> None:
        self._failures = list(failures)
        self.tried: list[int] = []

    def collect(self, number: int, weights: Weights, asked: Sequence[str]) -> Collected:
        self.tried.append(number)
        if self._failures:
            raise self._failures.pop(0)
        return Collected(
            aggregate=AggregateDelta(values=np.zeros_like(weights.values), num_sites=len(asked)), attempt=0, sites=tuple(asked), missing=()
        )

    def count(self, number: int, form: Form, weights: Weights, asked: Sequence[str]) -> CountedRound:
        raise AssertionError("the plan counts nothing")

    def settle(self, number: int) -> None: ...


class Told(Quiet):
    """An observer that keeps what is waited for, and may do something about it."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.why: list[tuple[int, str]] = []
        self._then = then

    def waiting(self, number: int, why: str) -> None:
        self.why.append((number, why))
        self._then()


def coordinator(
    folder: Path,
    weather: Weather,
    *,
    persistence: Persistence | None = QUICK,
    told: Quiet | None = None,
    gate: Gate | None = None,
    lobby: Lobby | None = None,
    groups: Callable[[], tuple[frozenset[str], ...]] = lambda: (frozenset(SITES),),
) -> Coordinator:
    lobby = lobby or Lobby(dict(enumerate(SITES)))
    return Coordinator(
        roll=Roll(line=Line(lobby), plan=digest_of(PLAN), minimum=2),  # type: ignore[arg-type] # the members that a line uses
        plan=PLAN,
        initial=initial_weights(PLAN),
        groups=groups,
        journal=Journal(folder / "journal.sqlite", plan=digest_of(PLAN), session=bytes(16), power_cut_safe=True),
        checkpoints=CheckpointFolder(folder / "checkpoints", power_cut_safe=True),
        observer=told or Quiet(),
        aggregation=weather,
        gate=gate or Open(),
        persistence=persistence,
    )


def test_a_round_that_fails_for_want_of_sites_is_tried_until_it_succeeds(tmp_path: Path) -> None:
    weather, told = Weather(TOO_FEW, TOO_FEW, TOO_FEW), Told()
    coordinator(tmp_path, weather, told=told).run()
    assert weather.tried == [1, 1, 1, 1, 2, 3, 4]
    assert [number for number, _ in told.why] == [1, 1, 1]
    assert all("2 sites announced keys" in why and "tried again" in why for _, why in told.why)


def test_a_simulation_gives_up_by_name(tmp_path: Path) -> None:
    weather = Weather(TOO_FEW)
    with pytest.raises(CohortTooSmall):
        coordinator(tmp_path, weather, persistence=None).run()
    assert weather.tried == [1]


@pytest.mark.parametrize("failure", [AggregateNorm("too long."), SecondCoordinator("sites are past it.")], ids=lambda error: error.code)
def test_what_waiting_does_not_mend_ends_a_deployed_run_too(tmp_path: Path, failure: FedwardError) -> None:
    """A sum that is wrong has spent its updates: to try again would make sites pay again, for as long as their budgets last."""
    weather = Weather(failure)
    with pytest.raises(type(failure)):
        coordinator(tmp_path, weather).run()
    assert weather.tried == [1]


def test_what_may_make_sites_pay_again_is_tried_a_few_times_and_not_for_ever(tmp_path: Path) -> None:
    lost = ConfirmQuorum("2 sites confirmed, expected at least 3.")
    weather = Weather(*[lost] * 9)
    with pytest.raises(ConfirmQuorum):
        coordinator(tmp_path, weather).run()
    assert weather.tried == [1] * (1 + QUICK.costly)


def test_a_roster_that_cannot_be_read_is_waited_out(tmp_path: Path) -> None:
    torn = [RosterFormat("the roster is refused: it does not parse.")] * 2

    def groups() -> tuple[frozenset[str], ...]:
        if torn:
            raise torn.pop()
        return (frozenset(SITES),)

    told = Told()
    coordinator(tmp_path, Weather(), told=told, groups=groups).run()
    assert len(told.why) == 2


def test_too_few_sites_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.rounds._TELL_S", 0.5)
    lobby = Lobby({0: "east"})
    told = Told(then=lambda: lobby.names.update({1: "north", 2: "south"}))
    weather = Weather()
    coordinator(tmp_path, weather, told=told, lobby=lobby).run()
    assert weather.tried == [1, 2, 3, 4]
    [(number, why)] = told.why
    assert (number, "1 enrolled sites are connected, minimum_cohort is 2" in why) == (1, True)


def test_sites_that_refuse_are_not_waited_for_in_a_simulation(tmp_path: Path) -> None:
    with pytest.raises(CohortTooSmall, match="node 1: E_PLAN_NOT_APPROVED"):
        coordinator(tmp_path, Weather(), persistence=None, lobby=Lobby({0: "east", 1: None})).run()


def test_a_site_that_the_roster_does_not_name_does_not_count(tmp_path: Path) -> None:
    with pytest.raises(CohortTooSmall, match="1 enrolled sites"):
        coordinator(tmp_path, Weather(), persistence=None, lobby=Lobby({0: "east", 1: "stranger", 2: None})).run()


def test_a_stop_ends_the_waiting(tmp_path: Path) -> None:
    told = Told(then=(tmp_path / STOP_FILE).touch)
    with pytest.raises(RunStopped):
        coordinator(
            tmp_path, Weather(*[TOO_FEW] * 99), told=told, gate=FolderGate(tmp_path), persistence=Persistence(first_s=60, longest_s=60)
        ).run()
    assert len(told.why) == 1


def test_a_stopped_run_goes_on_where_it_stood(tmp_path: Path) -> None:
    told = Told(then=(tmp_path / STOP_FILE).touch)
    first = coordinator(tmp_path, Weather(TOO_FEW), told=told, gate=FolderGate(tmp_path))
    with pytest.raises(RunStopped):
        first.run()
    first.journal.close()
    (tmp_path / STOP_FILE).unlink()
    weather = Weather()
    coordinator(tmp_path, weather, gate=FolderGate(tmp_path)).run()
    assert weather.tried == [1, 2, 3, 4]


def test_a_pause_holds_before_the_next_round_and_no_earlier(tmp_path: Path) -> None:
    (tmp_path / "pause").touch()
    weather = Weather()
    paused = threading.Event()

    def resume() -> None:
        assert weather.tried == []
        paused.set()
        (tmp_path / "pause").unlink()

    coordinator(tmp_path, weather, told=Told(then=resume), gate=FolderGate(tmp_path)).run()
    assert paused.is_set()
    assert weather.tried == [1, 2, 3, 4]


def test_a_round_that_had_begun_is_finished_though_the_run_was_paused_meanwhile(tmp_path: Path) -> None:
    first = coordinator(tmp_path, Weather(TOO_FEW), persistence=None)
    with pytest.raises(CohortTooSmall):
        first.run()
    first.journal.close()
    (tmp_path / "pause").touch()
    weather = Weather()

    def resume() -> None:
        assert weather.tried == [1]
        (tmp_path / "pause").unlink()

    coordinator(tmp_path, weather, told=Told(then=resume), gate=FolderGate(tmp_path)).run()
    assert weather.tried == [1, 2, 3, 4]


def test_a_step_is_held_longest_where_giving_up_would_make_sites_pay_again() -> None:
    usual = Persistence()
    assert usual.hold_of(Step.UNMASK) > usual.hold_of(Step.MASK) == usual.hold_of(Step.SHARE)


def test_checkpoints_without_their_journal_are_not_taken_for_a_new_run(tmp_path: Path) -> None:
    """To begin anew in silence would ask every site to pay for the same rounds again."""
    first = coordinator(tmp_path, Weather())
    first.run()
    first.journal.close()
    for path in tmp_path.glob("journal.sqlite*"):
        path.unlink()
    weather = Weather()
    with pytest.raises(JournalLost, match="checkpoints and no journal"):
        coordinator(tmp_path, weather).run()
    assert weather.tried == []


@pytest.mark.parametrize("damage", [b"no database at all", b""], ids=["overwritten", "pages torn"])
def test_a_damaged_journal_is_named_and_nobody_is_asked(tmp_path: Path, damage: bytes) -> None:
    first = coordinator(tmp_path, Weather())
    first.run()
    first.journal.close()
    path = tmp_path / "journal.sqlite"
    content = bytearray(path.read_bytes())
    path.write_bytes(damage * 400 if damage else content[:4096] + bytes(b ^ 0xFF for b in content[4096:]))
    with pytest.raises(JournalLost, match="is damaged"):
        coordinator(tmp_path, Weather()).run()


def test_a_damaged_checkpoint_is_said_by_code_and_its_round_is_made_again(tmp_path: Path) -> None:
    first = coordinator(tmp_path, Weather())
    first.run()
    first.journal.close()
    newest = max((tmp_path / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    weather, told = Weather(), Told()
    coordinator(tmp_path, weather, told=told).run()
    assert weather.tried == [4]
    [(number, why)] = told.why
    assert (number, why.startswith("E_CHECKPOINT_CORRUPT: ")) == (4, True)

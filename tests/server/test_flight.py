# SPDX-License-Identifier: Apache-2.0
"""The run as Flower sees it: submitted once, submitted again when it died without a word, ended by the word that it leaves."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import FedwardError, PlanError, RunStopped, TransportError
from server.home import APP_LOCK_FILE, LOG_FILE, OUTCOME_FILE, CoordinatorFile, CoordinatorHome
from server.process import flight
from server.process.flight import Flights
from server.process.logbook import Logbook
from server.process.outcome import Outcome
from server.process.processes import Lock


class FakeSuperLink:
    """Runs, numbered; `running` is what it says of the newest."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.stopped: list[int] = []
        self.running = True
        self.down = False

    def start_run(self) -> int:
        if self.down:
            raise TransportError("down")
        self.started.append(len(self.started) + 1)
        return self.started[-1]

    def stop_run(self, run: int) -> None:
        self.stopped.append(run)
        raise TransportError("it is over there already")

    def is_running(self, run: int) -> bool:
        if self.down:
            raise TransportError("down")
        return self.running and run == self.started[-1]


class Scene:
    """Flights over a run folder, a clock that the test winds, and a ServerApp that the test plays."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(flight.time, "monotonic", lambda: self.now)
        home = CoordinatorHome(folder, CoordinatorFile())
        home.run.mkdir()
        self.run, self.superlink = home.run, FakeSuperLink()
        self.flights = Flights(home, Logbook(home.run / LOG_FILE))
        self._lives = 0

    def look(self, seconds: float = 0.25) -> Outcome | None:
        """Once, after so long."""
        self.now += seconds
        return self.flights.look(self.superlink)

    def take_up(self) -> Lock:
        """A ServerApp's process begins. Another one each time, though this process plays them all."""
        lock = Lock(self.run / APP_LOCK_FILE)
        assert lock.take()
        self._lives += 1
        (self.run / APP_LOCK_FILE).write_text(f"[-1, {self._lives}]")
        return lock

    def leave_word(self, **word: str) -> None:
        Outcome(run=self.superlink.started[-1], **{"end": "refused", **word}).write(self.run / OUTCOME_FILE)  # type: ignore[arg-type]

    def play(self, last: Callable[[], None] = lambda: None) -> Outcome | None:
        """A life from submission to end; `last` is what it does before it is gone."""
        while len(self.superlink.started) == len(self.superlink.stopped):
            self.look()
        lock = self.take_up()
        assert self.look() is None
        last()
        lock.release()
        return self.look()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(tmp_path, monkeypatch)


def test_it_is_submitted_once_and_left_alone_while_its_process_lives(scene: Scene) -> None:
    assert [scene.look() for _ in range(5)] == [None] * 5
    scene.take_up()
    assert [scene.look(10) for _ in range(50)] == [None] * 50
    assert (scene.superlink.started, scene.superlink.stopped) == ([1], [])


def test_who_dies_without_a_word_is_started_again_and_the_old_run_is_stopped(scene: Scene) -> None:
    assert scene.play() is None
    assert (scene.flights.deaths, scene.superlink.stopped) == (1, [1])
    scene.look(1)
    assert scene.superlink.started == [1, 2]


def test_a_life_shorter_than_a_look_is_seen_by_what_it_wrote(scene: Scene) -> None:
    scene.look()
    scene.take_up().release()
    scene.look()
    assert scene.flights.deaths == 1


def test_a_life_that_never_begins_is_given_up_when_flower_says_so_or_after_two_minutes(scene: Scene) -> None:
    scene.look()
    scene.superlink.running = False
    scene.look(3)
    assert scene.superlink.stopped == [1]
    scene.superlink.running = True
    scene.look(1)
    scene.superlink.down = True  # who does not answer has said nothing
    for _ in range(39):
        scene.look(3)
    assert scene.superlink.stopped == [1]
    scene.look(10)
    assert scene.superlink.stopped == [1, 2]


def test_an_installation_that_cannot_even_begin_is_told_and_not_tried_for_ever(scene: Scene) -> None:
    scene.superlink.running = False
    with pytest.raises(TransportError, match="started 6 times") as told:
        deque((scene.look() for _ in range(400)), maxlen=0)
    assert "import server.app" in told.value.fix
    assert scene.now < 60


def test_done_is_believed_and_so_is_a_refusal_with_its_words(scene: Scene) -> None:
    word = scene.play(lambda: scene.leave_word(end="done"))
    assert word is not None
    assert word.end == "done"


@pytest.mark.parametrize("error", [PlanError("no plan.", fix="Make one."), RunStopped("told to stop.", fix="Start again.")])
def test_a_refusal_ends_it_as_the_error_that_it_was(scene: Scene, error: FedwardError) -> None:
    word = scene.play(lambda: scene.leave_word(end="stopped" if isinstance(error, RunStopped) else "refused", **error.as_dict()))
    assert word is not None
    again = word.as_error()
    assert (type(again), str(again), again.fix, again.exit_code) == (type(error), str(error), error.fix, error.exit_code)


@pytest.mark.parametrize("code", ["E_COHORT_TOO_SMALL", "E_ROSTER_EXPIRED", "E_DISK_FULL"])
def test_what_somebody_else_mends_is_waited_out_however_often(scene: Scene, code: str) -> None:
    for _ in range(20):
        assert scene.play(lambda: scene.leave_word(code=code)) is None
    assert len(scene.superlink.started) == 20


def test_a_fault_of_ours_is_tried_again_and_then_told(scene: Scene) -> None:
    words = [scene.play(lambda: scene.leave_word(code="E_UNFORESEEN")) for _ in range(4)]
    assert words[:3] == [None] * 3
    assert words[3] is not None
    assert words[3].code == "E_UNFORESEEN"


def test_the_word_of_an_earlier_run_is_not_taken_for_this_ones(scene: Scene) -> None:
    Outcome(run=17, end="done").write(scene.run / OUTCOME_FILE)
    assert scene.play() is None
    assert scene.flights.deaths == 1


def test_a_superlink_that_takes_no_run_is_asked_again_with_pauses(scene: Scene) -> None:
    scene.superlink.down = True
    for _ in range(100):
        scene.look()
    scene.superlink.down = False
    while not scene.superlink.started:
        scene.look()
    assert 25 < scene.now < 70

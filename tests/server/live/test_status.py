# SPDX-License-Identifier: Apache-2.0
"""The status of a run: what events make of it, what survives a restart, and what is written and read."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import StatusUnreadable, TrainFailed
from server.absences import Absence
from server.aggregation import FAILED, SILENT
from server.live import story, watch
from server.live.look import Look, awaited, look, pace, time_left
from server.live.processes import PROCESSES_FILE, Process, read_processes, write_processes
from server.live.status import OUT_OF_SIGHT_S, STATUS_FILE, read_status, write_status
from server.live.watch import Watch
from server.live.wording import headline
from tests.server.live.runs import NOWHERE, SESSION, SITES, STEPS, begun, committed, plan, site, whole_round


def test_who_is_asked_is_awaited_until_heard() -> None:
    status = story.round_opened(begun(), 1, list(SITES[:4]), 1010.0)
    status = story.phase_opened(status, "KEYS", SITES[:4], 1011.0)
    assert [each.name for each in awaited(status)] == list(SITES[:4])
    assert site(status, "west").state == "not in cohort"
    assert status.deadline == 1011.0 + status.plan.deadline_s
    status = story.site_heard(status, "KEYS", "north", None, 4_000_000, 1042.0)
    north = site(status, "north")
    assert (north.state, north.since, north.last_seen, north.bytes_up) == ("answered", 1042.0, 1042.0, 4_000_000)
    assert [each.name for each in awaited(status)] == ["east", "mercy", "south"]


@pytest.mark.parametrize(
    ("code", "state", "seen"),
    [
        ("E_PRIVACY_BUDGET", "refused", 1020.0),
        ("E_SITE_PAUSED", "paused", 1020.0),
        ("E_SITE_LEFT", "left", 1020.0),
        (FAILED, "failed", None),
    ],
)
def test_a_code_decides_a_sites_state_and_whether_it_was_seen(code: str, state: str, seen: float | None) -> None:
    status = story.phase_opened(story.round_opened(begun(), 1, list(SITES), 1010.0), "KEYS", SITES, 1010.0)
    found = site(story.site_heard(status, "KEYS", "mercy", code, 0, 1020.0), "mercy")
    assert (found.state, found.code, found.last_seen) == (state, code, seen)


def test_who_is_still_asked_when_a_step_closes_was_silent() -> None:
    status = whole_round(begun(), 1, now=1000.0, lost={"mercy": SILENT})
    mercy = site(status, "mercy")
    assert (mercy.state, mercy.code, mercy.last_seen, mercy.rounds) == ("silent", SILENT, None, 0)
    assert site(status, "north").rounds == 1
    assert status.failed == {SILENT: 1}, "the step and the commit tell of one absence"
    assert [(failure.round, failure.site, failure.code) for failure in status.failures] == [(1, "mercy", SILENT)]


def test_a_group_that_closes_later_adds_to_the_same_step() -> None:
    status = story.round_opened(begun(), 1, list(SITES), 1000.0)
    status = story.phase_opened(status, "KEYS", SITES[:3], 1000.0)
    status = story.phase_opened(status, "KEYS", SITES[3:], 1000.1)
    for name in SITES:
        status = story.site_heard(status, "KEYS", name, None, 10, 1005.0)
    status = story.phase_closed(status, "KEYS", answered=3, asked=3, now=1006.0)
    status = story.phase_closed(status, "KEYS", answered=2, asked=2, now=1006.1)
    (done,) = status.phases
    assert (done.answered, done.asked, done.seconds) == (5, 5, 6.0)
    assert status.took["KEYS"].times == 1, "one step, however many groups took it side by side"


def test_a_site_that_no_step_tells_of_is_told_by_the_commit() -> None:
    status = story.round_opened(begun(), 1, list(SITES), 1000.0)
    done = replace(committed(1, sites=SITES[:4]), missing=(Absence(site="west", why="E_UNKNOWN_PEER"),))
    status = story.round_committed(status, done, 1030.0)
    assert (site(status, "west").state, site(status, "west").code) == ("refused", "E_UNKNOWN_PEER")
    assert status.failed == {"E_UNKNOWN_PEER": 1}


def test_an_aggregation_without_steps_is_told_too() -> None:
    status = story.round_opened(begun(), 1, list(SITES), 1000.0)
    status = story.site_answered(status, "north", refused=False, now=1003.0)
    status = story.site_answered(status, "mercy", refused=True, now=1004.0)
    assert (site(status, "north").state, site(status, "mercy").state) == ("answered", "refused")
    status = story.phase_opened(status, "KEYS", SITES, 1005.0)
    status = story.site_heard(status, "KEYS", "mercy", "E_POLICY", 0, 1006.0)
    status = story.site_answered(status, "mercy", refused=True, now=1006.0)
    assert site(status, "mercy").code == "E_POLICY", "what a step told stays"


def test_waiting_lasts_until_anything_happens() -> None:
    status = story.waiting(whole_round(begun(), 1, now=1000.0), 2, "too few sites are there (2 of 3).", 1100.0)
    status = story.waiting(status, 2, "too few sites are there (2 of 3).", 1160.0)
    assert (status.state, status.since) == ("waiting", 1100.0)
    said = headline(Look(at=1160.0, status=replace(status, written=1160.0)))
    assert said.text == "Waiting in round 2 for 1 min 00 s: too few sites are there (2 of 3)."
    status = story.round_opened(status, 2, list(SITES), 1200.0)
    assert (status.state, status.why) == ("running", "")


def test_what_a_run_waits_for_names_no_folder_of_this_machine() -> None:
    why = "E_CHECKPOINT_CORRUPT: checkpoint '/srv/fedward/run/checkpoints/round-000003.safetensors' is torn; 3 of 5 sites and/or more."
    status = story.waiting(begun(), 3, why, 1000.0)
    assert status.why == "E_CHECKPOINT_CORRUPT: checkpoint 'round-000003.safetensors' is torn; 3 of 5 sites and/or more."


def test_lists_stay_short_however_long_the_run() -> None:
    status = begun(rounds=5000)
    for number in range(1, 2001):
        status = story.round_committed(status, committed(number, missing={"mercy": SILENT}), 1000.0 + number)
    assert status.committed == 2000
    assert len(status.history) <= story.HISTORY_KEPT
    assert (status.history[0].round, status.history[-1].round) == (1, 2000)
    assert len(status.failures) == story.FAILURES_KEPT
    assert status.failed == {SILENT: 2000}


def test_time_left_is_said_with_its_spread_and_shrinks_while_a_round_goes_on() -> None:
    status = begun(rounds=10)
    assert pace(status) is None, "nothing is said of a pace before there is one"
    for number, seconds in enumerate((20.0, 30.0, 40.0, 50.0, 30.0), start=1):
        status = story.round_committed(status, committed(number, seconds=seconds), 1000.0 + 30 * number)
    found = pace(status)
    assert found is not None
    assert (found.low, found.median, found.high) == (30.0, 30.0, 40.0)
    assert found.updates_per_minute == pytest.approx(60 * 25 / 170)
    status = story.round_opened(status, 6, list(SITES), 2000.0)
    at_first, later, overdue = (time_left(status, now) for now in (2000.0, 2020.0, 2500.0))
    assert at_first is not None
    assert later is not None
    assert overdue is not None
    assert (at_first.low, at_first.likely, at_first.high) == (150.0, 150.0, 200.0)
    assert later.likely == 130.0
    assert overdue.likely == 120.0, "a round that takes longer leaves the others as they were"


def test_a_restarted_coordinator_goes_on_with_what_the_last_one_saw() -> None:
    before = whole_round(whole_round(begun(), 1, now=1000.0), 2, now=1030.0, lost={"mercy": "E_POLICY"})
    before = story.phase_opened(story.round_opened(before, 3, list(SITES), 1060.0), "KEYS", SITES, 1060.0)
    before = story.site_heard(before, "KEYS", "north", None, 500, 1062.0)
    journal = [committed(1), committed(2, sites=SITES[:1])]
    after = story.resume(before, begun(now=1100.0), journal)
    assert (after.starts, after.state, after.committed) == (2, "starting", 2)
    assert site(after, "north").bytes_up == site(before, "north").bytes_up
    after = story.round_opened(after, 3, list(SITES), 1101.0)
    assert after.round_since == 1060.0, "the same round goes on"
    assert [(step.phase, step.state) for step in site(after, "north").steps] == [("KEYS", "answered")]
    assert after.failed == before.failed


def test_what_was_committed_and_not_told_is_told_by_the_journal() -> None:
    before = whole_round(begun(), 1, now=1000.0)
    after = story.resume(before, begun(now=1100.0), [committed(1), committed(2), committed(3)])
    assert (after.committed, site(after, "north").rounds) == (3, 3)
    assert [done.round for done in after.history] == [1, 2, 3]


def test_another_roster_names_who_is_new_and_who_is_gone() -> None:
    status = whole_round(begun(), 1, now=1000.0)
    status = story.enrolled(status, {*SITES, "harbour"} - {"west"}, 1050.0)
    assert (site(status, "harbour").state, site(status, "west").state) == ("unheard", "revoked")
    status = story.round_opened(status, 2, ["harbour", "north"], 1060.0)
    assert (site(status, "west").state, site(status, "east").state) == ("revoked", "not in cohort")


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    status = whole_round(begun(), 1, now=1000.0, lost={"mercy": "E_POLICY"})
    write_status(tmp_path / STATUS_FILE, status)
    assert read_status(tmp_path / STATUS_FILE) == status
    assert read_status(tmp_path / "nothing") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda facts: {**facts, "schema": 2, "novelty": 1},
        lambda facts: {**facts, "round": "three"},
        lambda facts: {**facts, "state": "dancing"},
        lambda facts: {key: value for key, value in facts.items() if key != "sites"},
    ],
)
def test_a_status_of_another_version_is_refused_by_name(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def] # a lambda above
    path = tmp_path / STATUS_FILE
    write_status(path, begun())
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(StatusUnreadable, match="no status of this version of fedward"):
        read_status(path)
    seen = look(tmp_path)
    assert (seen.status, headline(seen).tone) == (None, "alarm"), "a reader shows it and lives on"


def test_processes_are_the_supervisors_to_tell(tmp_path: Path) -> None:
    told = (Process(name="superlink", state="running", since=1.0, restarts=2, ended="signal 9"),)
    write_processes(tmp_path / PROCESSES_FILE, told)
    assert read_processes(tmp_path / PROCESSES_FILE) == told
    (tmp_path / PROCESSES_FILE).write_text("[{}]")
    with pytest.raises(StatusUnreadable):
        read_processes(tmp_path / PROCESSES_FILE)


def test_a_coordinator_is_gone_when_it_writes_no_more_and_is_not_over() -> None:
    status = whole_round(begun(), 1, now=1000.0)
    assert not Look(at=status.written + OUT_OF_SIGHT_S - 1, status=status).gone
    assert Look(at=status.written + OUT_OF_SIGHT_S + 1, status=status).gone
    over = story.ended(status, "finished", "", 1050.0)
    assert not Look(at=over.written + 10 * OUT_OF_SIGHT_S, status=over).gone


def test_the_watch_writes_at_once_when_a_step_begins_and_seldom_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[int, str]] = []
    wrote = threading.Condition()

    def note(path: Path, status: object) -> None:
        write_status(path, status)  # type: ignore[arg-type] # as it came
        with wrote:
            written.append((sum(each.state == "answered" for each in status.sites), status.phase))  # type: ignore[attr-defined] # a Status
            wrote.notify_all()

    monkeypatch.setattr(watch, "write_status", note)
    with Watch(tmp_path / STATUS_FILE, plan(), session=SESSION, sites=SITES) as watching:
        watching.round_opened(1, list(SITES))
        watching.phase_opened(1, "KEYS", asked=SITES)
        with wrote:
            assert wrote.wait_for(lambda: any(phase == "KEYS" for _, phase in written), timeout=watch.PACE_S / 2)
        before = len(written)
        for _ in range(40):
            for name in SITES:
                watching.site_heard(1, "KEYS", name, code=None, bytes_up=10)
        with wrote:
            assert wrote.wait_for(lambda: written[-1][0] == len(SITES), timeout=5.0)
        assert len(written) - before <= 3, "two hundred answers are not two hundred files"
        watching.ended("finished")
    found = read_status(tmp_path / STATUS_FILE)
    assert found is not None
    assert (found.state, site(found, "north").bytes_up) == ("finished", 400)


def test_a_quiet_coordinator_is_told_from_a_dead_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(watch, "PACE_S", 0.01)
    path = tmp_path / STATUS_FILE
    with Watch(path, plan(), session=SESSION, sites=SITES):
        first = read_status(path)
        assert first is not None
        until = time.monotonic() + 5.0
        while (now := read_status(path)) is not None and now.written <= first.written:
            assert time.monotonic() < until, "nothing was written while nothing happened"
            time.sleep(0.01)


def test_what_ends_a_run_is_its_last_word(tmp_path: Path) -> None:
    path = tmp_path / STATUS_FILE

    def run() -> None:
        with Watch(path, plan(), session=SESSION, sites=SITES) as watching:
            watching.round_opened(1, list(SITES))
            raise TrainFailed("a text that may name a folder", fix="")

    with pytest.raises(TrainFailed):
        run()
    found = read_status(path)
    assert found is not None
    assert (found.state, found.why) == ("stopped", "E_TRAIN_FAILED")
    assert "a folder" not in path.read_text(), "codes are shown, never an exception's text"


def test_the_death_of_a_program_is_not_the_end_of_a_run(tmp_path: Path) -> None:
    def run() -> None:
        with Watch(tmp_path / STATUS_FILE, plan(), session=SESSION, sites=SITES) as watching:
            watching.round_opened(1, list(SITES))
            raise ConnectionError("Flower is gone")

    with pytest.raises(ConnectionError):
        run()
    found = read_status(tmp_path / STATUS_FILE)
    assert found is not None
    assert found.state == "running", "what comes next is a restart"


def test_a_second_watch_of_the_session_continues_and_of_another_begins(tmp_path: Path) -> None:
    path = tmp_path / STATUS_FILE
    with Watch(path, plan(), session=SESSION, sites=SITES) as first:
        first.round_committed(committed(1), NOWHERE)
    with Watch(path, plan(), session=SESSION, sites=SITES, committed=[committed(1)]) as second:
        assert (second.status.starts, second.status.committed) == (2, 1)
    with Watch(path, plan(), session=bytes(16), sites=SITES) as other:
        assert (other.status.starts, other.status.committed) == (1, 0)


def test_a_disk_that_is_full_stops_no_run(tmp_path: Path) -> None:
    with Watch(tmp_path / "gone" / STATUS_FILE, plan(), session=SESSION, sites=SITES) as watching:
        watching.round_opened(1, list(SITES))
        assert watching.status.round == 1


def test_every_step_of_a_round_is_on_record() -> None:
    status = whole_round(begun(), 1, now=1000.0)
    assert [done.phase for done in status.phases] == list(STEPS)
    assert {phase: took.seconds for phase, took in status.took.items()} == dict.fromkeys(STEPS, 5.0)

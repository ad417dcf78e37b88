# SPDX-License-Identifier: Apache-2.0
"""What a tired person reads: sentences about a run, and a terminal of eighty columns."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from common import errors
from server.aggregation import FAILED, LEFT_OUT, SILENT
from server.live import story
from server.live.look import Look
from server.live.processes import Process
from server.live.reasons import REASONS, RUN_REASONS, of_run, reason
from server.live.show import as_facts, follow, render
from server.live.status import STATUS_FILE, Status, write_status
from server.live.wording import headline, names, size
from tests.server.live.runs import SITES, begun, committed, site, whole_round


def shown(seen: Look) -> str:
    console = Console(width=80, record=True, file=open("/dev/null", "w"), force_terminal=False)  # noqa: SIM115 - the console's own
    with console.file:
        console.print(render(seen))
        return console.export_text()


def in_training() -> Status:
    status = whole_round(begun(rounds=120), 1, now=1000.0)
    status = story.phase_opened(story.round_opened(status, 2, list(SITES), 1040.0), "KEYS", SITES, 1040.0)
    for name in ("east", "south", "west"):
        status = story.site_heard(status, "KEYS", name, None, 1000, 1050.0)
    return replace(status, written=1100.0)


def test_the_headline_says_what_goes_on_and_who_is_awaited_for_how_long() -> None:
    said = headline(Look(at=1100.0, status=in_training()))
    assert said.text == "Round 2 of 120: sites are training; 3 of 5 have answered, mercy and north are awaited for 1 min 00 s."
    assert said.tone == "calm"


def test_a_dead_coordinator_is_told_with_since_when_and_what_the_supervisor_does() -> None:
    seen = Look(at=1165.0, status=in_training(), processes=(Process(name="serverapp", state="failed", since=1101.0, ended="signal 9"),))
    said = headline(seen)
    assert said.text.startswith(
        "The coordinator's program has not been heard of for 1 min 05 s; it was in round 2. Committed rounds are safe."
    )
    assert "serverapp (signal 9)" in said.text
    assert said.tone == "alarm"


def test_the_end_is_told() -> None:
    done = story.ended(whole_round(begun(rounds=1), 1, now=1000.0), "finished", "", 1050.0)
    assert headline(Look(at=9999.0, status=done)).text == "Finished: 1 of 1 rounds are committed. The model is in the run folder."


def test_an_early_end_and_an_earlier_model_are_told() -> None:
    trained = whole_round(whole_round(begun(rounds=9), 1, now=1000.0), 2, now=1010.0)
    done = story.ended(story.chosen(trained, 1, 1040.0), "finished", "", 1050.0)
    assert headline(Look(at=9999.0, status=done)).text == (
        "Finished: 2 of 9 rounds are committed. Models were judged no better than before, so training has ended early. "
        "The model of round 1 was judged best, and is in the run folder."
    )
    stopped = story.ended(in_training(), "stopped", "E_COHORT_TOO_SMALL", 1100.0)
    assert headline(Look(at=9999.0, status=stopped)).text == (
        "Stopped in round 2: fewer sites answered than a sum needs to hide one of them (E_COHORT_TOO_SMALL). "
        "Every committed round is kept. Bring the silent sites back, then go on: fedward server start."
    )
    assert headline(Look(at=1.0, status=None)).tone == "attention"


def test_being_told_to_stop_or_to_pause_is_no_failure() -> None:
    stopped = story.ended(in_training(), "stopped", "E_STOPPED", 1100.0)
    assert headline(Look(at=1101.0, status=stopped)).tone == "attention"
    assert stopped.failed == in_training().failed
    said = headline(Look(at=1101.0, status=in_training(), pausing=True))
    assert said.text.endswith("It is paused: no further round begins until fedward server resume.")


def test_every_code_of_the_tree_has_words() -> None:
    codes = re.findall(r"(E_[A-Z0-9_]+)", errors.__doc__ or "")
    assert len(codes) > 60
    for code in (*codes, SILENT, FAILED):
        assert reason(code).what, code
        assert not reason(code).what.endswith("."), "a clause, which goes on after a site's name"
        assert reason(code).todo.endswith("."), code
        assert of_run(code).what, code
        assert of_run(code).todo.endswith("."), code
    assert reason("E_UNKNOWN_TO_THIS_VERSION").what == "refused with E_UNKNOWN_TO_THIS_VERSION"


def test_no_words_are_kept_for_a_code_that_does_not_exist() -> None:
    known = set(re.findall(r"(E_[A-Z0-9_]+)", errors.__doc__ or "")) | {SILENT, FAILED, LEFT_OUT}
    assert set(REASONS) | set(RUN_REASONS) <= known


def test_a_terminal_of_eighty_columns_holds_it_all() -> None:
    status = whole_round(begun(rounds=120), 1, now=1000.0, lost={"mercy": "E_PRIVACY_BUDGET", "north": SILENT})
    long_name = "university-hospital-of-somewhere-far-away"
    status = story.enrolled(status, {*SITES, long_name}, 1060.0)
    text = shown(
        Look(at=1061.0, status=replace(status, written=1061.0), processes=(Process(name="superlink", state="running", since=1.0),))
    )
    assert max(map(len, text.splitlines())) <= 80
    assert "has used up its privacy budget" in re.sub(r"\s+", " ", text)
    assert "E_PRIVACY_BUDGET" in text
    assert "superlink" in text
    rows = [line for line in text.splitlines() if line.split(" ")[0] in SITES]
    assert {row.split()[0] for row in rows[:2]} == {"mercy", "north"}, "sites in trouble come first"


def test_a_thousand_sites_are_cut_after_those_in_trouble() -> None:
    many = [f"site-{number:04d}" for number in range(1000)]
    status = story.round_opened(story.enrolled(begun(), many, 1000.0), 1, many, 1000.0)
    status = story.site_heard(story.phase_opened(status, "KEYS", many, 1001.0), "KEYS", "site-0777", FAILED, 0, 1002.0)
    text = shown(Look(at=1003.0, status=replace(status, written=1003.0)))
    assert "site-0777" in text
    assert len(text.splitlines()) < 60
    assert re.search(r"and \d+ more", text)


def test_facts_for_machines_are_the_file_and_what_follows_from_it() -> None:
    status = begun(rounds=10)
    for number in range(1, 6):
        status = story.round_committed(status, committed(number, seconds=30.0), 1000.0 + number)
    facts = as_facts(Look(at=1010.0, status=status))
    assert facts["seconds_per_round"] == 30.0
    assert facts["seconds_left"] == {"low": 150.0, "likely": 150.0, "high": 150.0}
    assert facts["status"]["committed"] == 5
    assert not facts["gone"]


def test_following_ends_with_the_run(tmp_path: Path) -> None:
    path = tmp_path / STATUS_FILE
    status = in_training()
    write_status(path, status)

    def sleep(seconds: float) -> None:
        del seconds
        write_status(path, story.ended(status, "finished", "", 1200.0))

    with Path("/dev/null").open("w") as nowhere:
        assert follow(tmp_path, Console(file=nowhere), sleep=sleep).over


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (40_000_000, "40 MB"), (1_234_567, "1.23 MB"), (9.996e11, "1 TB")]
)
def test_sizes_have_three_digits(count: float, said: str) -> None:
    assert size(count) == said


def test_names_are_few() -> None:
    sites = begun().sites
    assert names(sites[:1]) == "east"
    assert names(sites[:2]) == "east and mercy"
    assert names(sites) == "east, mercy, north and 2 others"
    assert site(begun(), "east") in sites

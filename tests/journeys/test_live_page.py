# SPDX-License-Identifier: Apache-2.0
"""The live page in a real browser, fed with what a real small federation told its observer, event by event.

Four sites, four rounds, statistics and evaluations; one site fails while it trains in the third round.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.plan import Plan
from server.live.processes import PROCESSES_FILE, Process, write_processes
from server.live.serve import serve
from server.live.status import STATUS_FILE, Status, read_status, write_status
from server.live.watch import Watch
from simulations.engine.nursery import Nursery
from tests.journeys.browser import Browser, browser, needs_chromium
from tests.journeys.made import made_federation, made_stage, pictures
from tests.journeys.test_counted_rounds import counting

pytestmark = needs_chromium

SITES = ("site_00", "site_01", "site_02", "site_03")
FAILING = "site_02"
Event = tuple[str, tuple[Any, ...], dict[str, Any]]


class Tape:
    """An observer that keeps every event as it came."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **facts: self.events.append((name, args, facts))


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> tuple[Plan, list[Event]]:
    folder = tmp_path_factory.mktemp("taped")
    pictures(folder / "pictures", patients=240, contrast=60)
    stage, recording = made_stage(folder / "run", counting()), Tape()
    made_federation(stage, faults=(f"{FAILING}:raise:3",)).train(recording, engine="local", workers=2, nursery=nursery)  # type: ignore[arg-type] # hears all
    assert tuple(sorted(stage.sites)) == SITES
    return stage.scenario.plan, recording.events


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


class Replay:
    """A run folder that grows as the tape is played, and its page."""

    def __init__(self, run: Path, plan: Plan, events: list[Event], exit_stack: ExitStack) -> None:
        self.run, self._events = run, iter(events)
        self.watch = exit_stack.enter_context(Watch(run / STATUS_FILE, plan, session=bytes(16), sites=SITES))
        self.serving = exit_stack.enter_context(ExitStack())
        self.url = self.serving.enter_context(serve(run, port=0))

    def play(self, until: Callable[[Status, str], bool]) -> None:
        """Tell events until one is told after which that holds."""
        for name, args, facts in self._events:
            getattr(self.watch, name)(*args, **facts)
            if until(self.watch.status, name):
                return
        pytest.fail("the tape ended before")


@pytest.fixture
def replay(tmp_path: Path, tape: tuple[Plan, list[Event]]) -> Iterator[Replay]:
    with ExitStack() as stack:
        yield Replay(tmp_path, *tape, stack)


def committed(number: int) -> Callable[[Status, str], bool]:
    return lambda status, name: name == "round_committed" and status.committed == number


def test_a_round_is_seen_as_it_goes_on(replay: Replay, chromium: Browser) -> None:
    chromium.open(replay.url)
    chromium.until_text("#headline", "Starting: asking which sites are there.")
    replay.play(lambda status, name: status.phase == "KEYS" and name == "site_heard")
    chromium.until_text("#headline", "Round 1 of 4: sites are training; 1 of 4 have answered")
    assert chromium.text(".steps li.open b") == "train"
    assert "1 of 4" in chromium.text(".steps li.open")
    assert chromium.run("return document.querySelectorAll('#site-rows tr.asked').length") == 3
    replay.play(lambda status, name: status.phase == "MASK" and name == "phase_opened")
    chromium.until_text(".steps li.open b", "mask")
    marks = chromium.run("return [...document.querySelectorAll('#site-rows tr:first-child .mark')].map((mark) => mark.ariaLabel)")
    assert marks == ["train: answered", "agree: answered", "mask: asked", "confirm: not asked", "unmask: not asked"]
    replay.play(committed(1))
    chromium.until(
        lambda: chromium.run("return document.querySelector('#progress').getAttribute('aria-valuenow')") == "1", "one round committed"
    )
    assert "1 of 4 rounds" in chromium.text("#facts")
    assert chromium.run("return document.querySelectorAll('#curve-norm circle').length") == 1
    replay.play(committed(2))
    chromium.until(lambda: chromium.run("return document.title") == "2 of 4 · journey", "its progress in the title")


def test_a_site_that_refused_is_told_in_words_with_what_to_do(replay: Replay, chromium: Browser) -> None:
    chromium.open(replay.url)
    replay.play(committed(3))
    chromium.until_text("#problem-list", f"{FAILING} failed while it answered, or its link broke. Nothing, if it comes back by itself.")
    assert "E_SITE_FAILED" in chromium.text("#problem-list code")
    row = chromium.text("#site-rows tr:first-child")
    assert row.startswith(f"{FAILING} failed while it answered, or its link broke E_SITE_FAILED")
    assert "3 of 4" in chromium.text("#facts"), "the last sum is one site short"


def test_curves_show_released_figures_alone(replay: Replay, chromium: Browser) -> None:
    chromium.open(replay.url)
    replay.play(committed(4))
    released = [judged for judged in replay.watch.status.judged if judged.figures is not None and judged.figures.auc is not None]
    assert released, "the model after the second round was judged"
    assert released[0].figures is not None
    assert released[0].figures.auc is not None
    chromium.until_text("#curve-auc", f"{released[0].figures.auc.value:.3f}")
    assert "patients of all sites together" in chromium.text("#described")
    drawn = chromium.run(
        "return [...document.querySelectorAll('figure svg')].filter((svg) => svg.checkVisibility()).map((svg) => svg.ariaLabel)"
    )
    assert [label.partition(":")[0] for label in drawn] == ["AUC", "L2 norm of the mean update", "Seconds a round", "Sites in the sum"]


def test_a_dead_coordinator_and_then_a_dead_supervisor_are_told_since_when(replay: Replay, chromium: Browser) -> None:
    replay.play(committed(2))
    write_processes(replay.run / PROCESSES_FILE, [Process(name="serverapp", state="failed", since=time.time(), ended="signal 9")])
    chromium.open(replay.url)
    chromium.until_text("#headline", "of 4")
    replay.watch.__exit__(None, None, None)  # its last word is an hour old
    status = read_status(replay.run / STATUS_FILE)
    assert status is not None
    write_status(replay.run / STATUS_FILE, replace(status, written=time.time() - 3600))
    chromium.until_text("#headline", "has not been heard of for 1 h 00 min; it was after round 2. Committed rounds are safe.")
    assert chromium.run("return document.querySelector('#headline').classList.contains('alarm')")
    assert "serverapp failed" in chromium.text("#programs")
    replay.serving.close()
    chromium.until_text("#unreachable", "This page has had no answer since")
    assert "fedward server start" in chromium.text("#unreachable")
    assert "2 of 4 rounds" in chromium.text("#facts"), "what was known stays to be read"
    assert all("ERR_CONNECTION_REFUSED" in complaint for complaint in chromium.complaints())


def test_nothing_is_asked_of_anybody_else_and_nothing_goes_wrong(replay: Replay, chromium: Browser) -> None:
    chromium.contacted(), chromium.complaints()  # of the tests before
    replay.play(committed(3))
    chromium.open(replay.url)
    chromium.until_text("#problem-list", FAILING)
    time.sleep(2.5)  # so that it has asked again
    asked = {url for url in chromium.contacted() if not url.startswith("data:")}
    assert asked == {replay.url, *(f"{replay.url}{name}" for name in ("live.css", "live.js", "status.json"))}
    assert chromium.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(replay: Replay, chromium: Browser, scheme: str) -> None:
    """A contrast of 4.5 to 1 at least, in both colour schemes."""
    replay.play(committed(3))
    replay.play(lambda status, name: status.phase == "KEYS" and name == "site_heard")
    chromium.open(replay.url, scheme=scheme)
    chromium.until_text("#problem-list", FAILING)
    found = chromium.contrasts()
    assert len(found) > 60
    assert {text: round(ratio, 2) for text, ratio in found.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_nothing_sticks_out_of_a_phone(replay: Replay, chromium: Browser, width: int) -> None:
    replay.play(committed(3))
    chromium.open(replay.url, width=width, height=844)
    chromium.until_text("#problem-list", FAILING)
    assert chromium.run("return document.documentElement.scrollWidth") <= width


def test_the_page_can_be_heard_and_walked_through(replay: Replay, chromium: Browser) -> None:
    replay.play(committed(1))
    replay.play(lambda status, name: status.phase == "KEYS" and name == "phase_opened")
    chromium.open(replay.url)
    chromium.until_text("#headline", "Round 2 of 4")
    outline = chromium.run("return [...document.querySelectorAll('h1, h2')].filter((h) => h.checkVisibility()).map((h) => h.tagName)")
    assert outline[0] == "H1"
    assert set(outline[1:]) == {"H2"}
    assert chromium.run("return document.documentElement.lang") == "en"
    assert chromium.run("return document.querySelector('[aria-live=polite]').textContent") == "Round 2 of 4: sites are training."
    drawn = "[...document.querySelectorAll('svg, [role=img], [role=progressbar]')].filter((each) => each.checkVisibility())"
    assert chromium.run(f"return {drawn}.length") > 20
    assert chromium.run(f"return {drawn}.filter((each) => !each.ariaLabel).length") == 0
    heads = "return [...document.querySelectorAll('th')].filter((th) => !th.scope).length"
    assert chromium.run(heads) == 0

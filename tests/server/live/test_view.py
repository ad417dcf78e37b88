# SPDX-License-Identifier: Apache-2.0
"""What the page is told: each figure's source, and that it is JSON to the last value."""

import json
from dataclasses import replace

from common.counting import Estimate
from common.counting.evaluation import EvaluationFigures
from common.secagg.terms import Kind
from server.aggregation import SILENT
from server.counts import CountedRound
from server.live import story
from server.live.look import Look
from server.live.view import Facts, view
from tests.server.live.runs import SITES, begun, whole_round


def seen_of(status: story.Status, now: float) -> Facts:
    found = view(Look(at=now, status=replace(status, written=now)))
    return dict(json.loads(json.dumps(found, allow_nan=False)))


def judged(number: int, auc: Estimate | None) -> tuple[CountedRound, EvaluationFigures]:
    figures = EvaluationFigures(
        units=200.0, noise_sd=3.0, num_sites=5, auc=auc, tied=None, accuracy=None, balanced_accuracy=None, recall=(None, None)
    )
    return CountedRound(round=number, kind=Kind.EVAL, attempt=0, sites=SITES), figures


def test_the_steps_of_a_round_are_done_open_or_ahead() -> None:
    status = story.round_opened(begun(), 1, list(SITES), 1000.0)
    status = story.phase_closed(story.phase_opened(status, "KEYS", SITES, 1000.0), "KEYS", answered=5, asked=5, now=1030.0)
    status = story.phase_opened(status, "SHARE", SITES, 1030.0)
    status = story.site_heard(status, "SHARE", "north", None, 10, 1031.0)
    (update,) = seen_of(status, 1032.0)["run"]["sums"]
    assert [step["state"] for step in update["steps"]] == ["done", "open", "ahead", "ahead", "ahead"]
    assert [step["word"] for step in update["steps"]] == ["train", "agree", "mask", "confirm", "unmask"]
    assert update["steps"][0]["took"] == "30 s"
    assert (update["steps"][1]["answered"], update["steps"][1]["asked"]) == (1, 5)


def test_an_evaluation_in_a_round_is_a_sum_of_its_own() -> None:
    status = story.round_opened(begun(), 1, list(SITES), 1000.0)
    status = story.phase_opened(status, "EVAL KEYS", SITES, 1000.0)
    evaluation, update = seen_of(status, 1001.0)["run"]["sums"]
    assert (evaluation["what"], evaluation["steps"][0]["word"], evaluation["steps"][0]["state"]) == ("evaluation", "judge", "open")
    assert update["steps"][0]["state"] == "ahead"


def test_released_figures_come_with_their_intervals_and_failures_with_words() -> None:
    done, figures = judged(3, Estimate(value=0.81, low=0.7, high=0.9))
    status = story.evaluated(begun(), done, figures, 1000.0)
    status = story.evaluated(status, replace(done, round=5, failure="E_COHORT_TOO_SMALL"), None, 1001.0)
    status = story.evaluated(status, done, figures, 1002.0)
    first, second = seen_of(status, 1003.0)["run"]["judged"]
    assert (first["after_round"], first["auc"]) == (2, {"value": 0.81, "low": 0.7, "high": 0.9})
    assert second["auc"] is None
    assert "E_COHORT_TOO_SMALL" in second["failure"]


def test_a_refusal_is_told_in_words_with_what_to_do_and_how_often() -> None:
    status = whole_round(begun(), 1, now=1000.0, lost={"mercy": SILENT})
    status = whole_round(status, 2, now=1030.0, lost={"mercy": SILENT})
    (problem,) = seen_of(status, 1100.0)["run"]["problems"]
    assert (problem["who"], problem["what"], problem["round"], problem["times"]) == ("mercy", "did not answer in time", 2, 2)
    assert "fedward site doctor" in problem["todo"]


def test_what_the_last_rounds_did_well_without_is_past() -> None:
    status = whole_round(begun(), 1, now=1000.0, lost={"mercy": SILENT})
    assert not seen_of(status, 1100.0)["run"]["problems"][0]["past"]
    status = whole_round(status, 2, now=1030.0)
    assert seen_of(status, 1100.0)["run"]["problems"][0]["past"]
    status = story.ended(status, "stopped", "E_DISK_FULL", 1100.0)
    stopped, earlier = seen_of(status, 1101.0)["run"]["problems"]
    assert (stopped["who"], stopped["what"], stopped["past"]) == ("The run stopped:", "this machine has no disk space left", False)
    assert earlier["past"]


def test_sites_in_trouble_come_first() -> None:
    status = whole_round(begun(), 1, now=1000.0, lost={"west": "E_POLICY"})
    assert [site["name"] for site in seen_of(status, 1100.0)["run"]["sites"]] == ["west", "east", "mercy", "north", "south"]


def test_a_plan_that_protects_no_patient_is_said_in_red() -> None:
    plan = replace(begun().plan, unit="none", epsilon=None, delta=None)
    (promise,) = [fact for fact in seen_of(replace(begun(), plan=plan), 1000.0)["run"]["facts"] if fact["term"] == "Promise of the plan"]
    assert (promise["value"], promise["alarm"]) == ("none", True)


def test_nothing_ticks_in_what_is_read_out() -> None:
    status = story.phase_opened(story.round_opened(begun(), 1, list(SITES), 1000.0), "KEYS", SITES, 1000.0)
    assert seen_of(status, 1001.0)["gist"] == seen_of(status, 1060.0)["gist"] == "Round 1 of 12: sites are training."
    assert seen_of(status, 1001.0)["headline"] != seen_of(status, 1060.0)["headline"]

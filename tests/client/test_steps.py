# SPDX-License-Identifier: Apache-2.0
"""The first request wins: the same one gets the same bytes, another one is refused."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.steps import Answered, StepStore, Update
from common.errors import Equivocation, PlanMismatch, Replay
from common.update import QuantisedDelta, ReleasedDelta
from common.wire import Step

STEP = Step(session=b"a" * 16, round=5, attempt=1, plan="p")
UPDATE = ReleasedDelta(values=np.linspace(-1, 1, 17, dtype=np.float32))
WORDS = {word: QuantisedDelta(words=np.arange(17, dtype=word) - 8, weight=3) for word in (np.uint16, np.uint32)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    StepStore(tmp_path / "answers", power_cut_safe=True).store(Answered(step=STEP, request="r", update=UPDATE))
    return tmp_path / "answers"


def find(path: Path, step: Step, request: str = "r") -> Update | None:
    return StepStore(path, power_cut_safe=False).find(step, request)


def test_the_same_request_gets_the_same_bytes(path: Path) -> None:
    found = find(path, STEP)
    assert isinstance(found, ReleasedDelta)
    assert found.values.tobytes() == UPDATE.values.tobytes()


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.__name__)
def test_ring_words_come_back_as_they_were_rounded(tmp_path: Path, word: type) -> None:
    update = WORDS[word]
    StepStore(tmp_path / "answers", power_cut_safe=False).store(Answered(step=STEP, request="r", update=update))
    found = find(tmp_path / "answers", STEP)
    assert isinstance(found, QuantisedDelta)
    assert (found.words.dtype, found.words.tobytes(), found.weight) == (word, update.words.tobytes(), 3)


def test_a_new_site_has_answered_nothing(tmp_path: Path) -> None:
    assert find(tmp_path / "answers", STEP) is None


@pytest.mark.parametrize("step", [replace(STEP, round=6, attempt=0), replace(STEP, attempt=2), replace(STEP, session=b"b" * 16, round=1)])
def test_a_later_step_or_another_session_is_new(path: Path, step: Step) -> None:
    assert find(path, step) is None


def test_another_model_for_the_same_step_is_refused(path: Path) -> None:
    with pytest.raises(Equivocation, match="round 5, attempt 1"):
        find(path, STEP, "another")


@pytest.mark.parametrize("step", [replace(STEP, round=4), replace(STEP, attempt=0), replace(STEP, round=4, attempt=7)])
def test_an_older_step_is_refused(path: Path, step: Step) -> None:
    with pytest.raises(Replay):
        find(path, step)


def test_only_the_newest_answer_is_kept(path: Path) -> None:
    store = StepStore(path, power_cut_safe=False)
    store.store(Answered(step=replace(STEP, round=6), request="r", update=UPDATE))
    assert len(list(path.iterdir())) == 1
    assert find(path, replace(STEP, round=6)) is not None


def test_a_kill_between_writing_and_removing_leaves_the_newer_answer(path: Path) -> None:
    older = next(path.iterdir()).read_bytes()
    StepStore(path, power_cut_safe=False).store(Answered(step=replace(STEP, round=6), request="r", update=UPDATE))
    newer = next(path.iterdir())
    left = path / "answer-61616161-5-1.bin"
    left.write_bytes(older)
    os.utime(left, ns=(newer.stat().st_mtime_ns - 1, newer.stat().st_mtime_ns - 1))
    with pytest.raises(Replay):
        find(path, STEP)


@pytest.mark.parametrize(("kind", "attempt"), [("STAT", 9), ("EVAL", 0), ("EVAL", 9)])
def test_what_had_its_turn_in_a_round_is_not_answered_after_the_update(path: Path, kind: str, attempt: int) -> None:
    with pytest.raises(Replay, match=f"{kind} of round 5"):
        find(path, replace(STEP, kind=kind, attempt=attempt))


def test_kinds_of_one_round_are_different_steps(tmp_path: Path) -> None:
    """An evaluation comes before the update of its round, and is answered apart from it."""
    store = StepStore(tmp_path / "answers", power_cut_safe=False)
    judged = replace(STEP, kind="EVAL")
    store.store(Answered(step=judged, request="r", update=WORDS[np.uint32]))
    assert find(tmp_path / "answers", STEP) is None
    assert isinstance(find(tmp_path / "answers", judged), QuantisedDelta)
    with pytest.raises(Equivocation):
        find(tmp_path / "answers", judged, "another model")


def test_an_unknown_kind_is_refused_by_name(path: Path) -> None:
    with pytest.raises(PlanMismatch, match="'GUESS'"):
        find(path, replace(STEP, kind="GUESS"))

# SPDX-License-Identifier: Apache-2.0
"""Which model is given out, and when training ends, whatever became of the checkpoints in between."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.counting import Form
from common.errors import CheckpointCorrupt
from common.models import initial_weights
from common.plan import EvaluationSpec, Plan
from common.update import AggregateDelta, Weights
from server.aggregation import Collected, Given
from server.checkpoint import CheckpointFolder
from server.counts import CountedRound
from server.journal import Journal
from server.rounds import Coordinator
from tests.common.counting.plans import counting_plan

SITES = ("a", "b", "c", "d")
PATIENTS = 50_000


def plan_of(*, rounds: int = 9, **evaluation: Any) -> Plan:
    base = counting_plan(("rounds = 3", f"rounds = {rounds}"))
    return replace(base, evaluation=EvaluationSpec(every=1, epsilon=0.4, **evaluation), statistics=None)


class Everybody:
    """A roll on which all sites are."""

    sites = dict.fromkeys(SITES, 1)
    refusals = ()
    impostors = ()
    has_refused_only = False

    def call(self, **how: object) -> None: ...

    def doubt(self, sites: Sequence[str]) -> None: ...


@dataclass
class Sums:
    """An aggregation under which round r moves every weight by r, and its model is judged by `curve[r - 1]`."""

    plan: Plan
    curve: Sequence[float]
    trained: list[int] = field(default_factory=list)
    judged: list[int] = field(default_factory=list)

    def collect(self, number: int, weights: Weights, asked: Sequence[str]) -> Collected:
        self.trained.append(number)
        values = np.full(weights.values.size, float(number), dtype=np.float32)
        return Collected(aggregate=AggregateDelta(values=values, num_sites=len(asked)), attempt=0, sites=SITES, missing=())

    def count(self, number: int, form: Form, weights: Weights, asked: Sequence[str]) -> CountedRound:
        self.judged.append(number - 1)
        assert self.plan.evaluation is not None
        table = np.zeros((2, self.plan.evaluation.bins))
        right = self.curve[number - 2]
        table[0, 0], table[1, -1], table[1, 0] = PATIENTS, PATIENTS * right, PATIENTS * (1 - right)
        steps = tuple(int(each) for each in (table.reshape(-1) * form.steps))
        return CountedRound(round=number, kind=form.kind, attempt=0, sites=SITES, steps=steps)

    def settle(self, number: int) -> None: ...


class Dying(Given):
    """Dies when the model is chosen, before anything is exported."""

    def chosen(self, number: int, *, trained: int) -> None:
        raise RuntimeError("the coordinator dies")


def run(folder: Path, plan: Plan, curve: Sequence[float], given: Given | None = None) -> tuple[int, int, Sums]:
    """The round whose model is given out, how many were trained in all, and what was asked for it."""
    initial, told, sums = initial_weights(plan), given or Given(), Sums(plan, curve)
    with closing(Journal(folder / "journal.sqlite", plan="p" * 64, session=bytes(16), power_cut_safe=False)) as journal:
        coordinator = Coordinator(
            roll=Everybody(),  # type: ignore[arg-type] # the members that a coordinator uses
            plan=plan,
            initial=initial,
            groups=lambda: (frozenset(SITES),),
            journal=journal,
            checkpoints=CheckpointFolder(folder / "checkpoints", power_cut_safe=False),
            observer=told,
            aggregation=sums,
        )
        weights = coordinator.run()
    moved = float((weights.values - initial.values).mean())
    assert moved == pytest.approx(told.number * (told.number + 1) / 2, rel=1e-3), "the weights are those of the round that is named"
    return told.number, told.trained, sums


def checkpoint(folder: Path, number: int) -> Path:
    return folder / "checkpoints" / f"round-{number:06d}.safetensors"


def test_the_best_of_all_is_kept_however_long_ago_it_was(tmp_path: Path) -> None:
    curve = (0.6, 0.9, 0.8, 0.85, 0.7, 0.7, 0.7, 0.7, 0.7)
    assert run(tmp_path, plan_of(keep="best"), curve)[:2] == (2, 9)
    assert checkpoint(tmp_path, 2).exists(), "long after the last few"
    assert not checkpoint(tmp_path, 3).exists()


def test_training_ends_when_patience_is_over_and_no_round_later(tmp_path: Path) -> None:
    number, trained, sums = run(tmp_path, plan_of(patience=2), (0.6, 0.9, 0.8, 0.7, 0.99, 1, 1, 1, 1))
    assert (number, trained) == (4, 4)
    assert (sums.trained, sums.judged) == ([1, 2, 3, 4], [1, 2, 3, 4])


def test_a_run_that_is_over_stays_so_after_a_death(tmp_path: Path) -> None:
    plan, curve = plan_of(patience=2, keep="best"), (0.6, 0.9, 0.8, 0.7, 1, 1, 1, 1, 1)
    with pytest.raises(RuntimeError):
        run(tmp_path, plan, curve, Dying())
    number, trained, sums = run(tmp_path, plan, curve)
    assert (number, trained) == (2, 4)
    assert (sums.trained, sums.judged) == ([], []), "nobody is asked again"


def test_a_last_model_that_is_lost_is_made_again_before_it_is_given_out(tmp_path: Path) -> None:
    """Its judgement is on record; but what is not there cannot be what training ended with."""
    plan, curve = plan_of(patience=2), (0.6, 0.9, 0.8, 0.7, 1, 1, 1, 1, 1)
    with pytest.raises(RuntimeError):
        run(tmp_path, plan, curve, Dying())
    checkpoint(tmp_path, 4).write_bytes(b"torn")
    number, trained, sums = run(tmp_path, plan, curve)
    assert (number, trained) == (4, 4)
    assert (sums.trained, sums.judged) == ([4], []), "the round's own answers again, and no second judgement"


def test_a_best_model_that_is_lost_is_the_operators_to_decide(tmp_path: Path) -> None:
    plan, curve = plan_of(keep="best"), (0.6, 0.9, 0.8, 0.85, 0.7, 0.7, 0.7, 0.75, 0.7)
    with pytest.raises(RuntimeError):
        run(tmp_path, plan, curve, Dying())
    whole = checkpoint(tmp_path, 2).read_bytes()
    checkpoint(tmp_path, 2).write_bytes(b"torn")
    with pytest.raises(CheckpointCorrupt, match="judged best") as refused:
        run(tmp_path, plan, curve)
    assert "Restore the file" in refused.value.fix
    checkpoint(tmp_path, 2).write_bytes(whole)
    assert run(tmp_path, plan, curve)[:2] == (2, 9)
    checkpoint(tmp_path, 2).unlink()
    assert run(tmp_path, plan, curve)[:2] == (8, 9), "the best of those that are there"


def test_an_old_best_model_is_no_place_to_go_on_from(tmp_path: Path) -> None:
    """Between it and the last ones nothing is kept, and sites have answered for all of them."""
    plan, curve = plan_of(keep="best"), (0.6, 0.9, 0.8, 0.85, 0.7, 0.7, 0.7, 0.75, 0.7)
    run(tmp_path, plan, curve)
    for number in (7, 8, 9):
        checkpoint(tmp_path, number).write_bytes(b"torn")
    with pytest.raises(CheckpointCorrupt):
        run(tmp_path, plan, curve)

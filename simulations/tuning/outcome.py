# SPDX-License-Identifier: Apache-2.0
"""What came of a search: who won, what was spent, what is left. For people, for machines, and as the winner's plan."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.durable import write_atomically
from common.errors import TrainFailed
from common.plan import digest_of
from simulations.tuning.halving import stops
from simulations.tuning.race import Placed
from simulations.tuning.search import Search
from simulations.tuning.spending import Spending, spending, spent_so_far, tallies
from simulations.tuning.winner import WINNER_FILE, as_toml, left_for, winning_plan

TUNE_FILE = "tune.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A finished search. `placed`: the best trial first. `left`: the winner's own epsilon; both it and `spent` are None without privacy."""

    search: Search
    placed: tuple[Placed, ...]
    spent: Spending | None
    left: float | None

    @property
    def winner(self) -> Placed:
        return self.placed[0]


def conclude(search: Search, placed: list[Placed]) -> Outcome:
    """Name the winner, and what it may spend. Raises: TrainFailed, if no trial has a score; LedgerTampered, LedgerFormat."""
    if placed[0].score.value is None:
        failures = "; ".join(sorted({each.score.failure for each in placed}))
        raise TrainFailed(
            f"none of {len(placed)} trials has a score: {failures}.",
            fix="Look at those reasons first; then narrow the space, or give tuning more epsilon or fewer trials.",
        )
    if not search.base.plan.is_private:
        return Outcome(search=search, placed=tuple(placed), spent=None, left=None)
    charged = tallies(search)
    left = left_for(placed[0].trial.plan, search.final_units(), spent_so_far(search, charged))
    return Outcome(search=search, placed=tuple(placed), spent=spending(search, charged), left=left)


def write(outcome: Outcome) -> None:
    """tune.json and winner.toml. Raises: DiskFull."""
    folder = outcome.search.folder
    spent = outcome.spent.outside if outcome.spent else None
    plan = as_toml(outcome.search.base, outcome.winner.trial, outcome.left, spent=spent)
    write_atomically(folder / WINNER_FILE, plan.encode(), fsync=False)
    write_atomically(folder / TUNE_FILE, json.dumps(as_dict(outcome), indent=1).encode(), fsync=False)


def winner_file(outcome: Outcome) -> Path:
    return outcome.search.folder / WINNER_FILE


def as_dict(outcome: Outcome) -> dict[str, Any]:
    """What `--json` prints."""
    winner = outcome.winner.trial
    return {
        **before_as_dict(outcome.search),
        "trials": [_trial(each, outcome.spent) for each in outcome.placed],
        "spent": asdict(outcome.spent) if outcome.spent else None,
        "winner": {
            "trial": winner.number,
            "keys": dict(winner.keys),
            "epsilon": outcome.left,
            "plan": digest_of(winning_plan(winner, outcome.left)),
            "file": str(winner_file(outcome)),
        },
    }


def before_as_dict(search: Search) -> dict[str, Any]:
    """What is known before anything is trained."""
    rounds = search.base.plan.training.rounds
    known: dict[str, Any] = {
        "folder": str(search.folder),
        "plan": digest_of(search.base.plan),
        "score": search.metric,
        "folds": search.design.num_folds,
        "asked": [{"trial": trial.number, "keys": dict(trial.keys), "rounds": trial.plan.training.rounds} for trial in search.trials],
        "rungs": [
            {"trials": rung.trials, "rounds": stop}
            for rung, stop in zip(search.design.rungs, stops(search.design.rungs, rounds), strict=True)
        ],
    }
    if search.promise is None or search.budget is None:
        return {**known, "privacy": None}
    precision = search.precision
    privacy = search.base.plan.privacy
    return {
        **known,
        "privacy": {
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
            "budget": search.budget,
            "at_worst": search.cost,
            "each_trial": asdict(search.promise),
            "left_at_least": search.left,
            "precision": asdict(precision) if precision else None,
        },
    }


def _trial(placed: Placed, spent: Spending | None) -> dict[str, Any]:
    return {
        "trial": placed.trial.number,
        "keys": dict(placed.trial.keys),
        "rounds": placed.rounds,
        "score": asdict(placed.score),
        "curve": {str(number): asdict(mean) for number, mean in placed.curve.items()},
        "epsilon": spent.by_trial[placed.trial.number] if spent else None,
    }

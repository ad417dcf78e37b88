# SPDX-License-Identifier: Apache-2.0
"""The trials, rung by rung: train, judge, drop the worst, go on.

What was done before is not done again: the book says which scores are known, each federation's journal which rounds are done. Whoever is
dropped is dropped by scores alone, so a search that was killed and one that was not go the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulations.engine.nursery import Nursery
from simulations.tuning import halving
from simulations.tuning.book import Book, Mean
from simulations.tuning.folds import Fold
from simulations.tuning.halving import Rung
from simulations.tuning.plans import of_fold
from simulations.tuning.search import Search
from simulations.tuning.space import Trial
from simulations.tuning.trials import Run, Track

Tell = Callable[[str, int, int, str], None]  # what, done, in all, a note


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One trial when the search is over: at the end of how many rungs it had a score, how many rounds it came, and its scores by round."""

    trial: Trial
    rungs: int
    rounds: int
    score: Mean
    curve: dict[int, Mean]


def race(search: Search, nursery: Nursery, *, workers: int | None, tell: Tell) -> list[Placed]:
    """Every rung; the best trial comes first. Raises: what is no fault of a trial's, such as DiskFull or EngineError."""
    track = Track(
        stage=search.stage,
        folder=search.folder,
        budget=search.budget,
        site_kind=search.site_kind,
        workers=workers,
        metric=search.metric,
        book=Book(search.folder),
    )
    going = tuple(trial.number for trial in search.trials)
    for rung in search.design.rungs:
        if rung.number:
            going = halving.best(_scores(search, track.book, going, rung.number - 1), rung.trials)
        _climb([_run_of(search, track, search.trials[number], fold) for number in going for fold in search.folds], rung, nursery, tell)
    return placed(search, track.book)


def placed(search: Search, book: Book) -> list[Placed]:
    """All trials as far as they are known to have come: who came further is better than who did not."""
    found = [_placed(search, book, trial) for trial in search.trials]
    return sorted(found, key=lambda each: (-each.rungs, each.score.value is None, -(each.score.value or 0.0), each.trial.number))


def _climb(runs: Sequence[Run], rung: Rung, nursery: Nursery, tell: Tell) -> None:
    """Take these trials, in every fold, to the end of a rung."""
    what = f"rung {rung.number + 1}: {len(runs)} federations"
    began = [0 if rung.number == 0 else run.stops[rung.number - 1] for run in runs]
    total, done = sum(run.stops[rung.number] - start for run, start in zip(runs, began, strict=True)), 0
    for run, start in zip(runs, began, strict=True):
        note = f"trial {run.trial}, fold {run.fold.number}"
        run.go_on(run.stops[rung.number], nursery, lambda number: tell(what, done + max(0, number - start), total, note))  # noqa: B023 - called now
        done += run.stops[rung.number] - start
        tell(what, done, total, note)


def _run_of(search: Search, track: Track, trial: Trial, fold: Fold) -> Run:
    plan = of_fold(search.design, trial, fold.number, search.promise)
    return Run(track=track, trial=trial.number, fold=fold, plan=plan, stops=halving.stops(search.design.rungs, plan.training.rounds))


def _scores(search: Search, book: Book, going: Sequence[int], rung: int) -> dict[int, float | None]:
    """The scores of those who are still there, at the end of a rung."""
    found = {}
    for number in going:
        stop = halving.stops(search.design.rungs, search.trials[number].plan.training.rounds)[rung]
        mean = book.mean(number, range(search.design.num_folds), stop)
        found[number] = mean.value if mean else None
    return found


def _placed(search: Search, book: Book, trial: Trial) -> Placed:
    curve: dict[int, Mean] = {}
    for stop in halving.stops(search.design.rungs, trial.plan.training.rounds):
        found = book.mean(trial.number, range(search.design.num_folds), stop)
        if found is None:
            break
        curve[stop] = found
        if found.value is None:
            break
    nothing = Mean(value=None, low=None, high=None, failure="not tried")
    last = max(curve, default=0)
    scored = sum(mean.value is not None for mean in curve.values())
    return Placed(trial=trial, rungs=scored, rounds=last, score=curve.get(last, nothing), curve=curve)

# SPDX-License-Identifier: Apache-2.0
"""A search in sentences and tables: beforehand what it will do and cost, afterwards what came of it. Terminal and page say the same."""

from collections.abc import Iterator

from simulations.planner.tables import Grid, Row, unit_of
from simulations.report import numbers
from simulations.tuning import price
from simulations.tuning.halving import steps, stops
from simulations.tuning.outcome import Outcome
from simulations.tuning.race import Placed
from simulations.tuning.search import Search
from simulations.tuning.space import shown

SCORES = {"auc": "AUC", "balanced_accuracy": "balanced accuracy", "headline": "its task's first figure"}


def before(search: Search) -> list[str]:
    """What is about to be done, and for how much."""
    design, plan = search.design, search.base.plan
    rounds = sum(
        steps(design.rungs, trial.plan.training.rounds)[rung.number] for rung in design.rungs for trial in design.trials[: rung.trials]
    )
    folds = "one fold" if design.num_folds == 1 else f"{design.num_folds} folds"
    said = [
        f"{plan.name}: {len(design.trials)} trials in {folds}, at {len(search.stage.sites)} sites; about "
        f"{numbers.count(rounds * design.num_folds)} rounds in all.",
        f"Each trial is judged by {SCORES[search.metric]} on patients of the sites whom it does not train on, never on those held out.",
    ]
    if search.promise is None:
        return [*said, "Not private: nothing is charged, and updates carry traces of patients."]
    return [*said, *_promises(search)]


def _promises(search: Search) -> Iterator[str]:
    promise, precision, privacy = search.promise, search.precision, search.base.plan.privacy
    assert promise is not None
    assert precision is not None
    assert search.budget is not None
    assert privacy.epsilon is not None
    unit = unit_of(search.base.plan)
    yield (
        f"Tuning may spend ε {search.budget:g} of the plan's {privacy.epsilon:g} for each {unit} (δ {privacy.delta:g}); every site's "
        f"ledger refuses more. At worst it spends {numbers.epsilon(search.cost)}."
    )
    yield (
        f"For that each trial's plan promises ε {promise.epsilon:g} in each fold, were it trained to its end, "
        f"{promise.evaluation:.0%} of it for judging it."
    )
    judged = sum(sum(fold.judged) for fold in search.folds)
    yield (
        f"Trials are chosen by noised counts of {numbers.count(judged)} {unit}s: noise of {precision.noise_sd:.1f} in each count, a score "
        f"known to about ±{precision.half_width:.2f} (95 %). Differences smaller than that are chance."
    )
    left = numbers.epsilon(search.left)
    yield f"The winner is left with at least ε {left} if its batch is the plan's; what it really is, is worked out then."
    if search.base.plan.shares_noise:
        own = price.at_worst(search.design, search.folds, promise, price.own_share)
        against = f"more than {privacy.colluders} colluding site(s)"
        yield f"Noise is shared: against {against} tuning alone could cost ε {numbers.epsilon(own)}."


def schedule(search: Search) -> Grid:
    """Rungs, and how far each takes a trial of the plan's own rounds."""
    rounds = search.base.plan.training.rounds
    ends = stops(search.design.rungs, rounds)
    rows = tuple(
        Row(
            cells=(
                f"rung {rung.number + 1}",
                str(rung.trials),
                numbers.count(end),
                numbers.count(rung.trials * longer * search.design.num_folds),
            )
        )
        for rung, end, longer in zip(search.design.rungs, ends, steps(search.design.rungs, rounds), strict=True)
    )
    note = "The best of each rung go on where they stand."
    return Grid(title="Schedule", headings=("", "trials", "to round", "rounds trained"), rows=rows, note=note)


def asked(search: Search) -> Grid:
    """The trials before anything is known of them."""
    names = [path.split(".")[-1] for path in search.space.dimensions]
    rows = tuple(
        Row(cells=(str(trial.number), *map(shown, trial.keys.values()), numbers.count(trial.plan.training.rounds)), kind="")
        for trial in search.trials
    )
    return Grid(title="Trials", headings=("trial", *names, "rounds"), rows=rows, note="Trial 0 is the plan as it is.")


def trials(outcome: Outcome) -> Grid:
    """All trials, the best first."""
    names = [path.split(".")[-1] for path in outcome.search.space.dimensions]
    private = outcome.spent is not None
    headings = ("trial", *names, "rounds", f"{SCORES[outcome.search.metric]} (95 %)", *(("ε",) if private else ()))
    rows = tuple(_row(each, outcome) for each in outcome.placed)
    note = "Trial 0 is the plan as it was. " + (
        "Scores are of noised counts. ε: of this trial by itself; sums are smaller than the sum of these." if private else ""
    )
    return Grid(title="Trials", headings=headings, rows=rows, note=note.strip())


def after(outcome: Outcome) -> list[str]:
    """Who won, and what is left."""
    said = [f"Trial {outcome.winner.trial.number} won" + (", the plan as it was." if outcome.winner.trial.number == 0 else ".")]
    unsure = [each for each in outcome.placed[1:] if each.rungs == outcome.winner.rungs and _overlap(each, outcome.winner)]
    if unsure:
        said.append(f"It cannot be told from trial {numbers.runs(each.trial.number for each in unsure)}: their intervals overlap.")
    if outcome.spent is not None:
        whole = outcome.search.base.plan.privacy.epsilon
        said.append(
            f"Tuning spent ε {numbers.epsilon(outcome.spent.outside)}, by the ledgers. The winner's plan promises ε {outcome.left:g}, "
            f"so that both together stay within {whole:g}."
            if outcome.left is not None
            else f"Tuning spent ε {numbers.epsilon(outcome.spent.outside)}, and nothing is left to train by within {whole:g}."
        )
    return said


def _overlap(one: Placed, other: Placed) -> bool:
    return one.score.high is not None and other.score.low is not None and one.score.high >= other.score.low


def _row(placed: Placed, outcome: Outcome) -> Row:
    score = placed.score
    told = (
        f"{numbers.ratio(score.value)} ({numbers.ratio(score.low)} to {numbers.ratio(score.high)})"
        if score.value is not None
        else _short(score.failure)
    )
    spent = (numbers.epsilon(outcome.spent.by_trial[placed.trial.number]),) if outcome.spent else ()
    cells = (str(placed.trial.number), *map(shown, placed.trial.keys.values()), numbers.count(placed.rounds), told, *spent)
    return Row(cells=cells, kind="plan" if placed is outcome.winner else "alarm" if score.value is None else "")


def _short(failure: str) -> str:
    """A failure's code, where it has one."""
    return failure.split(":")[0]

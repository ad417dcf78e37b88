# SPDX-License-Identifier: Apache-2.0
"""What federating costs in accuracy: a plan's federation beside the same training with all patients in one place.

    python -m simulations.benchmarks.pooled_gap [PLAN] --data DIR [--seeds 5] [--first-seed 0] [--pooled-rounds R] [--json FILE]

Seed k draws its own initial weights, its own hold-out (fold k modulo the number of folds) and its own spread of patients over sites. Three
kinds of training then start from the same weights and are judged on the same held-out patients, which none of them has seen: the
federation, everyone's patients in one place, and each site alone. One patient's images are always on one side of the hold-out and at
one site.

The gap is federated minus pooled balanced accuracy. Whatever makes a fold easy or hard does so for both, so it is the differences of pairs
that are averaged, with Student's interval for a mean of differences (95 %, n - 1 degrees of freedom). Training sets of different seeds
overlap, so the pairs are not quite independent and the interval is a little too narrow (Nadeau and Bengio, Machine Learning 52, 2003,
section 3); the corrected one, for which a seed's hold-out weighs against its training set, is shown beside it.

What a pooled model can be is a ceiling only if it is trained well. It takes the plan's optimiser and, as the plan says, as many passes as
the federation. But the mean of many sites' steps is shorter than the steps, so pooled training is further after as many passes, and on
little data that means it has begun to learn the patients: `--pooled-rounds` gives it a number of its own. Choose that number, like
everything else, on other seeds than those that are reported. Every model is read after its last round.
"""

import json
import math
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import stats

from common.errors import FedwardError
from common.plan import digest_of
from common.update import Weights
from server.aggregation import Silent
from server.journal import CommittedRound
from simulations import scenario as scenarios
from simulations.benchmarks.typed import typed
from simulations.comparison import POOLED, train_apart
from simulations.engine.nursery import Nursery
from simulations.federation import Federation
from simulations.observer import score
from simulations.scenario import Scenario
from simulations.stage import SITES, Stage, Workshop, set_stage

CONFIDENCE = 0.95
Tell = Callable[[str, int, int], None]  # what, done, in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Balanced accuracy on the held-out patients, of their images and of the patients themselves."""

    images: float
    patients: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One seed: the federation and its rivals, on one hold-out. `num_training` and `num_holdout` count patients."""

    seed: int
    fold: int
    num_training: int
    num_holdout: int
    federated: Accuracy
    pooled: Accuracy
    alone: tuple[Accuracy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A mean of paired differences. `margin` is half the width of its interval, `corrected` the same for overlapping training sets."""

    mean: float
    margin: float
    corrected: float


def of_seed(scenario: Scenario, seed: int) -> Scenario:
    """The scenario with this seed, and the fold that goes with it."""
    seeded = scenario.with_changes(seed=seed)
    return replace(seeded, simulation=replace(seeded.simulation, fold=seed % seeded.simulation.folds))


def gap_of(differences: Sequence[float], *, holdout_share: float) -> Gap:
    """Mean and interval of paired differences; infinitely wide for a single one. `holdout_share`: held-out over training patients.

    >>> gap = gap_of([0.0, 0.2], holdout_share=0.25)
    >>> round(gap.mean, 3), round(gap.margin, 3)        # t(0.975, 1) = 12.706, standard error 0.1
    (0.1, 1.271)
    """
    n = len(differences)
    mean = statistics.fmean(differences)
    if n == 1:
        return Gap(mean=mean, margin=math.inf, corrected=math.inf)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * statistics.stdev(differences)
    return Gap(mean=mean, margin=reach * math.sqrt(1 / n), corrected=reach * math.sqrt(1 / n + holdout_share))


def gaps(pairs: Sequence[Pair]) -> dict[str, Gap]:
    """Federated minus pooled, by image and by patient."""
    share = statistics.fmean(pair.num_holdout / pair.num_training for pair in pairs)
    return {
        "images": gap_of([pair.federated.images - pair.pooled.images for pair in pairs], holdout_share=share),
        "patients": gap_of([pair.federated.patients - pair.pooled.patients for pair in pairs], holdout_share=share),
    }


def play(scenario: Scenario, data: Path | None, folder: Path, *, pooled_rounds: int | None, workers: int, tell: Tell) -> Pair:
    """Train the federation and its rivals from one seed, and judge them. Raises: FedwardError."""
    shop = Workshop(cache=folder / "cache", workers=workers, progress=tell)
    stage = set_stage(scenario, data, folder / f"seed_{scenario.plan.training.seed}", shop)
    federated = federate(stage, workers, tell)
    apart = _train_apart(stage, None, workers, tell)
    if pooled_rounds is not None:
        apart[POOLED] = _train_apart(stage, pooled_rounds, workers, tell)[POOLED]
    accuracy = {name: _judge(stage, weights) for name, weights in {"federated": federated, **apart}.items()}
    return Pair(
        seed=scenario.plan.training.seed,
        fold=scenario.simulation.fold,
        num_training=sum(site["patients"] for site in stage.counts["sites"]),
        num_holdout=stage.counts["holdout"]["patients"],
        federated=accuracy["federated"],
        pooled=accuracy[POOLED],
        alone=tuple(accuracy[site] for site in stage.sites),
    )


class Watch(Silent):
    """An `Observer` that passes on how far the federation is, and refuses to measure a round that a site missed."""

    def __init__(self, rounds: int, tell: Tell) -> None:
        self._rounds, self._tell = rounds, tell

    def round_committed(self, done: CommittedRound, weights: Weights) -> None:
        del weights
        if done.missing:
            raise RuntimeError(f"round {done.round} went on without {', '.join(absent.site for absent in done.missing)}")
        self._tell("federation", done.round, self._rounds)


def federate(stage: Stage, workers: int, tell: Tell, nursery: Nursery | None = None) -> Weights:
    """The stage's plan, trained by all of its sites."""
    plan = stage.scenario.plan
    federation = Federation(
        plan=plan,
        plan_file=stage.plan_file,
        sites=stage.folder / SITES,
        num_sites=len(stage.sites),
        folder=stage.folder,
        coordinator=stage.coordinator,
    )
    weights, _ = federation.train(Watch(plan.training.rounds, tell), engine="local", workers=workers, nursery=nursery)
    return weights


def _train_apart(stage: Stage, rounds: int | None, workers: int, tell: Tell) -> dict[str, Weights]:
    stage = replace(stage, scenario=stage.scenario.with_changes(rounds=rounds))
    return train_apart(stage, workers=workers, progress=lambda done, total: tell("alone and pooled", done, total))


def _judge(stage: Stage, weights: Weights) -> Accuracy:
    scores = score(weights, stage.holdout(), stage.scenario.plan, resamples=0)
    assert scores.patients is not None
    by_image, by_patient = scores.images.balanced_accuracy, scores.patients.balanced_accuracy
    assert by_image is not None
    assert by_patient is not None
    return Accuracy(images=by_image, patients=by_patient)


def table(pairs: Sequence[Pair], title: str) -> Table:
    """The figures for people: balanced accuracy by image, and by patient after the bar."""
    shown = Table(title=title, caption="balanced accuracy on held-out patients: by image | by patient")
    for heading in ("seed", "fold", "federated", "pooled", "gap", "alone, mean", "alone, best"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for pair in pairs:
        shown.add_row(str(pair.seed), str(pair.fold), *_cells(pair.federated, pair.pooled, pair.alone))
    shown.add_section()
    shown.add_row("mean", "", *_cells(_mean([p.federated for p in pairs]), _mean([p.pooled for p in pairs]), _means_alone(pairs)))
    return shown


def _cells(federated: Accuracy, pooled: Accuracy, alone: Sequence[Accuracy]) -> list[str]:
    best = Accuracy(images=max(one.images for one in alone), patients=max(one.patients for one in alone))
    return [
        *(f"{one.images:.3f} | {one.patients:.3f}" for one in (federated, pooled)),
        f"{federated.images - pooled.images:+.3f} | {federated.patients - pooled.patients:+.3f}",
        *(f"{one.images:.3f} | {one.patients:.3f}" for one in (_mean(alone), best)),
    ]


def _mean(several: Sequence[Accuracy]) -> Accuracy:
    return Accuracy(images=statistics.fmean(one.images for one in several), patients=statistics.fmean(one.patients for one in several))


def _means_alone(pairs: Sequence[Pair]) -> list[Accuracy]:
    """Each site's mean over the seeds. Sites are dealt anew for each seed, so they are ranked first: the n-th best of each."""
    images = [sorted(one.images for one in pair.alone) for pair in pairs]
    patients = [sorted(one.patients for one in pair.alone) for pair in pairs]
    return [
        Accuracy(images=statistics.fmean(by_image), patients=statistics.fmean(by_patient))
        for by_image, by_patient in zip(zip(*images, strict=True), zip(*patients, strict=True), strict=True)
    ]


def sentence(level: str, gap: Gap) -> str:
    """One gap in words."""
    return f"gap by {level}: {gap.mean:+.3f} ± {gap.margin:.3f} ({CONFIDENCE:.0%}, paired t; ± {gap.corrected:.3f} corrected for overlap)"


def as_dict(scenario: Scenario, pairs: Sequence[Pair], pooled_rounds: int | None) -> dict[str, object]:
    """The figures for machines, with what is needed to repeat them. The digest is of the plan as it stands, without the runs' seeds."""
    return {
        "command": typed("simulations.benchmarks.pooled_gap"),
        "plan": digest_of(scenario.plan),
        "pooled_rounds": pooled_rounds or scenario.plan.training.rounds,
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("torch", "flwr", "numpy")},
        "pairs": [asdict(pair) for pair in pairs],
        "gaps": {level: asdict(gap) for level, gap in gaps(pairs).items()},
    }


def main(
    plan: Annotated[str, typer.Argument(help="A plan file, or the name of one that ships with fedward.")] = "ct-lung",
    data: Annotated[Path | None, typer.Option(help="The data folder, where the plan does not make its own.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many pairs.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of the seeds.")] = 0,
    pooled_rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of pooled training; default: the plan's.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one per core.")] = None,
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Measure how far a federation stays behind training in one place."""
    console = Console()
    pairs: list[Pair] = []
    try:
        scenario = scenarios.load(scenarios.find(plan))
        with tempfile.TemporaryDirectory(prefix="fedward-gap-") as scratch, Progress(console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            for seed in range(first_seed, first_seed + seeds):
                pairs.append(
                    play(
                        of_seed(scenario, seed),
                        data,
                        Path(scratch),
                        pooled_rounds=pooled_rounds,
                        workers=workers or os.cpu_count() or 1,
                        tell=lambda what, done, total, seed=seed: bar.update(  # type: ignore[misc] # the seed of this turn
                            task, description=f"seed {seed}: {what}", completed=done, total=total
                        ),
                    )
                )
    except FedwardError as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from None
    rounds = scenario.plan.training.rounds
    title = f"{scenario.plan.name}: {scenario.simulation.sites} sites, {rounds} rounds; pooled {pooled_rounds or rounds} rounds"
    console.print(table(pairs, title))
    for level, gap in gaps(pairs).items():
        console.print(sentence(level, gap), highlight=False)
    if file:
        file.write_text(json.dumps(as_dict(scenario, pairs, pooled_rounds), indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)

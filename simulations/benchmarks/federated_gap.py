# SPDX-License-Identifier: Apache-2.0
"""What federating costs any task in its own figure: Dice of areas, AP50 of boxes, PSNR of images, AUC of classes.

    python -m simulations.benchmarks.federated_gap PLAN [--data DIR] [--seeds 5] [--first-seed 0] [--json FILE]

`pooled_gap` asks the same of classification, in balanced accuracy and beside each site alone; here it is the figure by which the task is
judged first (`simulations.judging`), of the federation and of everyone's patients in one place. Seed k draws its own initial weights, its
own hold-out (fold k modulo the number of folds) and its own spread of patients; both kinds of training start from the same weights, see as
many images, and are read after their last round on the same patients. So it is the differences of pairs that are averaged, with the
intervals of `pooled_gap`. Beside them stands the untrained model: what the figure is when nothing was learnt.

The JSON file is written after each pair, and pairs that it holds already are not trained again: a long run can be stopped and continued.
"""

import json
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from common.errors import FedwardError
from common.models import initial_weights
from common.plan import digest_of
from common.tasks.scores import LevelScores, Scores
from common.update import Weights
from simulations import scenario as scenarios
from simulations.apps import CLIENT_APP
from simulations.benchmarks.pooled_gap import Gap, federate, gap_of, of_seed, sentence
from simulations.benchmarks.typed import typed
from simulations.comparison import POOLED, train_apart
from simulations.engine.nursery import Nursery
from simulations.judging import judge
from simulations.options import DeviceOption
from simulations.scenario import Scenario
from simulations.stage import Stage, Workshop, set_stage

FIGURES: Final[Mapping[str, Callable[[LevelScores], float | None]]] = {
    "AUC": lambda level: level.auc,
    "balanced-accuracy": lambda level: level.balanced_accuracy,
    "macro-F1": lambda level: level.averages.macro.f1 if level.averages else None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One seed's figures on one hold-out. `num_training` and `num_holdout` count patients; `figure` is the figures' name."""

    seed: int
    fold: int
    num_training: int
    num_holdout: int
    figure: str
    untrained: float
    federated: float
    pooled: float


def play(scenario: Scenario, data: Path | None, folder: Path, shop: Workshop, *, nursery: Nursery, figure: str | None = None) -> Pair:
    """Train both from one seed, and judge them. Raises: FedwardError."""
    stage = set_stage(scenario, data, folder / f"seed_{scenario.plan.training.seed}", shop)
    workers, tell = shop.workers, shop.progress
    federated = federate(stage, workers, tell, nursery)
    apart = train_apart(stage, workers=workers, progress=partial(tell, "pooled"), nursery=nursery, only={POOLED})
    name, untrained = _figure(stage, initial_weights(scenario.plan), figure)
    return Pair(
        seed=scenario.plan.training.seed,
        fold=scenario.simulation.fold,
        num_training=sum(site["patients"] for site in stage.counts["sites"]),
        num_holdout=stage.counts["holdout"]["patients"],
        figure=name,
        untrained=untrained,
        federated=_figure(stage, federated, figure)[1],
        pooled=_figure(stage, apart[POOLED], figure)[1],
    )


def gap_between(pairs: Sequence[Pair]) -> Gap:
    """Federated minus pooled."""
    share = statistics.fmean(pair.num_holdout / pair.num_training for pair in pairs)
    return gap_of([pair.federated - pair.pooled for pair in pairs], holdout_share=share)


def _figure(stage: Stage, weights: Weights, wanted: str | None) -> tuple[str, float]:
    """The task's first figure, or the one that is wanted of a classification's images, and its name.

    0 where it cannot be said, as for boxes of a model that draws none.
    """
    found = judge(weights, stage.holdout(), stage.scenario.plan, resamples=0)
    if wanted is None or not isinstance(found, Scores):
        return found.headline.name, found.headline.value or 0.0
    return f"{wanted} by image", FIGURES[wanted](found.images) or 0.0


def table(pairs: Sequence[Pair], title: str) -> Table:
    """The figures for people."""
    shown = Table(title=title, caption=f"{pairs[0].figure} on held-out patients")
    for heading in ("seed", "fold", "untrained", "federated", "pooled", "gap"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for pair in pairs:
        shown.add_row(str(pair.seed), str(pair.fold), *_cells([pair]))
    shown.add_section()
    shown.add_row("mean", "", *_cells(pairs))
    return shown


def _cells(pairs: Sequence[Pair]) -> list[str]:
    untrained, federated, pooled = (
        statistics.fmean(getattr(pair, name) for pair in pairs) for name in ("untrained", "federated", "pooled")
    )
    return [f"{untrained:.3f}", f"{federated:.3f}", f"{pooled:.3f}", f"{federated - pooled:+.3f}"]


def as_dict(scenario: Scenario, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The figures for machines, with what is needed to repeat them. The digest is of the plan as it stands, without the runs' seeds."""
    return {
        "command": typed("simulations.benchmarks.federated_gap"),
        "plan": digest_of(scenario.plan),
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("torch", "flwr", "numpy")},
        "pairs": [asdict(pair) for pair in pairs],
        "gap": asdict(gap_between(pairs)),
    }


def on_file(file: Path | None, scenario: Scenario) -> list[Pair]:
    """The pairs that an earlier run of the same plan left."""
    if file is None or not file.is_file():
        return []
    found = json.loads(file.read_text(encoding="utf-8"))
    return [Pair(**pair) for pair in found["pairs"]] if found["plan"] == digest_of(scenario.plan) else []


def main(
    plan: Annotated[str, typer.Argument(help="A plan file, or the name of one that ships with fedward.")],
    data: Annotated[Path | None, typer.Option(help="The data folder, where the plan does not make its own.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many pairs.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of the seeds.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one per core.")] = None,
    device: DeviceOption = "cpu",
    figure: Annotated[
        str | None, typer.Option(help=f"Of a classification, by image: {', '.join(FIGURES)}. Default: the task's first.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here, and go on from those that are there.")] = None,
) -> None:
    """Measure how far a federation stays behind training in one place, in the task's own figure."""
    if figure is not None and figure not in FIGURES:
        raise typer.BadParameter(f"'{figure}' is no figure; choose one of {', '.join(FIGURES)}.", param_hint="--figure")
    console = Console()
    try:
        scenario = scenarios.load(scenarios.find(plan))
        pairs = on_file(file, scenario)
        with (
            tempfile.TemporaryDirectory(prefix="fedward-gap-") as scratch,
            Progress(console=console, transient=True) as bar,
            Nursery(CLIENT_APP) as nursery,  # one for all pairs: each engine of its own would import everything again
        ):
            task = bar.add_task("", total=None)
            for seed in sorted({*range(first_seed, first_seed + seeds)} - {pair.seed for pair in pairs}):

                def tell(what: str, done: int, total: int, seed: int = seed) -> None:
                    bar.update(task, description=f"seed {seed}: {what}", completed=done, total=total)

                folder, many = Path(scratch), workers or os.cpu_count() or 1
                shop = Workshop(cache=folder / "cache", workers=many, progress=tell, device=device)
                pairs.append(play(of_seed(scenario, seed), data, folder, shop, nursery=nursery, figure=figure))
                if file:
                    file.write_text(json.dumps(as_dict(scenario, pairs), indent=1) + "\n", encoding="utf-8")
    except FedwardError as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from None
    rounds = scenario.plan.training.rounds
    console.print(table(pairs, f"{scenario.plan.name}: {scenario.simulation.sites} sites, {rounds} rounds"))
    console.print(sentence(pairs[0].figure, gap_between(pairs)), highlight=False)


if __name__ == "__main__":
    typer.run(main)

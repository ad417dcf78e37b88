# SPDX-License-Identifier: Apache-2.0
"""What words of 16 bits cost a model: a plan trained with them beside the same plan with words of 32.

    python -m simulations.benchmarks.short_words [PLAN] [--data DIR] [--ranges 1,0.1,0.02] [--seeds 3] [--json FILE]

Every training of one seed has the same patients, first weights and order of work, and draws its privacy noise from the same stream; the
words alone differ, and what follows from them. They are summed without masks, which is bit for bit what secure aggregation gives
(`tests/journeys/test_short_words.py`). `--ranges` are coordinate ranges, as shares of the plan's update_norm. Groups are as large as the
federation, so that words have as many bits as its size leaves.

A plan whose sites share their noise cannot have short words. Its sites then add all of their own noise, in both columns.
"""

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from common import credentials
from common.agreement import grid_of
from common.errors import FedwardError
from common.plan import AggregationSpec, Plan, digest_of
from simulations import scenario as scenarios
from simulations.benchmarks.pooled_gap import Tell, Watch, of_seed
from simulations.benchmarks.typed import typed
from simulations.federation import Federation
from simulations.observer import score
from simulations.scenario import Scenario
from simulations.stage import SITES, Workshop, set_stage

WAY: Final = "ideal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """One way to write an update. `share` is the coordinate range over update_norm; None with words of 32 bits, which need none."""

    word_bits: int
    bits: int
    share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One training: area under the curve on held-out patients, and of their images; bytes of one update."""

    seed: int
    words: Words
    patients: float
    images: float
    update_bytes: int


def with_words(plan: Plan, num_sites: int, share: float | None) -> Plan:
    """The plan with words of 16 bits and a range, or of 32 where there is none, in groups of the federation's size."""
    spec = plan.aggregation
    largest = max(3, spec.minimum_cohort, min(spec.max_group, num_sites))
    words = AggregationSpec(
        minimum_cohort=spec.minimum_cohort,
        sites_per_round=spec.sites_per_round,
        update_norm=spec.update_norm,
        deadline_s=spec.deadline_s,
        max_group=largest,
        word_bits=32 if share is None else 16,
        coordinate_range=None if share is None else share * spec.update_norm,
    )
    privacy = replace(plan.privacy, noise="local", noise_quorum=None, minimum_patients=None) if plan.shares_noise else plan.privacy
    return replace(plan, aggregation=words, privacy=privacy)


def play(scenario: Scenario, data: Path | None, folder: Path, shares: Sequence[float], *, workers: int, tell: Tell) -> Iterator[Trained]:
    """The same seed with every kind of words. Raises: FedwardError."""
    seed = scenario.plan.training.seed
    for number, share in enumerate([None, *shares]):
        plan = with_words(scenario.plan, scenario.simulation.sites, share)
        shop = Workshop(cache=folder / "cache", workers=workers, progress=tell, unsafe_noise_seed=seed, aggregation=WAY)
        stage = set_stage(replace(scenario, plan=plan), data, folder / f"{seed}-{number}", shop)
        federation = Federation(
            plan=plan,
            plan_file=stage.plan_file,
            sites=stage.folder / SITES,
            num_sites=len(stage.sites),
            folder=stage.folder,
            coordinator=stage.coordinator,
            aggregation=WAY,
            unsafe_noise_seed=seed,
        )
        weights, _ = federation.train(Watch(plan.training.rounds, tell), engine="local", workers=workers)
        scores, grid = score(weights, stage.holdout(), plan, resamples=0), grid_of(plan, credentials.load_roster(stage.coordinator))
        assert scores.patients is not None
        assert scores.patients.auc is not None
        assert scores.images.auc is not None
        yield Trained(
            seed=seed,
            words=Words(word_bits=grid.ring_bits, bits=grid.bits, share=share),
            patients=scores.patients.auc,
            images=scores.images.auc,
            update_bytes=weights.values.size * grid.word.itemsize,
        )


def table(trained: Sequence[Trained], title: str) -> Table:
    """A line for each kind of words: means over the seeds, and how far each seed is from its own training with long words."""
    shown = Table(title=title, caption="area under the curve on held-out patients; differences are to long words, seed by seed")
    for heading in ("words", "bits", "range", "kB up", "patients", "images", "difference", "largest"):
        shown.add_column(heading, justify="right", no_wrap=True)
    long = {each.seed: each for each in trained if each.words.share is None}
    for words in dict.fromkeys(each.words for each in trained):
        mine = [each for each in trained if each.words == words]
        apart = [each.patients - long[each.seed].patients for each in mine]
        shown.add_row(
            str(words.word_bits),
            str(words.bits),
            "-" if words.share is None else f"{words.share:g}",
            f"{mine[0].update_bytes / 1000:.1f}",
            f"{statistics.fmean(each.patients for each in mine):.4f}",
            f"{statistics.fmean(each.images for each in mine):.4f}",
            f"{statistics.fmean(apart):+.4f}",
            f"{max(apart, key=abs):+.4f}",
        )
    return shown


def main(
    plan: Annotated[str, typer.Argument(help="A plan file, or the name of one that ships with fedward.")] = "default",
    data: Annotated[Path | None, typer.Option(help="The data folder, where the plan does not make its own.")] = None,
    ranges: Annotated[str, typer.Option(help="Coordinate ranges, as shares of update_norm, with commas.")] = "1,0.1,0.02",
    seeds: Annotated[int, typer.Option(min=1, help="How many trainings of each kind.")] = 3,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds; default: the plan's.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Measure what halving a site's updates costs the model."""
    console, trained = Console(), list[Trained]()
    shares = [float(share) for share in ranges.split(",")]
    try:
        scenario = scenarios.load(scenarios.find(plan)).with_changes(rounds=rounds)
        with tempfile.TemporaryDirectory(prefix="fedward-words-") as scratch, Progress(console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            for seed in range(seeds):

                def tell(what: str, done: int, total: int, seed: int = seed) -> None:
                    bar.update(task, description=f"seed {seed}: {what}", completed=done, total=total)

                trained.extend(play(of_seed(scenario, seed), data, Path(scratch), shares, workers=workers, tell=tell))
    except FedwardError as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from None
    console.print(table(trained, f"{scenario.plan.name}: {scenario.simulation.sites} sites, {scenario.plan.training.rounds} rounds"))
    if file:
        command = typed("simulations.benchmarks.short_words")
        figures = {"command": command, "plan": digest_of(scenario.plan), "trained": [asdict(each) for each in trained]}
        file.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)

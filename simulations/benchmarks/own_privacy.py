# SPDX-License-Identifier: Apache-2.0
"""What the plans that ship with made data reach under their own privacy, in all their rounds.

    python -m simulations.benchmarks.own_privacy [PLAN ...] [--seeds 1] [--first-seed 0] [--json FILE]

Each plan is trained twice by the deployed client and server: as it stands, under secure aggregation; and once more with nothing clipped and
no noise. Both are read in the figure by which the task is judged first, on patients whom no site has, beside the untrained model. Noise
comes from the system's source, as at a hospital, so a second run gives other figures. What was spent is what the ledger of the site that
spent most says.

Seed k draws its own initial weights and its own hold-out (fold k modulo the number of folds); the made patients are those of the plan. The
JSON file is written after each run, and runs of the same plan that it holds already are not made again: a long list can be stopped.
"""

import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from client.home import LEDGER_FILE
from client.ledger.glance import last_sums
from common.errors import FedwardError
from common.models import initial_weights
from common.plan import digest_of
from common.tasks.scoring.restoration import RestorationScores
from simulations import scenario as scenarios
from simulations.benchmarks.pooled_gap import Tell, Watch, of_seed
from simulations.benchmarks.typed import typed
from simulations.comparison import twin_without_privacy
from simulations.federation import Federation, Outcome, federation_on
from simulations.judging import judge
from simulations.scenario import PLANS, Scenario
from simulations.stage import Workshop, set_stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One plan from one seed, in the figure named `figure`. `plan`: the digest of the plan as it ships, without the run's seed.

    `untouched`: of restoration, the figure of the images as they were given. `epsilon` is that of the site that spent most, `rounds` how
    many were trained, `patients` how many at all sites.
    """

    name: str
    plan: str
    seed: int
    figure: str
    untouched: float | None
    untrained: float
    private: float
    not_private: float
    epsilon: float
    rounds: int
    patients: int
    seconds: float


def with_made_data() -> list[str]:
    """The plans that ship, make their own data and promise something."""
    found = ((path.stem, scenarios.load(path)) for path in sorted(PLANS.glob("*.toml")))
    return [name for name, played in found if played.plan.is_private and (played.simulation.made or played.simulation.phantoms)]


def play(name: str, shipped: Scenario, seed: int, folder: Path, *, workers: int, tell: Tell) -> Run:
    """Train with and without privacy, and judge both. Raises: FedwardError."""
    began = time.monotonic()
    shop = Workshop(cache=folder / "cache", workers=workers, progress=tell)
    stage = set_stage(of_seed(shipped, seed), None, folder / f"{name}_{seed}", shop)
    private, committed = _train(federation_on(stage), workers, tell)
    not_private, _ = _train(twin_without_privacy(stage)[1], workers, tell)
    plan, held_out = stage.scenario.plan, stage.holdout()
    before, after, openly = (judge(weights, held_out, plan, resamples=0) for weights in (initial_weights(plan), private, not_private))
    spent = [sums.outside for site in stage.sites if (sums := last_sums(stage.home(site) / LEDGER_FILE))]
    found = Run(
        name=name,
        plan=digest_of(shipped.plan),
        seed=seed,
        figure=after.headline.name,
        untouched=before.psnr_before if isinstance(before, RestorationScores) else None,
        untrained=before.headline.value or 0.0,
        private=after.headline.value or 0.0,
        not_private=openly.headline.value or 0.0,
        epsilon=max(spent),
        rounds=len(committed),
        patients=sum(site["patients"] for site in stage.counts["sites"]),
        seconds=time.monotonic() - began,
    )
    shutil.rmtree(stage.folder)
    return found


def _train(federation: Federation, workers: int, tell: Tell) -> Outcome:
    return federation.train(Watch(federation.plan.training.rounds, tell), engine="local", workers=workers)


def table(runs: Sequence[Run]) -> Table:
    """The figures for people: means over the seeds of each plan."""
    shown = Table(caption="on patients whom no site has; means over the seeds")
    for heading in ("plan", "figure", "seeds", "patients", "untouched", "untrained", "private", "not private", "epsilon", "seconds"):
        shown.add_column(heading, justify="left" if heading in ("plan", "figure") else "right")
    for name in dict.fromkeys(run.name for run in runs):
        of_plan = [run for run in runs if run.name == name]
        untouched = [run.untouched for run in of_plan if run.untouched is not None]
        means = [statistics.fmean(getattr(run, each) for run in of_plan) for each in ("untrained", "private", "not_private")]
        shown.add_row(
            name,
            of_plan[0].figure,
            str(len(of_plan)),
            str(of_plan[0].patients),
            f"{statistics.fmean(untouched):.3f}" if untouched else "",
            *(f"{mean:.3f}" for mean in means),
            f"{max(run.epsilon for run in of_plan):.2f}",
            f"{statistics.fmean(run.seconds for run in of_plan):.0f}",
        )
    return shown


def as_dict(runs: Sequence[Run]) -> dict[str, Any]:
    """The figures for machines, with what is needed to repeat them."""
    return {
        "command": typed("simulations.benchmarks.own_privacy"),
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("torch", "flwr", "numpy")},
        "runs": [asdict(run) for run in runs],
    }


def on_file(file: Path | None, shipped: Mapping[str, Scenario]) -> list[Run]:
    """The runs that an earlier call left, but for those of a plan that has changed since."""
    if file is None or not file.is_file():
        return []
    found = [Run(**run) for run in json.loads(file.read_text(encoding="utf-8"))["runs"]]
    return [run for run in found if run.name not in shipped or run.plan == digest_of(shipped[run.name].plan)]


def main(
    plans: Annotated[list[str] | None, typer.Argument(help="Plans by name or path. Default: all that ship with made data.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many runs of each.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of the seeds.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one per core.")] = None,
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here, and go on from those that are there.")] = None,
) -> None:
    """Train plans as they ship, with their privacy and without, and show what each reaches."""
    console = Console()
    try:
        shipped = {name: scenarios.load(scenarios.find(name)) for name in plans or with_made_data()}
        runs = on_file(file, shipped)
        done = {(run.name, run.seed) for run in runs}
        with tempfile.TemporaryDirectory(prefix="fedward-own-") as scratch, Progress(console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            for name, played in shipped.items():
                for seed in range(first_seed, first_seed + seeds):
                    if (name, seed) in done:
                        continue

                    def tell(what: str, done: int, total: int, where: str = f"{name}, seed {seed}") -> None:
                        bar.update(task, description=f"{where}: {what}", completed=done, total=total)

                    runs.append(play(name, played, seed, Path(scratch), workers=workers or os.cpu_count() or 1, tell=tell))
                    if file:
                        file.write_text(json.dumps(as_dict(runs), indent=1) + "\n", encoding="utf-8")
    except FedwardError as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from None
    console.print(table(runs))


if __name__ == "__main__":
    typer.run(main)

# SPDX-License-Identifier: Apache-2.0
"""What privacy costs in accuracy: local against distributed noise against a trusted centre, beside no privacy at all.

    python -m simulations.benchmarks.utility --data DIR [--dataset xray,phantoms,malaria] [--epsilons 1,2,4,8,inf] [--sites 5,10]
        [--modes local,distributed,central,alone] [--seeds 5] [--out DIR] [--budget-minutes M] [--resume]

Every figure is a training by the deployed client and server (`utility_play`), several at once, one core each; which there are, and in what
order, stands in `utility_cells`; what they add up to in `utility_figures`. DIR of --data holds one folder for each real data set. A result
is on file as soon as its training ends, so a run that was killed, or whose minutes are over, goes on with --resume; whatever is there makes
a table, and the cells that the aims are about come first.

    out/results.jsonl     one line for each training
        utility.md        the table        utility.json  the same for machines        utility.svg  AUC against epsilon

The data sets: `xray`, real and large enough, but without patient ids, so that a unit of privacy is one image; `phantoms`, made,
thousands of patients with three to six slices each; `malaria`, a real one of 157 patients, the negative control: no method is useful
there, and a benchmark that found one would be wrong. `xray-cnn` is the first one again with a network that learns its own features; `ct`,
real, has 76 patients, inferred, who are far too few for any promise to be cheap.

What it does not show: other networks, harder tasks, sites whose patients differ more than made hospitals do. Noise comes from seeds, so
that a table can be made again; a deployed site never draws it so.
"""

import json
import math
import os
import platform
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import TypeAdapter
from rich.console import Console

from common import canonical
from common.errors import DataUnreadable, FedwardError, PlanValue, RunFolderTaken
from simulations.apps import CLIENT_APP
from simulations.benchmarks import utility_plot
from simulations.benchmarks.typed import typed
from simulations.benchmarks.utility_cells import MODES, SOURCES, USUAL, Cell, Wanted, scenario_of, schedule
from simulations.benchmarks.utility_figures import KINDS, markdown, rows, title_of
from simulations.benchmarks.utility_play import House, Outcome
from simulations.cli import default_cache
from simulations.engine.nursery import Nursery
from simulations.scenario import to_toml
from simulations.stage import Workshop

Name = TypeVar("Name", bound=str)
Number = TypeVar("Number", int, float)

RESULTS, TABLE, FIGURES, DRAWING = "results.jsonl", "utility.md", "utility.json", "utility.svg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of results.jsonl. `scenario`: digest of what the cell was played in, which tells older plans' results apart."""

    scenario: str
    outcome: Outcome


_LINE: TypeAdapter[Line] = TypeAdapter(Line)


def scenario_digest(cell: Cell) -> str:
    """What a cell's result depends on, beside the code and the data."""
    return canonical.digest(to_toml(scenario_of(cell.setting, cell.seed)).encode()).hex()[:16]


def finished(file: Path, cells: Iterable[Cell]) -> dict[Cell, Outcome]:
    """Which of these cells have a result on file, by the present plans; a last line that a kill cut short is none.

    Raises: DataUnreadable, for another line that is none.
    """
    wanted = {(cell, scenario_digest(cell)) for cell in cells}
    whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n") if file.exists() else ("", "", "")
    try:
        lines = [_LINE.validate_json(line) for line in whole.splitlines()]
    except ValueError as error:
        raise DataUnreadable(f"'{file}' holds a line that is no result.", fix="Remove that line, or choose another --out.") from error
    return {line.outcome.cell: line.outcome for line in lines if (line.outcome.cell, line.scenario) in wanted}


def record(file: Path, outcome: Outcome) -> None:
    """Append one result, whole or not at all; what a kill left of another one is cut off."""
    line = _LINE.dump_json(Line(scenario=scenario_digest(outcome.cell), outcome=outcome)) + b"\n"
    with file.open("ab+") as output:
        output.seek(0)
        kept = output.read().rfind(b"\n") + 1
        output.truncate(kept)
        output.write(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many trainings at once, and the time (of the monotonic clock) after which none begins."""

    workers: int
    until: float


def play_all(cells: Sequence[Cell], play: Callable[[Cell], Outcome], tell: Callable[[Outcome], None], pace: Pace) -> None:
    """Play cells in order. Raises what `play` raises."""
    waiting, playing = deque(cells), set[Future[Outcome]]()
    with ThreadPoolExecutor(pace.workers) as pool:
        while True:
            while waiting and len(playing) < pace.workers and time.monotonic() < pace.until:
                playing.add(pool.submit(play, waiting.popleft()))
            if not playing:
                return
            done, playing = wait(playing, return_when=FIRST_COMPLETED)
            for future in done:
                tell(future.result())


def write_figures(folder: Path, outcomes: Sequence[Outcome]) -> str:
    """Table, figures and drawing of all outcomes; returns the table."""
    table, text = rows(outcomes), markdown(outcomes)
    (folder / TABLE).write_text(text, encoding="utf-8")
    (folder / DRAWING).write_text(utility_plot.draw(table), encoding="utf-8")
    facts: dict[str, Any] = {
        "command": typed("simulations.benchmarks.utility"),
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("torch", "flwr", "numpy", "dp-accounting")},
        "rows": [asdict(row) for row in table],
    }
    (folder / FIGURES).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return text


def names_in(option: str, text: str, known: Iterable[Name]) -> list[Name]:
    """The names in an option's value, in the order in which they are known. Raises: PlanValue, for one that is not."""
    known = list(known)
    for name in text.split(","):
        if name not in known:
            raise PlanValue(f"{option}: found '{name}', expected some of {', '.join(known)}.", fix="Put commas between them.")
    return [name for name in known if name in text.split(",")]


def numbers_in(option: str, text: str, kind: type[Number]) -> list[Number]:
    """The positive numbers in an option's value. Raises: PlanValue."""
    try:
        numbers = [kind(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) <= 0:
        raise PlanValue(f"{option}: found '{text}', expected positive numbers with commas between them.", fix="For example 1,2.")
    return numbers


def main(
    dataset: Annotated[str, typer.Option(help=f"Data sets, with commas: {', '.join(SOURCES)}.")] = ",".join(USUAL),
    epsilons: Annotated[str, typer.Option(help="Epsilons, with commas; inf: not private.")] = "1,2,4,8,inf",
    modes: Annotated[str, typer.Option(help="Ways to train, with commas.")] = ",".join(MODES),
    sites: Annotated[str, typer.Option(help="Numbers of sites, with commas.")] = "5,10",
    patients: Annotated[
        str, typer.Option(help="Training patients of a made hospital; after the first, with the first --sites only.")
    ] = "1000,2000",
    seeds: Annotated[int, typer.Option(min=1, help="How many of each.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first of the seeds.")] = 0,
    data: Annotated[Path | None, typer.Option(help="The folder with one folder for each real data set.")] = None,
    out: Annotated[Path, typer.Option(help="Where results and figures go.")] = Path("runs/utility"),
    budget_minutes: Annotated[float, typer.Option(min=0, help="Begin no training after so many minutes.")] = float("inf"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what --out holds.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Trainings at once; default: one per core.")] = None,
) -> None:
    """Measure what privacy costs in accuracy."""
    console, until = Console(), time.monotonic() + 60 * budget_minutes
    try:
        bounds = numbers_in("--epsilons", epsilons, float)
        wanted = Wanted(
            datasets=names_in("--dataset", dataset, SOURCES),
            epsilons=[None if math.isinf(bound) else bound for bound in bounds],
            modes=names_in("--modes", modes, MODES),
            sites=numbers_in("--sites", sites, int),
            patients=numbers_in("--patients", patients, int),
            seeds=range(first_seed, first_seed + seeds),
        )
        if (out / RESULTS).exists() and not resume:
            raise RunFolderTaken(f"'{out}' holds results already.", fix="Go on with --resume, or choose another --out.")
        cells = schedule(wanted)
        outcomes = _play_missing(cells, data, out, Pace(workers=workers or os.cpu_count() or 1, until=until), console)
    except FedwardError as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from None
    console.print(write_figures(out, [outcomes[cell] for cell in cells if cell in outcomes]), highlight=False, markup=False, soft_wrap=True)
    if len(outcomes) < len(cells):
        console.print(f"{len(cells) - len(outcomes)} of {len(cells)} trainings are left; go on with --resume.")


def _play_missing(cells: Sequence[Cell], data: Path | None, out: Path, pace: Pace, console: Console) -> dict[Cell, Outcome]:
    """Play what is not on file, as far as time allows; returns all that is on file then."""
    out.mkdir(parents=True, exist_ok=True)
    outcomes = finished(out / RESULTS, cells)

    def tell(outcome: Outcome) -> None:
        outcomes[outcome.cell] = outcome
        record(out / RESULTS, outcome)
        console.print(_sentence(outcome, len(outcomes), len(cells)), highlight=False, markup=False, soft_wrap=True)

    def staged(what: str, done: int, of: int) -> None:
        if done == of > 1:
            console.print(f"{what}: {of}", style="dim", highlight=False)

    shop = Workshop(cache=default_cache(), workers=pace.workers, progress=staged)
    with tempfile.TemporaryDirectory(prefix="fedward-utility-") as stages, Nursery(CLIENT_APP) as nursery:
        house = House(Path(stages), data, shop, nursery)
        play_all([cell for cell in cells if cell not in outcomes], house.play, tell, pace)
    return outcomes


def _sentence(outcome: Outcome, number: int, of: int) -> str:
    cell = outcome.cell
    bound = "" if cell.epsilon is None else f", ε {cell.epsilon:g}"
    masked = ", masked" if cell.masked else ""
    found = outcome.refused or f"AUC {sum(score.auc for score in outcome.scores) / len(outcome.scores):.3f}"
    where = f"{title_of(cell.setting)}, {KINDS[cell.kind]}{bound}{masked}, seed {cell.seed}"
    return f"{number} of {of}  {where}: {found}, {outcome.seconds:.0f} s"


if __name__ == "__main__":
    typer.run(main)

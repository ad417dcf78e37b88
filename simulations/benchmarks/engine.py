# SPDX-License-Identifier: Apache-2.0
"""What the simulation engine costs: seconds per round beside the tuned limit, a plain loop, and Flower on Ray.

    python -m simulations.benchmarks.engine [--sites 10,100] [--rounds 5] [--json FILE]

Contenders (contenders.py) do the same work (workload.py) on the same cores. They are all up at once and take turns round by round,
so that whatever else runs on the machine slows all alike; the figure is the median over rounds, after one round to warm up. Ratios carry
over to other machines, seconds do not. Processor seconds a round, over all the contender's processes, say how much of the time was work:
on a busy machine they are the steadier figure.

Start-up is from starting the process to being able to begin the first round, less what a process needs to import torch and nothing else.
Memory is the proportional set size of all the contender's processes, at its peak over two further rounds that are not timed; what a site
adds is the slope between the smallest and the largest number of sites.

Aims: fedward at most 1.1 times the limit and a third of Ray, start-up under 1.5 s, under 0.5 MB a site.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from common.errors import EngineError
from simulations.benchmarks.contenders import ENGINES, PLAIN
from simulations.benchmarks.footprint import PeakWatch, cpu_s
from simulations.benchmarks.turnstile import Contender
from simulations.benchmarks.typed import typed
from simulations.benchmarks.workload import prepare

NAMES = (*PLAIN, *ENGINES)
WARM_UP, MEMORY_ROUNDS, IMPORTS = 1, 2, 3
_MB = 2**20
_WIDTH = 110  # of the table, also where there is no terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One contender with one number of sites. `rounds_s` in the order in which they were run."""

    name: str
    num_sites: int
    startup_s: float
    rounds_s: list[float]
    cpu_s: float
    peak_mb: float

    @property
    def median_s(self) -> float:
        return statistics.median(self.rounds_s)


def measure(names: list[str], num_sites: int, rounds: int, workers: int, console: Console) -> list[Result]:
    """These contenders with this many sites."""
    total = WARM_UP + rounds + MEMORY_ROUNDS
    with tempfile.TemporaryDirectory(prefix="fedward-bench-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        prepare(folder, num_sites, total)
        contenders = []
        for name in names:
            console.print(f"{num_sites} sites: starting {name}", style="dim")
            command = ["-m", "simulations.benchmarks.contenders", name, str(num_sites), str(workers), str(folder)]
            contenders.append(Contender(name, command, folder / f"{name}.log"))
            stack.callback(contenders[-1].close)
        for contender in contenders:
            for _ in range(WARM_UP):
                contender.round_s()
        seconds: dict[str, list[float]] = {name: [] for name in names}
        before = {contender.name: cpu_s(contender.pid) for contender in contenders}
        for number in range(rounds):
            console.print(f"{num_sites} sites: round {number + 1} of {rounds}", style="dim")
            for contender in contenders:
                seconds[contender.name].append(contender.round_s())
        worked = {contender.name: (cpu_s(contender.pid) - before[contender.name]) / rounds for contender in contenders}
        peaks = {contender.name: _peak_mb(contender) for contender in contenders}
        return [
            Result(
                name=name,
                num_sites=num_sites,
                startup_s=contender.startup_s,
                rounds_s=seconds[name],
                cpu_s=worked[name],
                peak_mb=peaks[name],
            )
            for name, contender in ((contender.name, contender) for contender in contenders)
        ]


def _peak_mb(contender: Contender) -> float:
    with PeakWatch(contender.pid) as watch:
        for _ in range(MEMORY_ROUNDS):
            contender.round_s()
    return watch.peak_bytes / _MB


def torch_import_s() -> float:
    """What a process that imports torch and nothing else takes, from start to end: the median of three."""
    took = []
    for _ in range(IMPORTS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def megabytes_per_site(results: list[Result], name: str) -> float | None:
    """The slope of the peak between the fewest and the most sites, None with one number of sites."""
    own = sorted((r for r in results if r.name == name), key=lambda r: r.num_sites)
    few, many = own[0], own[-1]
    return None if few is many else (many.peak_mb - few.peak_mb) / (many.num_sites - few.num_sites)


def table(results: list[Result], torch_s: float, workers: int) -> Table:
    """The figures for people."""
    shown = Table(title=f"Engine benchmark: {workers} workers, torch {version('torch')}, flwr {version('flwr')}")
    for heading in ("sites", "contender", "s/round", "x limit", "x ray", "best", "CPU s", "start-up s", "- torch", "peak MB", "MB/site"):
        shown.add_column(heading, justify="left" if heading == "contender" else "right")
    for num_sites in sorted({r.num_sites for r in results}):
        group = {r.name: r for r in results if r.num_sites == num_sites}
        for r in group.values():
            slope = megabytes_per_site(results, r.name)
            shown.add_row(
                str(num_sites),
                r.name,
                f"{r.median_s:.3f}",
                *(f"{r.median_s / group[rival].median_s:.2f}" if rival in group else "" for rival in ("limit", "ray")),
                f"{min(r.rounds_s):.3f}",
                f"{r.cpu_s:.2f}",
                f"{r.startup_s:.2f}",
                f"{r.startup_s - torch_s:.2f}",
                f"{r.peak_mb:.0f}",
                "" if slope is None else f"{slope:.2f}",
            )
        shown.add_section()
    return shown


def as_dict(results: list[Result], torch_s: float, workers: int) -> dict[str, object]:
    """The figures for machines, with what is needed to compare them."""
    return {
        "command": typed("simulations.benchmarks.engine"),
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("torch", "flwr", "ray", "numpy")},
        "workers": workers,
        "torch_import_s": torch_s,
        "results": [{**asdict(r), "median_s": r.median_s, "mb_per_site": megabytes_per_site(results, r.name)} for r in results],
    }


def main(
    sites: Annotated[str, typer.Option(help="Numbers of sites, with commas.")] = "10,100",
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds of each contender.")] = 5,
    contenders: Annotated[str, typer.Option(help="Whom to measure, with commas; also: ideal, fsa1.")] = ",".join(NAMES),
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one per core.")] = None,
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Measure the simulation engine against its limit and its peers."""
    console = Console(width=max(Console().width, _WIDTH))
    count = workers or os.cpu_count() or 1
    torch_s = torch_import_s()
    try:
        results = [result for number in sites.split(",") for result in measure(contenders.split(","), int(number), rounds, count, console)]
    except EngineError as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from None
    console.print(table(results, torch_s, count))
    if file:
        file.write_text(json.dumps(as_dict(results, torch_s, count), indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)

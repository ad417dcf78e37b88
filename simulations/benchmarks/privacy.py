# SPDX-License-Identifier: Apache-2.0
"""What a private step costs beside the best step without privacy, and beside Opacus: time and memory.

    python -m simulations.benchmarks.privacy [--cases cnn-32,cnn-64,resnet18-64] [--images 4,1] [--steps 7] [--json FILE]

Contenders (private_steps.py) take one step on the same 64 units, patients of four images or of one. They are all up at once and take
turns step by step, with the same allocator's settings and number of threads, so that whatever else runs on the machine slows all alike; the
figure is the median over steps, after one to warm up. "x plain" divides it by the best of the plain contenders, in channels_last and at
the chunk that suits it. Ratios carry over to other machines, seconds do not. Processor seconds a step are steadier on a busy machine.

On a GPU (--device cuda) all contenders run there, a step is over when the GPU says so, and memory is what its allocator gave out at most.

Memory is what the process's proportional set size grows by from being ready to its peak over the first steps, in parts of what the plain
step takes that has all images in one pass: what one would need without privacy and without thinking. All contenders of ResNet-18 need
about 20 GB together; name fewer with --contenders where that is too much.

Aims: fedward at most 1.4 times the best plain step (CNN) and 1.7 times (ResNet), memory at most 0.6 of the plain step in one pass.
"""

import itertools
import json
import os
import platform
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from client.training.device import called, found
from common.errors import EngineError
from simulations.benchmarks.footprint import PeakWatch, cpu_s, pss_bytes, tree
from simulations.benchmarks.turnstile import Contender
from simulations.benchmarks.typed import typed
from simulations.engine.nursery import SETTINGS
from simulations.options import DeviceOption

PLAIN: Final = ("whole", "chunks-16", "chunks-64")
PRIVATE: Final = ("fedward", "alone", "hooks", "ghost")
UNITS: Final = 64
_WARM_UP: Final = 2
_MB: Final = 2**20
_WIDTH: Final = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One contender on one case. `steps_s` in the order in which they were taken; `grown_mb` from ready to the peak."""

    name: str
    case: str
    images_each: int
    steps_s: list[float]
    cpu_s: float
    grown_mb: float

    @property
    def median_s(self) -> float:
        return statistics.median(self.steps_s)


def measure(names: list[str], case: str, images_each: int, steps: int, console: Console, device: str = "cpu") -> list[Result]:
    """These contenders on one case."""
    with tempfile.TemporaryDirectory(prefix="fedward-bench-") as logs, ExitStack() as stack:
        contenders, grown = [], {}
        for name in names:
            console.print(f"{case}, {UNITS} x {images_each} images: starting {name}", style="dim")
            command = ["-W", "ignore", "-m", "simulations.benchmarks.private_steps", name, case, str(images_each), device]
            contenders.append(Contender(name, command, Path(logs) / name))
            stack.callback(contenders[-1].close)
            grown[name] = _grown_mb(contenders[-1])
        seconds: dict[str, list[float]] = {name: [] for name in names}
        before = {contender.name: cpu_s(contender.pid) for contender in contenders}
        for number in range(steps):
            console.print(f"{case}, {UNITS} x {images_each} images: step {number + 1} of {steps}", style="dim")
            for contender in contenders:
                seconds[contender.name].append(contender.round_s())
        worked = {contender.name: (cpu_s(contender.pid) - before[contender.name]) / steps for contender in contenders}
    return [
        Result(name=name, case=case, images_each=images_each, steps_s=seconds[name], cpu_s=worked[name], grown_mb=grown[name])
        for name in names
    ]


def _grown_mb(contender: Contender) -> float:
    """Warm up, and see what that takes."""
    before = pss_bytes(tree(contender.pid))
    with PeakWatch(contender.pid) as watch:
        for _ in range(_WARM_UP):
            contender.round_s()
    return (contender.peak_bytes or watch.peak_bytes - before) / _MB


def over_plain(results: list[Result], result: Result, *, processor: bool = False) -> float | None:
    """How many times the best plain contender's step this one takes, None if none was there."""
    plain = [other.cpu_s if processor else other.median_s for other in _beside(results, result) if other.name in PLAIN]
    return (result.cpu_s if processor else result.median_s) / min(plain) if plain else None


def of_whole(results: list[Result], result: Result) -> float | None:
    """Memory in parts of the plain step's that has all images in one pass, None if that was not there."""
    whole = [other.grown_mb for other in _beside(results, result) if other.name == "whole"]
    return result.grown_mb / whole[0] if whole else None


def _beside(results: list[Result], result: Result) -> list[Result]:
    return [other for other in results if (other.case, other.images_each) == (result.case, result.images_each)]


def table(results: list[Result]) -> Table:
    """The figures for people."""
    shown = Table(title=f"A private step on {UNITS} units: torch {version('torch')}, opacus {version('opacus')}")
    for heading in ("case", "images each", "contender", "ms", "x plain", "best ms", "CPU ms", "CPU x plain", "MB", "of whole"):
        shown.add_column(heading, justify="left" if heading in ("case", "contender") else "right")
    for number, result in enumerate(results):
        if number and (result.case, result.images_each) != (results[number - 1].case, results[number - 1].images_each):
            shown.add_section()
        ratios = (over_plain(results, result), over_plain(results, result, processor=True), of_whole(results, result))
        times, processor, memory = ("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        shown.add_row(
            result.case,
            str(result.images_each),
            result.name,
            f"{result.median_s * 1e3:.1f}",
            times,
            f"{min(result.steps_s) * 1e3:.1f}",
            f"{result.cpu_s * 1e3:.0f}",
            processor,
            f"{result.grown_mb:.0f}",
            memory,
        )
    return shown


def as_dict(results: list[Result], threads: int, device: str = "cpu") -> dict[str, object]:
    """The figures for machines, with what is needed to compare them."""
    return {
        "command": typed("simulations.benchmarks.privacy"),
        "machine": {
            "cores": os.cpu_count(),
            "device": called(found(device)),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in ("torch", "opacus", "numpy")},
        "threads": threads,
        "units": UNITS,
        "results": [
            {
                **asdict(result),
                "median_s": result.median_s,
                "over_plain": over_plain(results, result),
                "of_whole": of_whole(results, result),
            }
            for result in results
        ],
    }


def main(
    cases: Annotated[str, typer.Option(help="cnn-32, cnn-64, resnet18-64, with commas.")] = "cnn-32,cnn-64,resnet18-64",
    images: Annotated[str, typer.Option(help="Images of each patient, with commas.")] = "4,1",
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each contender.")] = 7,
    contenders: Annotated[str, typer.Option(help="Whom to measure, with commas.")] = ",".join((*PLAIN, *PRIVATE)),
    threads: Annotated[int, typer.Option(min=1, help="Threads of each contender.")] = 1,
    device: DeviceOption = "cpu",
    file: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Measure a private step against the best plain one and against Opacus."""
    console = Console(width=max(Console().width, _WIDTH))
    os.environ.update(SETTINGS, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    try:
        results: list[Result] = []
        for case, each in itertools.product(cases.split(","), images.split(",")):
            results += measure(contenders.split(","), case, int(each), steps, console, device)
            console.print(table(results))
            if file:  # after each case: a large one may take longer than anybody waits
                file.write_text(json.dumps(as_dict(results, threads, device), indent=1) + "\n")
    except EngineError as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)

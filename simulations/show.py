# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a simulation runs: one line for each thing that takes time, with what is left of it.

On a terminal the lines move; in a log file each line appears once, when it is done. With `--json` nothing is shown until the result.
"""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from common.plan import digest_of
from simulations.observer import RoundFigures
from simulations.stage import Stage, unsafe_seed


class Show:
    """A context manager around the live lines."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lines: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def step(self, what: str, done: int, total: int, note: str = "") -> None:
        """`what` has come to `done` of `total`."""
        if what not in self._lines:
            self._lines[what] = self._progress.add_task(what, total=total, note=note)
        line = self._lines[what]
        self._progress.update(line, completed=done, total=total)
        if note:
            self._progress.update(line, note=note)

    def announce(self, stage: Stage) -> None:
        """What is about to be trained, and in red what a reader must not overlook."""
        plan, counts = stage.scenario.plan, stage.counts
        total = sum(site["images"] for site in counts["sites"])
        patients = sum(site["patients"] for site in counts["sites"])
        self.console.print(
            f"[bold]{plan.name}[/]: {total} images of {patients} patients at {len(stage.sites)} sites, "
            f"{counts['holdout']['patients']} patients held out; plan {digest_of(plan)[:12]}",
            highlight=False,
        )
        for warning in warnings(stage):
            self.console.print(f"[bold red]{warning}[/]", highlight=False)

    def conclude(self, stage: Stage, result: dict[str, Any]) -> None:
        """The closing table, and where everything lies."""
        Console().print(comparison_table(stage, result))
        Console().print(f"report   {stage.folder / 'report.html'}\nmodel    {stage.folder / 'model.safetensors'}", highlight=False)


def warnings(stage: Stage) -> list[str]:
    """What must be said before any figure of this run is believed."""
    found = []
    if not stage.scenario.plan.is_private:
        found.append("NOT PRIVATE: updates of this run carry exact traces of patients. For comparison only.")
    if stage.scenario.plan.privacy.unit == "record":
        found.append("Privacy is counted per image: a patient with m images has about m times the epsilon.")
    if unsafe_seed(stage) is not None:
        found.append("UNSAFE NOISE SEED: whoever knows it can subtract the noise. This run protects nobody.")
    if stage.unit_source in ("image_id", "none"):
        found.append("These data have no patient ids: each image counts as its own patient, also in the hold-out.")
    return found


def describe(figures: RoundFigures, *, num_sites: int) -> str:
    """A round in one short line."""
    parts = [f"{len(figures.sites)}/{num_sites} sites"]
    if figures.auc is not None:
        parts.append(f"AUC {figures.auc:.3f}")
    if figures.epsilon is not None:
        parts.append(f"epsilon {figures.epsilon:.2f}")
    return " · ".join(parts)

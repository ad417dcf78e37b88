# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a simulation runs: one line for each thing that takes time, with what is left of it.

On a terminal the lines move; in a log file each line appears once, when it is done. With `--json` nothing is shown until the result.
"""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from simulations.observer import RoundFigures


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

    def warn(self, text: str) -> None:
        """In red: something that a reader of the result must know."""
        self.console.print(f"[bold red]{text}[/]", highlight=False)


def describe(figures: RoundFigures, *, num_sites: int) -> str:
    """A round in one short line."""
    parts = [f"{len(figures.sites)}/{num_sites} sites"]
    if figures.auc is not None:
        parts.append(f"AUC {figures.auc:.3f}")
    if figures.epsilon is not None:
        parts.append(f"epsilon {figures.epsilon:.2f}")
    return " · ".join(parts)


def summary(rows: list[tuple[str, str, str, str]]) -> Table:
    """The closing table: who trained, AUC with its interval, balanced accuracy, epsilon."""
    table = Table(title="on patients that no site has seen", title_justify="left")
    for heading, justify in (("model", "left"), ("AUC (95 %)", "right"), ("balanced accuracy", "right"), ("epsilon", "right")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    for row in rows:
        table.add_row(*row)
    return table

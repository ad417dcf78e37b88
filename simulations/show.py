# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a simulation runs: one line for each thing that takes time, with what is left of it.

On a terminal the lines move; in a log file each line appears once, when it is done. With `--json` nothing is shown until the result.
"""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from common.plan import ClassificationSpec, digest_of
from simulations.observer import RoundFigures
from simulations.stage import Stage, aggregation_of, unsafe_seed

_ALONE_SHOWN = 12


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
    if aggregation_of(stage) == "plain":
        found.append("PLAIN AGGREGATION: updates are not masked, a coordinator would see each site's. For comparison only.")
    if aggregation_of(stage) == "ideal":
        found.append("IDEAL AGGREGATION: the integers of secure aggregation without its masks. For sweeps; a deployed site refuses it.")
    if stage.unit_source in ("image_id", "none"):
        found.append("These data have no patient ids: each image counts as its own patient, also in the hold-out.")
    return found


def describe(figures: RoundFigures, *, num_sites: int) -> str:
    """A round in one short line."""
    parts = [f"{len(figures.sites)}/{num_sites} sites"]
    if figures.headline is not None:
        name, value = figures.headline
        parts.append(f"{name} {value:.3f}")
    if figures.epsilon is not None:
        parts.append(f"epsilon {figures.epsilon:.2f}")
    return " · ".join(parts)


def comparison_table(stage: Stage, result: dict[str, Any]) -> Table:
    """Each way of training, judged on the same held-out patients."""
    classes = isinstance(stage.scenario.plan.task, ClassificationSpec)
    figures = ("AUC (95 %)", "balanced accuracy (95 %)") if classes else (f"{result['federated']['headline']['name']} (95 %)",)
    table = Table(title="on patients that no site has", title_justify="left")
    for heading in ("trained", *figures):
        table.add_column(heading, justify="left" if heading == "trained" else "right")
    named = {"federated": "federation", "pooled": "all in one place", "not_private": "federation, not private"}
    for key, label in named.items():
        if key in result:
            table.add_row(label, *_cells(result[key]), style="bold" if key == "federated" else None)
    alone = sorted(result["local"].items(), key=lambda item: _first(item[1]), reverse=True)
    for number, (site, scores) in enumerate(alone[:_ALONE_SHOWN]):
        table.add_row(f"{site} alone{' (the best)' if number == 0 else ''}", *_cells(scores), style="dim")
    if len(alone) > _ALONE_SHOWN:
        table.add_row(f"... {len(alone) - _ALONE_SHOWN} further sites alone", *("" for _ in figures), style="dim")
    return table


def _first(scores: dict[str, Any]) -> float:
    """What lone sites are ranked by."""
    return float((scores["headline"]["value"] if "headline" in scores else scores["patients"]["auc"]) or 0)


def _cells(scores: dict[str, Any]) -> tuple[str, ...]:
    if "headline" in scores:
        value, interval = scores["headline"]["value"], scores["headline"]["interval"]
        return (_number(value) if interval is None else f"{_number(value)} ({interval['low']:.3f} to {interval['high']:.3f})",)
    auc, balanced = (_with_interval(scores, name) for name in ("auc", "balanced_accuracy"))
    return auc, balanced


def _with_interval(scores: dict[str, Any], name: str) -> str:
    interval = (scores["intervals"] or {}).get(name)
    if interval is None:
        return _number(scores["patients"][name])
    return f"{_number(scores['patients'][name])} ({interval['low']:.3f} to {interval['high']:.3f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

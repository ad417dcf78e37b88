# SPDX-License-Identifier: Apache-2.0
"""The search's drawings, in the report's style."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from simulations.report import numbers
from simulations.report.figures import BLUE, GREY, PAGE_WIDTH_IN, as_svg, canvas
from simulations.tuning.book import Mean
from simulations.tuning.outcome import Outcome
from simulations.tuning.race import Placed
from simulations.tuning.space import Range
from simulations.tuning.wording import SCORES

_MOST_KEYS = 4
_MOST_TICKS = 6
_ASIDE = 0.008


def curves(outcome: Outcome) -> str:
    """Score over rounds, one line a trial."""
    with canvas(PAGE_WIDTH_IN, 2.9) as figure:
        axes = figure.subplots()
        for place, placed in reversed([*enumerate(outcome.placed)]):
            won = placed is outcome.winner
            aside = 1 + _ASIDE * (place - len(outcome.placed) / 2)  # or the bars of one rung hide each other
            points = [(number * aside, mean) for number, mean in placed.curve.items() if mean.value is not None]
            if points:
                _line(axes, points, colour=BLUE if won else GREY, wide=won, label=str(placed.trial.number))
        axes.set_title(SCORES[outcome.search.metric])
        axes.set_xlabel("round")
        axes.set_xscale("log")
        ends = sorted({number for placed in outcome.placed for number in placed.curve})
        axes.set_xticks(ends, [numbers.count(end) for end in ends])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.08)
        axes.grid(axis="y")
        figure.subplots_adjust(left=0.055, right=0.985, top=0.9, bottom=0.16)
        return as_svg(figure)


def keys(outcome: Outcome) -> str | None:
    """Score at the first judgement over each key that is a number; None, if no key is."""
    paths = [path for path in outcome.search.space.dimensions if _is_number(outcome, path)][:_MOST_KEYS]
    if not paths:
        return None
    with canvas(PAGE_WIDTH_IN, 2.3) as figure:
        panels: Any = figure.subplots(1, len(paths), sharey=True, squeeze=False)
        for axes, path in zip(panels[0], paths, strict=True):
            _scatter(axes, outcome, path)
        figure.subplots_adjust(left=0.055, right=0.985, top=0.88, bottom=0.19, wspace=0.12)
        return as_svg(figure)


def _line(axes: Axes, points: Sequence[tuple[float, Mean]], *, colour: str, wide: bool, label: str) -> None:
    rounds = [number for number, _ in points]
    values = [mean.value or 0.0 for _, mean in points]
    below = [(mean.value or 0.0) - (mean.value if mean.low is None else mean.low or 0.0) for _, mean in points]  # type: ignore[operator] # not None here
    above = [(mean.value if mean.high is None else mean.high) - (mean.value or 0.0) for _, mean in points]  # type: ignore[operator] # as above
    axes.errorbar(
        rounds,
        values,
        yerr=[below, above],
        color=colour,
        linewidth=1.8 if wide else 0.8,
        elinewidth=0.8,
        marker="o",
        markersize=4 if wide else 2.6,
        alpha=1.0 if wide else 0.7,
    )
    axes.annotate(label, (rounds[-1], values[-1]), xytext=(5, -2.5), textcoords="offset points", color=colour, fontsize=7.5)


def _scatter(axes: Axes, outcome: Outcome, path: str) -> None:
    for placed in outcome.placed:
        first = _first(placed)
        if first is not None:
            won = placed is outcome.winner
            value = placed.trial.keys[path]
            axes.plot([value], [first], "o", color=BLUE, markersize=5, markerfacecolor=BLUE if won else "none")
    dimension = outcome.search.space.dimensions[path]
    if isinstance(dimension, Range) and dimension.kind == "log_uniform":
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    values = sorted({trial.keys[path] for trial in outcome.search.trials})
    if isinstance(dimension, tuple) and len(values) <= _MOST_TICKS:
        axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set_title(path.split(".")[-1])
    axes.grid(axis="y")


def _first(placed: Placed) -> float | None:
    return placed.curve[min(placed.curve)].value if placed.curve else None


def _is_number(outcome: Outcome, path: str) -> bool:
    return all(isinstance(trial.keys[path], (int, float)) and not isinstance(trial.keys[path], bool) for trial in outcome.search.trials)

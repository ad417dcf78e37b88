# SPDX-License-Identifier: Apache-2.0
"""The planner's drawings, in the report's style: shared noise is blue and a full line, local noise is vermillion and dashed."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from simulations.planner.alternatives import Alternative
from simulations.planner.modes import Mode
from simulations.planner.needed import is_linear, needed
from simulations.planner.outlook import Outlook
from simulations.planner.sweep import Point, Sweep
from simulations.planner.tables import NOISES
from simulations.report import numbers
from simulations.report.figures import BLUE, GREEN, GREY, INK, PAGE_WIDTH_IN, VERMILLION, as_svg, canvas

_LINES: Final[dict[Mode, tuple[str, Any, str]]] = {"distributed": (BLUE, "-", "o"), "local": (VERMILLION, (0, (5, 1.5)), "^")}
_LABELS_IN: Final = 2.1


def spending(known: Outlook) -> str:
    """Epsilon over the rounds at the hospital where it is highest; beside it what is left beyond the assumed colluders."""
    budget = known.plan.privacy.epsilon
    assert budget is not None
    with canvas(PAGE_WIDTH_IN, 2.4) as figure:
        left, right = figure.subplots(1, 2)
        for mode, others in known.others.items():
            colour, dash, _ = _LINES[mode]
            rounds, spent, own_share = zip(*others.rounds_so_far, strict=True)
            shares = [round_ / rounds[-1] for round_ in rounds]
            for axes, values in ((left, spent), (right, own_share)):
                axes.plot(shares, values, color=colour, linestyle=dash, label=NOISES[mode])
        left.axhline(budget, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        left.annotate(
            f"promised, {numbers.epsilon(budget)}", (0, budget), xytext=(3, 2.5), textcoords="offset points", color=GREY, fontsize=7.5
        )
        left.set_title("ε against the outside")
        right.set_title("ε against all other sites together")
        for axes in (left, right):
            axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
            axes.set_xlim(0, 1.02)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: numbers.percent(share)))
            axes.set_xlabel("of the rounds")
            axes.grid(axis="y")
        right.legend(loc="upper left", frameon=False, fontsize=7.5, handlelength=2.6)
        figure.subplots_adjust(left=0.055, right=0.985, top=0.88, bottom=0.19, wspace=0.16)
        return as_svg(figure)


def trade(known: Outlook) -> str:
    """Relative noise at the plan's epsilon, over rounds and over the batch; the plan itself is the filled mark."""
    with canvas(PAGE_WIDTH_IN, 2.4) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for mode, others in known.others.items():
            training = next(entry.plan.training for entry in known.modes if entry.mode == mode)
            _trade(left, others.rounds, training.rounds, mode)
            _trade(right, others.batches, training.batch, mode)
        left.set_title("Relative noise at equal ε, over the rounds")
        right.set_title("over the batch")
        left.set_ylabel("thousandths of the clip norm")
        left.set_ylim(0, None)
        right.legend(loc="best", frameon=False, fontsize=7.5, handlelength=2.6)
        for axes, name in ((left, "rounds"), (right, "batch")):
            _log_axis(axes, numbers.count)
            axes.set_xlabel(name)
            axes.grid(axis="y")
        figure.subplots_adjust(left=0.075, right=0.985, top=0.88, bottom=0.19, wspace=0.08)
        return as_svg(figure)


def patients(known: Outlook) -> str:
    """What each kind of model and noise needs, as a bar from the lowest to the highest estimate, and the hospitals as lines across."""
    rows = [
        (f"{known.plan.model.family if not linear else 'scattering'}, {NOISES[entry.mode]}", needed(entry, linear=linear), entry.mode)
        for linear in ((True,) if is_linear(known.plan) else (False, True))
        for entry in known.modes
    ]
    height = 0.75 + 0.27 * len(rows)
    with canvas(PAGE_WIDTH_IN, height) as figure:
        axes = figure.subplots()
        for count in sorted({site.units for site in known.forecast.asked.sites}):
            axes.axvline(count, color=INK, linewidth=0.8)
            axes.annotate(
                numbers.count(count),
                (count, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7,
            )
        for index, (_, need, mode) in enumerate(rows):
            axes.plot([need.low, need.high], [-index, -index], color=_LINES[mode][0], linewidth=7, alpha=0.55, solid_capstyle="butt")
        axes.set_xscale("log")
        _log_axis(axes, numbers.count)
        axes.set_yticks([-index for index in range(len(rows))], [label for label, _, _ in rows])
        axes.set_ylim(-len(rows) + 0.4, 0.6)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        figure.subplots_adjust(left=_LABELS_IN / PAGE_WIDTH_IN, right=0.97, top=1 - 0.25 / height, bottom=0.3 / height)
        return as_svg(figure)


def measured(known: Outlook, sweep: Sweep) -> str:
    """AUC on made patients over relative noise, and where the plan's hospitals stand with either noise."""
    with canvas(PAGE_WIDTH_IN, 2.6) as figure:
        axes = figure.subplots()
        for points, colour, marker, label in (
            (sweep.model, INK, "o", known.plan.model.family),
            (sweep.scattering, GREEN, "s", "scattering"),
        ):
            _curve(axes, points, colour, marker, label)
        for entry in known.modes:
            if entry.relative_noise is not None:
                colour, dash, _ = _LINES[entry.mode]
                axes.axvline(1000 * entry.relative_noise, color=colour, linestyle=dash, linewidth=1.0, label=NOISES[entry.mode])
        axes.axhline(0.5, color=GREY, linewidth=0.7, linestyle=(0, (1, 2)))
        axes.set_ylim(0.45, 1.0)
        axes.set_xlim(left=-0.3)
        axes.set_xlabel("relative noise, thousandths of the clip norm")
        axes.set_ylabel("AUC")
        axes.grid(axis="y")
        axes.legend(loc="upper right", frameon=False, fontsize=7.5, handlelength=2.6)
        figure.subplots_adjust(left=0.075, right=0.985, top=0.97, bottom=0.17)
        return as_svg(figure)


def _trade(axes: Axes, found: Sequence[Alternative], own: int, mode: Mode) -> None:
    colour, dash, marker = _LINES[mode]
    points = [(row.value, 1000 * row.relative_noise) for row in found if row.relative_noise is not None]
    axes.set_xscale("log", base=2)
    axes.plot(
        *zip(*points, strict=True), color=colour, linestyle=dash, marker=marker, markersize=4, markerfacecolor="white", label=NOISES[mode]
    )
    axes.plot(*zip(*[point for point in points if point[0] == own], strict=True), color=colour, marker=marker, markersize=5.5)


def _curve(axes: Axes, points: Sequence[Point], colour: str, marker: str, label: str) -> None:
    if not points:
        return
    x, y = [1000 * point.relative_noise for point in points], [point.auc for point in points]
    reach = [[point.auc - point.low for point in points], [point.high - point.auc for point in points]]
    axes.errorbar(x, y, yerr=reach, color=colour, marker=marker, markersize=4, elinewidth=0.9, linewidth=1.2, label=label)


def _log_axis(axes: Axes, spelled: Callable[[int], str]) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: spelled(round(value))))
    axes.xaxis.set_minor_formatter(NullFormatter())

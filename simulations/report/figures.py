# SPDX-License-Identifier: Apache-2.0
"""The drawings of the report; with `benefit`, which draws one more in the same style, the only module that imports matplotlib.

Every figure is a function from numbers to SVG text. No global state of matplotlib is touched (no pyplot, a style that holds inside one
call), text stays text so that it can be searched and read aloud, and ids are salted with a constant: equal numbers give equal bytes.

Colours are those of Okabe and Ito (2008), which people with any of the common colour deficiencies can tell apart; what they tell apart
is also told by shape or dash, since the page may be printed in grey. Lines are labelled where they end, not in a box beside them.
Intervals are drawn wherever they are known. Widths are those of A4 less its margins, in inches, so type has its true size on paper.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, MultipleLocator, NullLocator

from simulations.report import numbers
from simulations.report.curves import Bin, RocCurve
from simulations.report.folder import Round
from simulations.report.rounds import Participation
from simulations.report.scores import Compared, Metric

PAGE_WIDTH_IN = 7.1
HALF_WIDTH_IN = 3.5

INK, GREY, RULE, RED = "#1b232c", "#55606a", "#d5dadf", "#a8071a"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#c24e00", "#00795a", "#a9558a", "#b87a00", "#2f8fc4"
_KINDS: dict[str, tuple[str, str]] = {
    "federated": (BLUE, "o"),
    "not_private": (RED, "D"),
    "pooled": (INK, "s"),
    "local": (GREY, "o"),
}
_LABEL_COLOURS = {"federated": INK, "not_private": RED, "pooled": INK, "local": GREY}
_CLASSES: tuple[tuple[str, Any], ...] = (
    (BLUE, "-"),
    (VERMILLION, (0, (5, 1.5))),
    (GREEN, (0, (1.5, 1.2))),
    (PURPLE, (0, (5, 1.2, 1, 1.2))),
    (ORANGE, "-"),
    (SKY, (0, (3, 1))),
)

_ATTACKED: tuple[tuple[str, Any], ...] = ((BLUE, "-"), (RED, (0, (5, 1.5))), (GREY, (0, (1.5, 1.2))), (GREEN, (0, (5, 1.2, 1, 1.2))))
_TENTHS = (0.001, 0.01, 0.1, 1.0)
_STEPS = [1, 2, 5, 10]
_LABELS_IN = 1.5
"""Room at the left for the names of rows."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedward",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib: sizes are measured alike everywhere; the page sets its own family
    "font.size": 8.0,
    "text.color": INK,
    "axes.labelcolor": GREY,
    "axes.labelsize": 8.0,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#9aa3ab",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": "#9aa3ab",
    "ytick.color": "#9aa3ab",
    "xtick.labelcolor": GREY,
    "ytick.labelcolor": GREY,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "lines.linewidth": 1.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def convergence(rounds: Sequence[Round], *, planned: int, budget: float | None) -> str:
    """The headline figure, of classes balanced accuracy and, where there is any, epsilon spent: small panels over the same rounds."""
    measure = next((line.headline[0] for line in rounds if line.headline is not None), "AUC")
    panels: list[tuple[str, Callable[[Round], float | None]]] = [(measure, lambda line: line.judged)]
    if measure == "AUC" or any(line.balanced_accuracy is not None for line in rounds):
        panels.append(("Balanced accuracy", lambda line: line.balanced_accuracy))
    scores = len(panels)
    if any(line.epsilon is not None for line in rounds):
        panels.append(("Privacy spent, ε", lambda line: line.epsilon))
    last = max([planned, *(line.number for line in rounds)])
    with canvas(PAGE_WIDTH_IN, 2.15) as figure:
        for index, (axes, (title, value)) in enumerate(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)):
            points = [(line.number, score) for line in rounds if (score := value(line)) is not None]
            axes.plot([x for x, _ in points], [y for _, y in points], color=BLUE, marker="o" if last <= 30 else None, markersize=2.6)
            axes.set_title(title)
            axes.set_xlim(min(0.5, 1 - last / 40), last + max(0.5, last / 40))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=_STEPS))
            axes.grid(axis="y")
            axes.set_xlabel("round")
            if index < scores:
                _score_axis(axes, [y for _, y in points])
            else:
                _budget_axis(axes, [y for _, y in points], budget)
            _absences(axes, rounds)
        figure.subplots_adjust(left=0.055, right=0.985, top=0.88, bottom=0.2, wspace=0.2)
    return as_svg(figure)


def comparison(rows: Sequence[Compared]) -> str:
    """One row for each way of training, two columns of scores: dot, 95 % interval, and the number beside it."""
    panels: list[tuple[str, Metric]] = [(rows[0].measure, "headline")]
    if any(row.edges("balanced_accuracy") for row in rows) or rows[0].measure == "AUC":
        panels.append(("Balanced accuracy", "balanced_accuracy"))
    height = 0.62 + 0.205 * len(rows)
    with canvas(PAGE_WIDTH_IN, height) as figure:
        columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, metric) in zip(columns, panels, strict=True):
            for position, row in enumerate(rows):
                _dot(axes, row, metric, y=-position)
            reference = rows[0].estimate(metric).value
            if reference is not None:
                axes.axvline(reference, color=BLUE, linewidth=0.7, linestyle=(0, (3, 2)), zorder=0)
            axes.set_title(title)
            axes.set_xlim(*_span([edge for row in rows for edge in row.edges(metric)]))
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=_STEPS))
            axes.set_ylim(-len(rows) + 0.4, 0.6)
            axes.grid(axis="x")
            axes.spines["left"].set_visible(False)
        _name_rows(columns[0], [row.label for row in rows])
        for label, row in zip(columns[0].get_yticklabels(), rows, strict=True):
            label.set(color=_LABEL_COLOURS[row.kind], fontweight="bold" if row.kind == "federated" else "normal")
        figure.subplots_adjust(left=_LABELS_IN / PAGE_WIDTH_IN, right=0.94, top=1 - 0.24 / height, bottom=0.3 / height, wspace=0.2)
    return as_svg(figure)


def roc(curves: Sequence[RocCurve]) -> str:
    """Sensitivity over 1 - specificity; the dot is where the plan's threshold stands."""
    with canvas(HALF_WIDTH_IN, 3.3) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.7, linestyle=(0, (1, 2)))
        for curve, (colour, dash) in zip(curves, _CLASSES, strict=False):
            axes.plot(curve.false_positive, curve.true_positive, color=colour, linestyle=dash, label=_short(curve.label, 22), clip_on=False)
            if curve.operating_point is not None:
                x, y = curve.operating_point
                axes.plot([x], [y], "o", markersize=6, markerfacecolor="white", markeredgecolor=colour, markeredgewidth=1.5, clip_on=False)
                axes.annotate("at the threshold", (x, y), xytext=(8, -9), textcoords="offset points", fontsize=7.5)
        if len(curves) > 1:
            axes.legend(loc="lower right", frameon=False, fontsize=7.5, handlelength=2.6)
        _unit_square(axes, "1 − specificity", "sensitivity")
        figure.subplots_adjust(left=0.15, right=0.96, top=0.97, bottom=0.13)
    return as_svg(figure)


def calibration(bins: Sequence[Bin], *, label: str, counted: str) -> str:
    """What was foretold against what was found, with the number of patients (or what else was counted) behind each dot beneath."""
    with canvas(HALF_WIDTH_IN, 3.3) as figure:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4.4, 1))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.7, linestyle=(0, (1, 2)))
        for group in bins:
            axes.plot([group.foretold] * 2, [group.low, group.high], color=BLUE, linewidth=1.1)
        axes.plot([group.foretold for group in bins], [group.found for group in bins], "o", color=BLUE, markersize=4.2, clip_on=False)
        _unit_square(axes, "", "share found")
        below.bar(
            [(group.left + group.right) / 2 for group in bins],
            [group.count for group in bins],
            width=[0.86 * (group.right - group.left) for group in bins],
            color="#9fb6c6",
        )
        for group in bins:
            below.annotate(
                str(group.count),
                ((group.left + group.right) / 2, group.count),
                xytext=(0, 1.5),
                textcoords="offset points",
                ha="center",
                fontsize=6.5,
                color=GREY,
            )
        below.set_yticks([])
        below.spines["left"].set_visible(False)
        below.set_ylabel(counted, rotation=0, ha="right", va="center", fontsize=7.5)
        below.set_ylim(0, 1.35 * max((group.count for group in bins), default=1))
        below.set_xlabel(_short(label, 44))
        figure.subplots_adjust(left=0.17, right=0.96, top=0.97, bottom=0.13, hspace=0.09)
    return as_svg(figure)


def membership(rates: Sequence[float], attacked: Mapping[str, Sequence[float]], allowed: Sequence[float] | None) -> str:
    """The share of members found over the share of strangers accused, both on logarithmic scales; above the edge no attack can be."""
    with canvas(HALF_WIDTH_IN, 3.3) as figure:
        axes = figure.subplots()
        least = min(rates)
        axes.set(xscale="log", xlim=(least, 1), xlabel="strangers called members", ylabel="members found")
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(least, 1)
        if allowed is not None:
            axes.fill_between(rates, allowed, 1, facecolor="#fbf1e6", edgecolor="none")
            axes.plot(rates, allowed, color=VERMILLION, linewidth=0.9, linestyle=(0, (4, 2)))
            axes.annotate("no attack gets here", (least, 1), xytext=(4, -10), textcoords="offset points", color=VERMILLION, fontsize=7.5)
        axes.plot(rates, rates, color=GREY, linewidth=0.7, linestyle=(0, (1, 2)))
        for (label, found), (colour, dash) in zip(attacked.items(), _ATTACKED, strict=False):
            axes.plot(rates, found, color=colour, linestyle=dash, label=label)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator(_TENTHS))
            axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
            axis.set_minor_locator(NullLocator())
        axes.grid()
        axes.legend(loc="lower right", frameon=False, fontsize=7.5, handlelength=2.6)
        figure.subplots_adjust(left=0.17, right=0.93, top=0.97, bottom=0.13)
    return as_svg(figure)


def participation(who: Participation) -> str:
    """Sites by rounds: a dot for an answer, a cross for an absence, nothing where a site was not asked."""
    height = 0.5 + 0.165 * len(who.sites)
    with canvas(PAGE_WIDTH_IN, height) as figure:
        axes = figure.subplots()
        size = max(1.2, min(4.0, 150 / max(who.rounds, 1)))
        for points, marker, colour, width in ((who.answered, "o", "#9fb6c6", 0), (who.absent, "x", VERMILLION, 1.4)):
            axes.plot(
                [x for _, x in points],
                [-y for y, _ in points],
                linestyle="none",
                marker=marker,
                color=colour,
                markersize=size * (1.0 if width == 0 else 1.35),
                markeredgewidth=width,
            )
        _name_rows(axes, who.sites)
        axes.set_ylim(-len(who.sites) + 0.4, 0.6)
        axes.set_xlim(0.4, who.rounds + 0.6)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, steps=_STEPS))
        axes.set_xlabel("round")
        axes.spines[["left", "bottom"]].set_visible(False)
        figure.subplots_adjust(left=_LABELS_IN / PAGE_WIDTH_IN, right=0.985, top=1 - 0.04 / height, bottom=0.4 / height)
    return as_svg(figure)


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names at the left edge, where the text of the page begins too."""
    axes.set_yticks([-row for row in range(len(names))], [_short(name, 22) for name in names])
    axes.tick_params(axis="y", pad=72 * _LABELS_IN - 1)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")


def _score_axis(axes: Axes, values: Sequence[float]) -> None:
    lowest, highest = min([0.5, *values]), max([1.0, *values])
    if highest > 1:  # decibels, not shares
        axes.set_ylim(min(values) - 0.1 * highest, highest * 1.03)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    else:
        axes.set_ylim(lowest - 0.02, 1.0)
        axes.yaxis.set_major_locator(MultipleLocator(0.1 if lowest > 0.35 else 0.2))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: numbers.decimals(value, 1)))
    if values:
        axes.annotate(
            numbers.ratio(values[-1]),
            (1, values[-1]),
            xycoords=("axes fraction", "data"),
            xytext=(0, -13),
            textcoords="offset points",
            ha="right",
            color=BLUE,
            fontweight="bold",
            fontsize=7.5,
        )


def _budget_axis(axes: Axes, values: Sequence[float], budget: float | None) -> None:
    axes.set_ylim(0, 1.18 * max([*values, budget or 0, 1e-9]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if budget is not None:
        axes.axhline(budget, color=VERMILLION, linewidth=0.9, linestyle=(0, (4, 2)))
        axes.annotate(
            f"budget {numbers.epsilon(budget)}",
            (0, budget),
            xycoords=("axes fraction", "data"),
            xytext=(3, 2.5),
            textcoords="offset points",
            color=VERMILLION,
            fontsize=7.5,
        )


def _absences(axes: Axes, rounds: Sequence[Round]) -> None:
    """A tick at the foot of each round that somebody missed."""
    missed = [line.number for line in rounds if line.missing]
    axes.plot(
        missed,
        [0.022] * len(missed),
        linestyle="none",
        marker="x",
        color=VERMILLION,
        markersize=3.2,
        markeredgewidth=1.1,
        transform=axes.get_xaxis_transform(),
    )


def _dot(axes: Axes, row: Compared, metric: Metric, *, y: float) -> None:
    colour, marker = _KINDS[row.kind]
    if row.spread:
        values = row.values(metric)
        axes.plot(values, [y] * len(values), linestyle="none", marker="|", color=colour, markersize=6, markeredgewidth=0.8)
        return
    estimate = row.estimate(metric)
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=1.3, solid_capstyle="butt")
    if estimate.value is not None:
        axes.plot([estimate.value], [y], linestyle="none", marker=marker, color=colour, markersize=4.6)
    axes.annotate(
        numbers.ratio(estimate.value),
        (1, y),
        xycoords=("axes fraction", "data"),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=_LABEL_COLOURS[row.kind],
    )


def _unit_square(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel=x_label, ylabel=y_label)
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.grid()


def _span(edges: Sequence[float]) -> tuple[float, float]:
    """The narrowest range of round numbers that holds all intervals."""
    low, high = (min(edges), max(edges)) if edges else (0.0, 1.0)
    margin = max(0.02, 0.05 * (high - low))
    return max(0.0, low - margin), high + margin if high > 1 else min(1.005, high + margin)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


@contextmanager
def canvas(width_in: float, height_in: float) -> Iterator[Figure]:
    """An empty figure in the house's style."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width_in, height_in))
        FigureCanvasSVG(figure)
        yield figure


def as_svg(figure: Figure) -> str:
    """The finished figure as text; equal figures give equal text."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()

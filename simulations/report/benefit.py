# SPDX-License-Identifier: Apache-2.0
"""The decision curve as it is drawn: what acting on the model gains, beside acting on everyone and on no one.

One panel for the second of two classes, or one for each of a few more. Thresholds run over the whole scale; the range of benefits is that
of the model and of nobody, since the line of acting on everyone falls without end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from common.tasks.scoring.benefit import DecisionPoint, decision_curve, useful_range
from simulations.report import numbers
from simulations.report.figures import BLUE, GREY, HALF_WIDTH_IN, PAGE_WIDTH_IN, VERMILLION, as_svg, canvas

RESAMPLES = 500
PANELS = 6
_IN_A_ROW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Benefit:
    """One class against the rest."""

    label: str
    curve: tuple[DecisionPoint, ...]


def benefits(probabilities: NDArray[np.float32], labels: NDArray[np.int64], names: Sequence[str], *, seed: int = 0) -> list[Benefit]:
    """The curve of the second class of two, or of the first few of more; none for a class that nobody has, or everybody.

    Shapes: probabilities (N, C), labels (N,).
    """
    classes = range(probabilities.shape[1])
    found = []
    for index in [1] if len(classes) == 2 else list(classes)[:PANELS]:
        positive = labels == index
        if positive.any() and not positive.all():
            curve = decision_curve(probabilities[:, index], positive, resamples=RESAMPLES, seed=seed)
            found.append(Benefit(label=names[index] if index < len(names) else f"class {index}", curve=curve))
    return found


def draw(found: Sequence[Benefit]) -> str:
    """All panels, in rows of three where there are several."""
    if len(found) == 1:
        with canvas(HALF_WIDTH_IN, 3.0) as figure:
            _panel(figure.subplots(), found[0], titled=False)
            figure.subplots_adjust(left=0.17, right=0.96, top=0.95, bottom=0.14)
        return as_svg(figure)
    in_a_row = 2 if len(found) in (2, 4) else _IN_A_ROW
    rows = -(-len(found) // in_a_row)
    with canvas(PAGE_WIDTH_IN, 2.35 * rows) as figure:
        grid = figure.subplots(rows, in_a_row, squeeze=False).ravel()
        for place, axes in enumerate(grid):
            if place < len(found):
                _panel(axes, found[place], titled=True)
            else:
                axes.set_axis_off()
        figure.subplots_adjust(left=0.075, right=0.985, top=1 - 0.08 / rows, bottom=0.19 / rows, wspace=0.28, hspace=0.45)
    return as_svg(figure)


def describe(found: Benefit) -> str:
    """Where the model is of use, in words."""
    useful = useful_range(found.curve)
    if useful is None:
        return f"For {found.label}, at no threshold of more use than acting on everyone or on no one"
    low, high = numbers.percent(useful[0]), numbers.percent(useful[1])
    return f"For {found.label}, of more use than acting on everyone or on no one where one acts from {low} to {high} on"


def _panel(axes: Axes, found: Benefit, *, titled: bool) -> None:
    at = [point.threshold for point in found.curve]
    low = [point.model if point.interval is None else point.interval.low for point in found.curve]
    high = [point.model if point.interval is None else point.interval.high for point in found.curve]
    axes.fill_between(at, low, high, facecolor=BLUE, alpha=0.15, edgecolor="none")
    axes.plot(at, [point.everyone for point in found.curve], color=VERMILLION, linestyle=(0, (5, 1.5)), label="everyone")
    axes.axhline(0, color=GREY, linewidth=0.9, linestyle=(0, (1.5, 1.2)), label="no one")
    axes.plot(at, [point.model for point in found.curve], color=BLUE, label="the model")
    top = max([*high, found.curve[0].everyone, 0.01])
    axes.set(xlim=(0, 1), ylim=(-0.22 * top, 1.08 * top), xlabel="acted on from a probability of", ylabel="net benefit")
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1"])
    axes.grid()
    axes.legend(loc="upper right", frameon=False, fontsize=7.5, handlelength=2.4)
    if titled:
        axes.set_title(found.label if len(found.label) <= 26 else found.label[:25] + "…")

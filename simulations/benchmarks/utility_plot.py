# SPDX-License-Identifier: Apache-2.0
"""The utility benchmark as a drawing: a panel for each setting, AUC against epsilon.

A point is the mean over seeds, its bar one standard deviation. Two lines go across: the federation without privacy, and what a hospital has
alone, without privacy. Epsilons stand at equal distances, since people choose among a few of them.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from simulations.benchmarks.utility_cells import Kind, Setting
from simulations.benchmarks.utility_figures import KINDS, Row, title_of
from simulations.report.figures import BLUE, GREY, INK, PAGE_WIDTH_IN, RED, VERMILLION, as_svg, canvas

COLUMNS: Final = 2
_PANEL_IN, _LEGEND_IN = 2.1, 0.45
_LINES: Final[tuple[tuple[Kind, str, str], ...]] = (("central", INK, "s"), ("distributed", BLUE, "o"), ("local", VERMILLION, "^"))
_LEVELS: Final[tuple[tuple[Kind, str, Literal["--", ":"]], ...]] = (("federated", RED, "--"), ("alone", GREY, ":"))
_APART: Final = 0.07
"""Points at one epsilon stand beside each other, so that their bars can be seen."""


def draw(table: Sequence[Row]) -> str:
    """SVG text; nothing but a legend, if there is no row."""
    settings = list(dict.fromkeys(row.setting for row in table))
    down = max(1, math.ceil(len(settings) / COLUMNS))
    height = down * _PANEL_IN + _LEGEND_IN
    with canvas(PAGE_WIDTH_IN, height) as figure:
        panels = figure.subplots(down, COLUMNS, squeeze=False).flatten().tolist()
        for axes, setting in zip(panels, settings, strict=False):
            _panel(axes, [row for row in table if row.setting == setting], setting)
        for axes in panels[len(settings) :]:
            axes.set_visible(False)
        handles = [Line2D([], [], color=colour, marker=marker, markersize=4, label=KINDS[kind]) for kind, colour, marker in _LINES]
        handles += [Line2D([], [], color=colour, linestyle=dash, label=KINDS[kind]) for kind, colour, dash in _LEVELS]
        figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=7.5)
        bottom = (_LEGEND_IN + 0.35) / height
        figure.subplots_adjust(left=0.08, right=0.985, top=1 - 0.3 / height, bottom=bottom, wspace=0.2, hspace=0.55)
        return as_svg(figure)


def _panel(axes: Axes, table: Sequence[Row], setting: Setting) -> None:
    epsilons = sorted({row.epsilon for row in table if row.epsilon is not None})
    for index, (kind, colour, marker) in enumerate(_LINES):
        found = [(row.epsilon, row.auc) for row in table if row.kind == kind and row.epsilon is not None and row.auc]
        points = sorted((epsilons.index(epsilon) + _APART * (index - 1), auc.mean, auc.spread or 0.0) for epsilon, auc in found)
        if points:
            x, mean, spread = zip(*points, strict=True)
            axes.errorbar(x, mean, yerr=spread, color=colour, marker=marker, markersize=3.6, elinewidth=0.9, linewidth=1.2)
    for kind, colour, dash in _LEVELS:
        for row in table:
            if row.kind == kind and row.auc:
                axes.axhline(row.auc.mean, color=colour, linestyle=dash, linewidth=1.1)
    axes.set_title(title_of(setting), fontsize=8)
    axes.set_xticks(range(len(epsilons)), [f"{epsilon:g}" for epsilon in epsilons])
    axes.set_xlim(-0.4, max(len(epsilons) - 0.6, 0.4))
    axes.set_xlabel("ε")
    axes.set_ylabel("AUC")
    axes.grid(axis="y")

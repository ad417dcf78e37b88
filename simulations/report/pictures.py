# SPDX-License-Identifier: Apache-2.0
"""Small grey pictures as vector drawings: the page's own policy forbids the browser to fetch any image, even one inside the page.

A picture is a few grey levels, each one path of rectangles; neighbours of a row that are alike are one rectangle. 32 x 32 pixels take 5 kB
if they show something and 15 kB if they are noise.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from xml.sax.saxutils import escape

from simulations.report.folder import Picture

LEVELS = 24
_SIDE, _GAP, _LINE = 120.0, 12.0, 13.0


def row(pictures: Sequence[Picture], lines: Sequence[Sequence[str]]) -> str:
    """Pictures side by side with lines of text under each, as one SVG document."""
    width = len(pictures) * (_SIDE + _GAP) - _GAP
    height = _SIDE + _LINE * (max(map(len, lines), default=0) + 0.5)
    parts = [
        f'<g transform="translate({number * (_SIDE + _GAP):g} 0)">{_drawn(picture)}{_said(below)}</g>'
        for number, (picture, below) in enumerate(zip(pictures, lines, strict=True))
    ]
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">{"".join(parts)}</svg>'


def _drawn(picture: Picture) -> str:
    paths: dict[int, list[str]] = {}
    for y, line in enumerate(picture.pixels):
        for level, x, width in _runs(line):
            paths.setdefault(level, []).append(f"M{x} {y}h{width}v1h-{width}z")
    scale = _SIDE / max(len(picture.pixels), *(len(line) for line in picture.pixels))
    drawn = "".join(f'<path fill="{_grey(level)}" d="{"".join(found)}" />' for level, found in sorted(paths.items()))
    return f'<g transform="scale({scale:.6g})" shape-rendering="crispEdges">{drawn}</g>'


def _runs(line: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Level, start and length of each run of alike pixels."""
    x = 0
    for level, run in groupby(value * LEVELS // 256 for value in line):
        width = len(list(run))
        yield level, x, width
        x += width


def _grey(level: int) -> str:
    value = round(255 * level / (LEVELS - 1))
    return f"#{value:02x}{value:02x}{value:02x}"


def _said(lines: Sequence[str]) -> str:
    return "".join(
        f'<text x="0" y="{_SIDE + _LINE * (number + 1):g}" font-size="9.5" font-weight="{"bold" if number == 0 else "normal"}"'
        f' fill="{"#1b232c" if number == 0 else "#55606a"}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )

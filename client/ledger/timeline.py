# SPDX-License-Identifier: Apache-2.0
"""A drawing of what was spent, and what might be, over time: steps, because a charge is made in a moment.

SVG by hand, so that the page that holds it needs nothing else. Solid: as seen from outside. Dashed: by more colluding sites than plans
assume, drawn where it differs. The caps are lines of their own, and step where they were changed.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Final

from client.ledger.summary import Summary

WIDTH, HEIGHT = 860, 340
LEFT, RIGHT, TOP, BOTTOM = 52, 132, 16, 40
MOST_STEPS: Final = 600
"""More could not be told apart."""
OUTSIDE, OWN_SHARE, CAP = "#0072b2", "#d55e00", "#444"

Steps = Sequence[tuple[float, float]]
"""(Unix seconds, value from then on)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """From seconds and epsilon to the drawing's units."""

    start: float
    end: float
    top: float

    def x(self, seconds: float) -> float:
        return LEFT + (seconds - self.start) / (self.end - self.start) * (WIDTH - LEFT - RIGHT)

    def y(self, epsilon: float) -> float:
        return HEIGHT - BOTTOM - min(epsilon, self.top) / self.top * (HEIGHT - TOP - BOTTOM)


def draw(found: Summary, unit: str) -> str:
    """One `<svg>` for all plans that promise to this unit."""
    charged = [moment for moment in found.moments if moment.unit == unit]
    outside = [(_seconds(moment.t_utc), moment.outside or 0.0) for moment in charged]
    own = [(_seconds(moment.t_utc), moment.own_share or 0.0) for moment in charged]
    caps = [(_seconds(since), caps.eps_total) for since, caps in found.caps_history]
    start = _seconds(found.opened)
    end = max(_seconds(found.last), start + 60)
    differs = any(abs(a - b) > 1e-9 for (_, a), (_, b) in zip(outside, own, strict=True))
    finite = [value for _, value in [*outside, *caps, *(own if differs else [])] if math.isfinite(value)]
    frame = Frame(start=start, end=end, top=_round_up(1.08 * max(finite, default=1.0)))
    parts = [_axes(frame), _line(frame, caps, CAP, "2 4"), _label(frame, caps, CAP, "cap, all plans")]
    if differs:
        parts += [_line(frame, [(start, 0.0), *own], OWN_SHARE, "7 4"), _label(frame, own, OWN_SHARE, "own share")]
    parts += [_line(frame, [(start, 0.0), *outside], OUTSIDE, ""), _label(frame, outside, OUTSIDE, "spent")]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="timeline-{escape(unit)}">'
        f'<title id="timeline-{escape(unit)}">Epsilon spent over time for each {escape(unit)}, and the cap on it</title>'
        f"{''.join(parts)}</svg>"
    )


def _line(frame: Frame, steps: Steps, colour: str, dashes: str) -> str:
    if not steps:
        return ""
    steps = _thinned(steps)
    path = [f"M{frame.x(steps[0][0]):.1f},{frame.y(steps[0][1]):.1f}"]
    path += [f"H{frame.x(seconds):.1f}V{frame.y(value):.1f}" for seconds, value in steps[1:]]
    path.append(f"H{frame.x(frame.end):.1f}")
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="2"{dashed}/>'


def _label(frame: Frame, steps: Steps, colour: str, words: str) -> str:
    if not steps:
        return ""
    value = steps[-1][1]
    shown = "without limit" if math.isinf(value) else f"{value:.2f}"
    return f'<text x="{WIDTH - RIGHT + 8}" y="{frame.y(value) + 4:.1f}" fill="{colour}">{shown} {escape(words)}</text>'


def _axes(frame: Frame) -> str:
    parts = []
    for step in range(5):
        value = frame.top * step / 4
        y = frame.y(value)
        parts.append(f'<path d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{value:g}</text>')
    for seconds, words in _dates(frame):
        x, y = frame.x(seconds), HEIGHT - BOTTOM
        parts.append(f'<path d="M{x:.1f},{y}v5" stroke="#555"/>')
        parts.append(f'<text x="{x:.1f}" y="{y + 20}" text-anchor="middle" fill="#555">{words}</text>')
    parts.append(f'<text x="{LEFT - 44}" y="{TOP + 2}" fill="#555">ε</text>')
    return "".join(parts)


def _dates(frame: Frame) -> Iterable[tuple[float, str]]:
    first, last = (datetime.fromtimestamp(seconds, UTC) for seconds in (frame.start, frame.end))
    shown = "%Y-%m-%d" if last - first > timedelta(days=3) else "%m-%d %H:%M" if last - first > timedelta(hours=1) else "%H:%M:%S"
    for step in range(5):
        seconds = frame.start + (frame.end - frame.start) * step / 4
        yield seconds, datetime.fromtimestamp(seconds, UTC).strftime(shown)


def _thinned(steps: Steps) -> Steps:
    """At most so many, the last always among them."""
    every = -(-len(steps) // MOST_STEPS)
    return [*steps[::every], steps[-1]] if every > 1 else steps


def _round_up(value: float) -> float:
    """The next of a few numbers times a power of ten whose quarters read well."""
    scale = 10.0 ** math.floor(math.log10(value))
    return next(step * scale for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10, 12) if step * scale >= value)


def _seconds(t_utc: str) -> float:
    return datetime.strptime(t_utc, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()

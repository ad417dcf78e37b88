# SPDX-License-Identifier: Apache-2.0
"""Curves of intensities, and a few images side by side. SVG and PNG made here, so that the page needs nothing else.

A curve is the share of pixels in each of `BINS` equal steps from black to white, as the plan's window leaves them, over some images of a
group; every image counts alike. The steps at both ends are left out of the curve and said in words: background would dwarf all else.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from client.imaging.sample import WHITE

BINS: Final = 64
MOST_CURVES: Final = 5
COLOURS: Final = ("#0072b2", "#c24e00", "#00795a", "#a9558a", "#55606a")  # Okabe and Ito 2008, darkened for thin lines
DASHES: Final = ("", "7 3", "2 2.5", "8 3 2 3", "4 4")
WIDTH, HEIGHT = 860, 250
LEFT, RIGHT, TOP, BOTTOM = 12, 270, 12, 34
THUMBNAIL: Final = 132


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One group's intensities: shares of pixels, (BINS,); and of all its pixels, those that are plain black and plain white."""

    name: str
    shares: NDArray[np.float64]
    images: int
    black: float
    white: float


def curve(name: str, pixels: NDArray[np.uint16]) -> Curve:
    """Of images (M, C, H, W), M > 0."""
    inside = pixels[(pixels > 0) & (pixels < WHITE)]
    counts, _ = np.histogram(inside, bins=BINS, range=(0, WHITE))
    return Curve(
        name=name,
        shares=counts / max(pixels.size, 1),
        images=len(pixels),
        black=float(np.mean(pixels == 0)),
        white=float(np.mean(pixels == WHITE)),
    )


def histogram(curves: Sequence[Curve], *, name: str, title: str) -> str:
    """One `<svg>`: a line for each group, told apart by colour and dash, and named in the order in which they end."""
    top = max((float(each.shares.max()) for each in curves), default=0.0) or 1.0
    lines = [_line(each.shares / top, COLOURS[number], DASHES[number]) for number, each in enumerate(curves)]
    names = [_name(number, each.name) for number, each in enumerate(curves)]
    floor = HEIGHT - BOTTOM
    axis = (
        f'<path d="M{LEFT},{floor}H{WIDTH - RIGHT}" stroke="#9aa3ab" fill="none"/>'
        f'<text x="{LEFT}" y="{floor + 20}" fill="#55606a">black</text>'
        f'<text x="{WIDTH - RIGHT}" y="{floor + 20}" fill="#55606a" text-anchor="end">white</text>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{escape(name)}">'
        f'<title id="{escape(name)}">{escape(title)}</title>'
        f"{axis}{''.join(lines)}{''.join(names)}</svg>"
    )


def _line(heights: NDArray[np.float64], colour: str, dash: str) -> str:
    span, floor = WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM
    points = " ".join(
        f"{LEFT + span * (step + 0.5) / BINS:.1f},{floor - height * (floor - TOP):.1f}" for step, height in enumerate(heights.tolist())
    )
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'


def _name(number: int, text: str) -> str:
    y, x = TOP + 14 + 22 * number, WIDTH - RIGHT + 14
    shown = text if len(text) <= 28 else text[:27] + "…"
    mark = f'<path d="M{x},{y - 4}h26" stroke="{COLOURS[number]}" stroke-width="2" stroke-dasharray="{DASHES[number]}"/>'
    return f'{mark}<text x="{x + 34}" y="{y}" fill="#1b232c">{escape(shown)}</text>'


def thumbnail(image: NDArray[np.uint16]) -> str:
    """A data URI of one image (C, H, W), as PNG, its longer side `THUMBNAIL` pixels at most."""
    grey = (image >> 8).astype(np.uint8)
    picture = Image.fromarray(grey[0] if len(grey) == 1 else np.ascontiguousarray(grey.transpose(1, 2, 0)))
    factor = THUMBNAIL / max(picture.size)
    small = picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), Image.Resampling.BILINEAR)
    stream = BytesIO()
    small.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + b64encode(stream.getvalue()).decode("ascii")

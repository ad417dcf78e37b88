# SPDX-License-Identifier: Apache-2.0
"""How far apart the edges of two areas are: the Hausdorff distance at a percentile.

For every pixel on one edge the nearest one on the other; of these distances, in both directions, the larger 95th percentile. At 100 it is
Hausdorff's own distance (1914), which one stray pixel decides. In millimetres where the spacing of pixels is known.

An area's edge is its pixels with a neighbour (up, down, left, right, and in a volume before and behind) outside of it, or outside of the
image.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray


def hausdorff(
    said: NDArray[np.bool_], true: NDArray[np.bool_], *, spacing_mm: Sequence[float] | None = None, percentile: float = 95.0
) -> float | None:
    """Shapes: said and true alike, (H, W) or (D, H, W); spacing_mm one number for each axis, pixels if None. None if either is empty.

    >>> area = np.zeros((5, 5), dtype=bool)
    >>> area[1:3, 1:3] = True
    >>> hausdorff(area, np.roll(area, 1, axis=0)), hausdorff(area, area & False)
    (1.0, None)
    """
    spacing = torch.tensor([1.0] * said.ndim if spacing_mm is None else list(spacing_mm), dtype=torch.float64)
    edges = [torch.from_numpy(np.argwhere(_edge(area))).double() * spacing for area in (said, true)]
    if not len(edges[0]) or not len(edges[1]):
        return None
    distances = [_nearest(edges[0], edges[1]), _nearest(edges[1], edges[0])]
    return max(float(torch.quantile(found, percentile / 100)) for found in distances)


def _edge(area: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inside = np.pad(area, 1)
    whole = inside.copy()
    for axis in range(area.ndim):
        whole &= np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
    edge: NDArray[np.bool_] = (inside & ~whole)[(slice(1, -1),) * area.ndim]
    return edge


def _nearest(points: torch.Tensor, others: torch.Tensor, *, at_once: int = 1024) -> torch.Tensor:
    """Distance of each point to the nearest of the others, a block of points in memory at a time."""
    exact = "donot_use_mm_for_euclid_dist"  # the faster way through a matrix product loses the last digits
    blocks = (points[start : start + at_once] for start in range(0, len(points), at_once))
    return torch.cat([torch.cdist(block, others, compute_mode=exact).amin(dim=1) for block in blocks])

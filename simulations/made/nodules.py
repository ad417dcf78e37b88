# SPDX-License-Identifier: Apache-2.0
"""Nodules, solid or hollow, for kinds in which the shape of one is all that matters.

A hollow one is brighter where it is not empty: the mean of both is the same, so that brightness says nothing.
"""

import numpy as np

from simulations.made.folder import Grey, disc, smooth_noise

_HOLE = 0.6  # of the radius


def nodule(size: int, centre: tuple[float, float], radius: float, *, hollow: bool) -> Grey:
    """Its light, to be added to a scene, (size, size)."""
    solid = disc(size, centre, (radius, radius))
    if not hollow:
        return solid
    ring: Grey = solid - disc(size, centre, (_HOLE * radius, _HOLE * radius))
    light: Grey = ring * (solid.sum() / ring.sum())
    return light


def tissue(size: int, rng: np.random.Generator) -> Grey:
    """Clouded background, (size, size)."""
    clouds: Grey = 0.35 + 0.05 * smooth_noise(size, 5, rng)
    return clouds

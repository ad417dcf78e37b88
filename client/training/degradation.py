# SPDX-License-Identifier: Apache-2.0
"""Images made worse by a public rule, so that a network can learn to mend them.

What is done to an image follows from its place in the data set and nothing else: the same image is spoilt in the same way each time it is
seen, in training as in judging, and no randomness of private training is spent on it.

    B  batch      C  channels      H, W  height and width
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from common.plan import RestorationSpec


def degraded(unit: NDArray[np.float32], spec: RestorationSpec, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Images (B, C, H, W) in [0, 1], as noise or a lost resolution leaves them. `rows`: each image's own number."""
    if spec.degradation == "noise":
        noise = [np.random.default_rng([0x6E6F6973, int(row)]).standard_normal(unit.shape[1:], dtype=np.float32) for row in rows]
        return unit + np.float32(spec.strength) * np.stack(noise) if len(rows) else unit
    return _resolution(unit, spec.strength)


def _resolution(unit: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Shrunk by averaging, enlarged again by bilinear interpolation."""
    height, width = unit.shape[-2:]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    shrunk = functional.adaptive_avg_pool2d(torch.from_numpy(unit), small)
    return functional.interpolate(shrunk, size=(height, width), mode="bilinear", align_corners=False).numpy()

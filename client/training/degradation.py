# SPDX-License-Identifier: Apache-2.0
"""Images made worse by a public rule, so that a network can learn to mend them.

What is done to an image follows from the image and nothing else: it is spoilt in the same way each time it is seen, in training as in
judging, and whether or not another patient is there. (Noise that went by place in the data set would be handed on when one leaves, and the
others' gradients would change with it.) No randomness of private training is spent on it.

    B  batch      C  channels      H, W  height and width
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from common.plan import RestorationSpec


def degraded(unit: NDArray[np.float32], spec: RestorationSpec) -> NDArray[np.float32]:
    """Images (B, C, H, W) in [0, 1], as noise or a lost resolution leaves them."""
    if spec.degradation == "noise":
        noise = [_stream(image).standard_normal(unit.shape[1:], dtype=np.float32) for image in unit]
        return unit + np.float32(spec.strength) * np.stack(noise) if len(unit) else unit
    return _resolution(unit, spec.strength)


def _stream(image: NDArray[np.float32]) -> np.random.Generator:
    digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16, person=b"degradation").digest()
    return np.random.default_rng(int.from_bytes(digest))


def _resolution(unit: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Shrunk by averaging, enlarged again by bilinear interpolation."""
    height, width = unit.shape[-2:]
    small = (max(1, round(height / factor)), max(1, round(width / factor)))
    shrunk = functional.adaptive_avg_pool2d(torch.from_numpy(unit), small)
    return functional.interpolate(shrunk, size=(height, width), mode="bilinear", align_corners=False).numpy()

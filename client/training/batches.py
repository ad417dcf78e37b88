# SPDX-License-Identifier: Apache-2.0
"""From stored images to the tensors of one step.

The cache holds uint16, (N, C, H, W), value / 65535 in [0, 1]; the model wants float32, (x - mean) / std, channels last. Conversion,
normalisation and reordering are one pass over one batch; there is no loader and no worker process, because at a few hundred
microseconds a batch there is nothing left to hide.

    N  images      B  batch      C  channels      H, W  height and width
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.imaging.dataset import Dataset
from common.plan import InputSpec

FULL_SCALE = 65535


def images(data: Dataset, rows: NDArray[np.int64], image: InputSpec) -> Tensor:
    """The images of these rows, (B, C, H, W) float32, normalised, in channels_last memory order."""
    stored_BHWC = data.images[rows].transpose(0, 2, 3, 1)
    x_BHWC = stored_BHWC.astype(np.float32, order="C")
    x_BHWC *= np.float32(1 / (FULL_SCALE * image.std))
    x_BHWC -= np.float32(image.mean / image.std)
    return torch.from_numpy(x_BHWC).permute(0, 3, 1, 2)


def labels(data: Dataset, rows: NDArray[np.int64]) -> Tensor:
    """The labels of these rows, (B,) int64."""
    return torch.from_numpy(data.labels[rows])


def shuffled(num_records: int, *, batch: int, steps: int, seed: bytes) -> Iterator[NDArray[np.int64]]:
    """The rows of each step: passes over all records, each pass in a new order, cut into batches; the last of a pass may be short.

    >>> [len(rows) for rows in shuffled(5, batch=2, steps=4, seed=b"a")]
    [2, 2, 1, 2]
    """
    rng = np.random.default_rng(int.from_bytes(seed))
    order, start = rng.permutation(num_records), 0
    for _ in range(steps):
        if start >= num_records:
            order, start = rng.permutation(num_records), 0
        yield order[start : start + batch]
        start += batch

# SPDX-License-Identifier: Apache-2.0
"""From stored images to the tensors of one step.

The cache holds uint16, (N, C, H, W), value / 65535 in [0, 1]; the model wants float32, (x - mean) / std, channels last. Conversion,
normalisation and reordering are one pass over one batch; there is no loader and no worker process, because at a few hundred
microseconds a batch there is nothing left to hide.

    N  cases      B  batch      T  images of a sequence      C  channels      H, W  height and width
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.imaging.dataset import Dataset
from client.training.degradation import degraded
from common.plan import InputSpec, Plan, RestorationSpec
from common.tasks import Target

FULL_SCALE = 65535
CPU = torch.device("cpu")


def inputs(data: Dataset, rows: NDArray[np.int64], plan: Plan, where: torch.device = CPU) -> tuple[Tensor, ...]:
    """What the model is called with for these rows, where the model is.

    In this order, those that the plan has: images, the second image (B, C, H, W) and whether there is one (B, 1), the record (B, F), the
    text's tokens (B, L) int64.
    """
    spec, found = plan.input, []
    if spec.has_image:
        found.append(_shown(data, rows, plan))
    if spec.second is not None:
        found.append(_normalised(data.parts["second"][rows], spec.second.mean, spec.second.std))
        found.append(torch.from_numpy(data.parts["present"][rows].astype(np.float32)))
    if spec.record:
        found.append(torch.from_numpy(data.parts["record"][rows].astype(np.float32)))
    if spec.text is not None:
        found.append(torch.from_numpy(data.parts["tokens"][rows].astype(np.int64)))
    return tuple(each.to(where) for each in found)


def labels(data: Dataset, rows: NDArray[np.int64]) -> Tensor:
    """The labels of these rows, (B,) int64."""
    return torch.from_numpy(data.labels[rows])


def targets(data: Dataset, rows: NDArray[np.int64], plan: Plan, target: Target) -> Tensor:
    """What the loss of these rows is measured against, (B, ...)."""
    match target:
        case "label":
            return labels(data, rows)
        case "clean":
            return images(data, rows, plan.input)
        case part:
            return torch.from_numpy(data.parts[part][rows].copy())


def images(data: Dataset, rows: NDArray[np.int64], image: InputSpec) -> Tensor:
    """The images of these rows, (B, C, H, W) or (B, T, C, H, W) float32, normalised, in channels_last memory order."""
    return _normalised(data.images[rows], image.mean, image.std)


def _shown(data: Dataset, rows: NDArray[np.int64], plan: Plan) -> Tensor:
    """The images as the model sees them: for restoration, made worse."""
    if not isinstance(plan.task, RestorationSpec):
        return images(data, rows, plan.input)
    unit = data.images[rows].astype(np.float32) / np.float32(FULL_SCALE)
    worse = degraded(unit, plan.task)
    return torch.from_numpy((worse - np.float32(plan.input.mean)) / np.float32(plan.input.std))


def _normalised(stored: NDArray[np.uint16], mean: float, std: float) -> Tensor:
    last = np.moveaxis(stored, -3, -1)
    x = last.astype(np.float32, order="C")
    x *= np.float32(1 / (FULL_SCALE * std))
    x -= np.float32(mean / std)
    return torch.from_numpy(x).movedim(-1, -3)


def cases_of(images: int, plan: Plan) -> int:
    """How many cases have so many images; one at least."""
    return max(1, images // plan.input.sequence)


def in_parts(rows: NDArray[np.int64], patients: NDArray[np.int32], most: int) -> list[NDArray[np.int64]]:
    """A batch in parts of at most so many cases for each pass, all of one patient's in the same; a patient of more has a part alone.

    >>> [part.tolist() for part in in_parts(np.array([4, 0, 1, 3, 2]), np.array([7, 8, 8, 7, 9]), 3)]
    [[0, 3], [1, 2, 4]]
    """
    if len(rows) <= most:
        return [rows]
    rows = rows[np.argsort(patients[rows], kind="stable")]
    parts: list[list[NDArray[np.int64]]] = [[]]
    for of_one in np.split(rows, np.flatnonzero(np.diff(patients[rows])) + 1):
        if parts[-1] and sum(map(len, parts[-1])) + len(of_one) > most:
            parts.append([])
        parts[-1].append(of_one)
    return [np.concatenate(part) for part in parts]


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

# SPDX-License-Identifier: Apache-2.0
"""What a model says about cases: nothing stored, nothing learnt."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.training.batches import cases_of, inputs
from client.training.bench import Bench, bench_for
from client.training.units import Units
from common.plan import Plan
from common.update import Weights


def predict(weights: Weights, data: Dataset, plan: Plan) -> NDArray[np.float32]:
    """The task's prediction for every case, (N, ...), in the data's order; dropout is off. Of classification: probabilities (N, C).

    Raises: ModelLayout, GpuMemory.
    """
    if not len(data):  # the shape of nothing is the model's to say
        return np.empty((0, len(plan.task.classes)), dtype=np.float32)
    return _predicted(weights, data, plan, [np.arange(len(data))])


def predict_apart(weights: Weights, data: Dataset, plan: Plan, units: Units) -> NDArray[np.float32]:
    """As `predict`, with passes for each unit to itself: not even in its last bits does one's prediction depend on the others.

    What is counted of it may be released with noise for one unit; weights can be made that let a last bit decide (see `company`).
    """
    if not len(units):
        return predict(weights, data, plan)
    found = _predicted(weights, data, plan, [units.rows_of(unit) for unit in range(len(units))])
    in_order = np.empty_like(found)
    in_order[units.rows] = found
    return in_order


def _predicted(weights: Weights, data: Dataset, plan: Plan, groups: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Group after group, none of them in a pass with another."""
    with bench_for(plan, weights) as bench, torch.inference_mode():
        bench.model.module.eval()
        return bench.room.fitting(lambda: np.concatenate([part for rows in groups for part in _passes(bench, data, plan, rows)]))


def _passes(bench: Bench, data: Dataset, plan: Plan, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    device, at_once = bench.model.values.device, cases_of(bench.room.images, plan)
    for start in range(0, len(rows), at_once):
        some = rows[start : start + at_once]
        yield bench.task.predict(bench.model.module(*inputs(data, some, plan, device))).cpu().numpy()

# SPDX-License-Identifier: Apache-2.0
"""What a model says about cases: nothing stored, nothing learnt."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.training.batches import cases_of, inputs
from client.training.bench import Bench, bench_for
from common.plan import Plan
from common.update import Weights


def predict(weights: Weights, data: Dataset, plan: Plan) -> NDArray[np.float32]:
    """The task's prediction for every case, (N, ...), in the data's order; dropout is off. Of classification: probabilities (N, C).

    Raises: ModelLayout, GpuMemory.
    """
    if not len(data):  # the shape of nothing is the model's to say
        return np.empty((0, len(plan.task.classes)), dtype=np.float32)
    with bench_for(plan, weights) as bench, torch.inference_mode():
        bench.model.module.eval()
        return bench.room.fitting(lambda: np.concatenate(list(_predicted(bench, data, plan))))


def _predicted(bench: Bench, data: Dataset, plan: Plan) -> Iterator[NDArray[np.float32]]:
    device, at_once = bench.model.values.device, cases_of(bench.room.images, plan)
    for start in range(0, len(data), at_once):
        rows = np.arange(start, min(start + at_once, len(data)))
        yield bench.task.predict(bench.model.module(*inputs(data, rows, plan, device))).cpu().numpy()

# SPDX-License-Identifier: Apache-2.0
"""What a model says about cases: nothing stored, nothing learnt."""

import numpy as np
import torch
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.training.batches import cases_of, inputs
from client.training.bench import bench_for
from common.plan import Plan
from common.update import Weights

IMAGES_AT_ONCE = 64  # enough to fill the vector units, few enough that activations stay near the cache


def predict(weights: Weights, data: Dataset, plan: Plan) -> NDArray[np.float32]:
    """The task's prediction for every case, (N, ...), in the data's order; dropout is off. Of classification: probabilities (N, C).

    Raises: ModelLayout.
    """
    found: list[NDArray[np.float32]] = []
    with bench_for(plan, weights) as bench, torch.inference_mode():
        module = bench.model.module.eval()
        at_once = cases_of(IMAGES_AT_ONCE, plan)
        for start in range(0, len(data), at_once):
            rows = np.arange(start, min(start + at_once, len(data)))
            found.append(bench.task.predict(module(*inputs(data, rows, plan))).numpy())
        if not found:  # the shape of nothing is the model's to say
            return np.empty((0, len(plan.task.classes)), dtype=np.float32)
    return np.concatenate(found)

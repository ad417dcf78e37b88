# SPDX-License-Identifier: Apache-2.0
"""What a model says about images: probabilities, nothing stored, nothing learnt."""

import numpy as np
import torch
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.training.batches import images
from client.training.bench import bench_for
from common.plan import Plan
from common.update import Weights

IMAGES_AT_ONCE = 64  # enough to fill the vector units, few enough that activations stay near the cache


def predict(weights: Weights, data: Dataset, plan: Plan) -> NDArray[np.float32]:
    """Probabilities (N, C) of the plan's classes for every image, in the data's order; dropout is off.

    Raises: ModelLayout.
    """
    probabilities_NC = np.empty((len(data), len(plan.task.classes)), dtype=np.float32)
    with bench_for(plan, weights) as bench, torch.inference_mode():
        module = bench.model.module.eval()
        for start in range(0, len(data), IMAGES_AT_ONCE):
            rows = np.arange(start, min(start + IMAGES_AT_ONCE, len(data)))
            probabilities_NC[rows] = bench.task.probabilities(module(images(data, rows, plan.input))).numpy()
    return probabilities_NC

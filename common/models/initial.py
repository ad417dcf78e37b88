# SPDX-License-Identifier: Apache-2.0
"""The first weights: every site and the coordinator can draw the same ones from the plan's seed.

The distributions are PyTorch's own defaults: for a layer with n inputs per output, weight and bias uniform in (-1/sqrt(n), 1/sqrt(n));
a table's rows are standard normal; norms start as the identity. They are drawn by numpy, whose streams are promised to stay the same across
versions and machines; torch's CPU generator also keeps only 32 bits of its seed.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def initialise(model: nn.Module, seed: int) -> None:
    """Draw all weights anew, module by module in order. Touches no global random state."""
    rng = np.random.Generator(np.random.PCG64(seed))
    for module in model.modules():
        match module:
            case nn.Conv2d() | nn.Linear():
                bound = 1 / math.sqrt(module.weight[0].numel())
                for parameter in module.parameters(recurse=False):
                    _uniform(parameter, bound, rng)
            case nn.Embedding():
                _set(module.weight, rng.standard_normal(tuple(module.weight.shape), dtype=np.float32))
            case nn.GroupNorm():
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)


def _uniform(parameter: nn.Parameter, bound: float, rng: np.random.Generator) -> None:
    _set(parameter, rng.random(tuple(parameter.shape), dtype=np.float32) * np.float32(2 * bound) - np.float32(bound))


def _set(parameter: Tensor, values: NDArray[np.float32]) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(values))

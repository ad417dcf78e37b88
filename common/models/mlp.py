# SPDX-License-Identifier: Apache-2.0
"""The record alone: dense layers on numbers that the plan encodes.

Values were centred and scaled by the plan's public constants, and what is not known is 0 beside a 1 that says so (client/imaging/parts.py):
a network can tell a missing value from a mean one without anybody having measured the patients.

    B  batch      F  numbers of a record      K  outputs
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from common.models.layers import Dropout
from common.plan import InputSpec, MlpSpec


class Mlp(nn.Module):
    """(B, F) -> (B, K)."""

    def __init__(self, spec: MlpSpec, image: InputSpec, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise((image.record_width, *spec.widths)))
        self.dropout = Dropout(spec.dropout)
        self.head = nn.Linear(spec.widths[-1], outputs)

    def forward(self, x_BF: Tensor) -> Tensor:
        x = x_BF
        for layer in self.layers:
            x = functional.relu(layer(x))
        logits_BK: Tensor = self.head(self.dropout(x))
        return logits_BK

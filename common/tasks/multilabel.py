# SPDX-License-Identifier: Apache-2.0
"""Several findings at once, each there or not by itself.

A finding that nobody has looked for is not known: it takes no part in the loss, which is the mean over the findings that are known.

    B  batch      K  findings
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from common.tasks.task import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiLabel:
    """One logit for each finding, (B, K); findings (B, K): 1 there, 0 not, -1 not known. A prediction is each probability, (B, K)."""

    outputs: int
    target: Target = "findings"
    weights: tuple[float, ...] = ()
    smoothing: float = 0.0

    def loss(self, logits: Tensor, findings: Tensor) -> Tensor:
        known = (findings >= 0).to(logits.dtype)
        truth = findings.clamp(min=0).to(logits.dtype) * (1 - self.smoothing) + self.smoothing / 2
        weights = logits.new_tensor(self.weights) if self.weights else None
        each = functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=weights, reduction="none")
        return (each * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)

    def predict(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)

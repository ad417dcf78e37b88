# SPDX-License-Identifier: Apache-2.0
"""Plain training, for comparison: the mean gradient of a batch; no clipping, no noise, no privacy."""

from collections.abc import Iterator

import torch
from torch import Tensor

from client.imaging.dataset import Dataset
from client.training.batches import inputs, shuffled, targets
from client.training.bench import Bench
from client.training.optimiser import optimiser_of
from client.training.work import LocalWork
from common.models import seed_dropout
from common.plan import Plan


def train(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> None:
    """Take the work's steps on the bench's model, in place, in batches of at most the plan's size."""
    optimiser = optimiser_of(plan.training)
    for slope_P in _gradients(bench, data, plan, work):
        optimiser.step(bench.model.values, slope_P)


def gradient(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> Tensor:
    """The mean gradient of the work's first batch, (P,)."""
    return next(_gradients(bench, data, plan, work)).clone()


def _gradients(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> Iterator[Tensor]:
    """The mean gradient of each batch in turn, at the weights of its moment, (P,); the next overwrites it."""
    model = bench.model
    seed_dropout(model.module, work.order_seed)
    for rows in shuffled(len(data), batch=plan.training.batch, steps=work.steps, seed=work.order_seed):
        model.gradient.zero_()
        outputs = model.module(*inputs(data, rows, plan))
        torch.autograd.backward(bench.task.loss(outputs, targets(data, rows, plan, bench.task.target)).mean())
        yield model.gradient

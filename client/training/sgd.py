# SPDX-License-Identifier: Apache-2.0
"""Plain training, for comparison: the mean gradient of a batch; no clipping, no noise, no privacy."""

import torch

from client.imaging.dataset import Dataset
from client.training.batches import images, labels, shuffled
from client.training.bench import Bench
from client.training.optimiser import optimiser_of
from client.training.work import LocalWork
from common.models import seed_dropout
from common.plan import Plan


def train(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> None:
    """Take the work's steps on the bench's model, in place, in batches of at most the plan's size."""
    model, optimiser = bench.model, optimiser_of(plan.training)
    seed_dropout(model.module, work.order_seed)
    for rows in shuffled(len(data), batch=plan.training.batch, steps=work.steps, seed=work.order_seed):
        model.gradient.zero_()
        logits = model.module(images(data, rows, plan.input))
        torch.autograd.backward(bench.task.loss(logits, labels(data, rows)).mean())
        optimiser.step(model.values, model.gradient)

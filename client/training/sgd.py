# SPDX-License-Identifier: Apache-2.0
"""Plain training, for comparison: the mean gradient of a batch; no clipping, no noise, no privacy.

A batch larger than fits is worked through in parts whose gradients add up, a patient whole in one of them, as in private training.
"""

import hashlib
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.imaging.dataset import Dataset
from client.training.augmentation import SECRET_BYTES, shown
from client.training.batches import cases_of, in_parts, inputs, shuffled, targets
from client.training.bench import Bench
from client.training.optimiser import optimiser_of
from client.training.work import LocalWork
from common.models import seed_dropout
from common.plan import Plan, at_round


def train(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> None:
    """Take the work's steps on the bench's model, in place, in batches of at most the plan's size."""
    optimiser = optimiser_of(at_round(plan.training, work.round))
    for slope_P in _gradients(bench, data, plan, work):
        optimiser.step(bench.model.values, slope_P)


def gradient(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> Tensor:
    """The mean gradient of the work's first batch, (P,)."""
    return next(_gradients(bench, data, plan, work)).clone()


def _gradients(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> Iterator[Tensor]:
    """The mean gradient of each batch in turn, at the weights of its moment, (P,); the next overwrites it."""
    model = bench.model
    seed_dropout(model.module, work.order_seed)
    for step, rows in enumerate(shuffled(len(data), batch=plan.training.batch, steps=work.steps, seed=work.order_seed)):
        secret = hashlib.blake2b(step.to_bytes(8), key=work.order_seed[:64], digest_size=SECRET_BYTES).digest()
        bench.room.fitting(partial(_add_up, bench, data, plan, rows, secret))
        yield model.gradient


def _add_up(bench: Bench, data: Dataset, plan: Plan, rows: NDArray[np.int64], secret: bytes) -> None:
    """The mean gradient of these rows, into the model's."""
    bench.model.gradient.zero_()
    for part in in_parts(rows, data.patients, most=cases_of(bench.room.images, plan)):
        torch.autograd.backward(_losses(bench, data, plan, part, secret).sum() / len(rows))


def _losses(bench: Bench, data: Dataset, plan: Plan, rows: NDArray[np.int64], secret: bytes) -> Tensor:
    """The loss of each case, (B,)."""
    data, rows = shown(data, rows, plan, secret)
    device = bench.model.values.device
    with torch.autocast(device.type, torch.bfloat16, enabled=plan.training.precision == "bfloat16"):
        outputs = bench.model.module(*inputs(data, rows, plan, device))
    return bench.task.loss(outputs.float(), targets(data, rows, plan, bench.task.target).to(device))

# SPDX-License-Identifier: Apache-2.0
"""Differentially private SGD (Abadi et al. 2016, https://arxiv.org/abs/1607.00133, algorithm 1), with records as units.

    w <- w - learning_rate * (sum of clipped gradients + noise_multiplier * C * N(0, I)) / batch

Records are drawn anew for each step; the sum is divided by the plan's batch, a constant, and never by how many were drawn. A draw is
worked through in chunks that fit in memory: a record is whole in one chunk, so chunks change nothing but rounding.

Sampling, dropout and noise all come from the run's noise source. Accounting happens elsewhere, before this runs (`client/ledger.py`).
What this does not do: protect a *patient* who has several images. With m of them, the guarantee for the patient is about m times weaker.

    U  units in a chunk      P  values of the model
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.imaging.dataset import Dataset
from client.training.batches import images, labels
from client.training.bench import Bench
from client.training.clipping import clipped_sum
from client.training.noise import keyed_generator
from client.training.optimiser import optimiser_of
from client.training.sampler import draw
from client.training.work import LocalWork
from common.models import seed_dropout
from common.plan import Plan
from common.privacy import sampling_rate

CHUNK_RECORDS = 32  # more are no faster on a CPU
CHUNK_VALUES = 2**25  # gradients by record held at once: 128 MB
DROPOUT_SEED_BYTES = 32


def train(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> None:
    """Take the work's steps on the bench's model, in place.

    Raises: TooFewPatients, if the plan's batch is more than the public count of records here.
    """
    assert work.noise_multiplier is not None
    assert plan.privacy.clip_norm is not None
    rate = sampling_rate(batch=plan.training.batch, units=len(data))
    entropy = work.noise.open()
    rng = keyed_generator(entropy)
    model, optimiser = bench.model, optimiser_of(plan.training)
    seed_dropout(model.module, entropy(DROPOUT_SEED_BYTES))
    for _ in range(work.steps):
        total_P = sum_of_clipped(bench, data, plan, draw(len(data), rate, entropy))
        noise_P = rng.standard_normal(model.layout.size) * (work.noise_multiplier * plan.privacy.clip_norm)
        model.gradient.copy_((total_P + torch.from_numpy(noise_P)) / plan.training.batch)
        optimiser.step(model.values, model.gradient)


def sum_of_clipped(bench: Bench, data: Dataset, plan: Plan, rows: NDArray[np.int64]) -> Tensor:
    """The sum over these records of their clipped gradients at the present weights, (P,) float64; zeros if there are none.

    Guarantees: one record more or less moves it by at most the plan's clip norm (L2).
    """
    assert bench.by_record is not None
    assert plan.privacy.clip_norm is not None
    module, total_P = bench.model.module, torch.zeros(bench.model.layout.size, dtype=torch.float64)
    for chunk in _chunks(rows, bench.model.layout.size):
        losses_U = bench.task.loss(module(images(data, chunk, plan.input)), labels(data, chunk))
        total_P += clipped_sum(bench.by_record(losses_U), plan.privacy.clip_norm)
    return total_P


def _chunks(rows: NDArray[np.int64], num_values: int) -> Iterator[NDArray[np.int64]]:
    at_once = max(1, min(CHUNK_RECORDS, CHUNK_VALUES // num_values))
    return (rows[start : start + at_once] for start in range(0, len(rows), at_once))

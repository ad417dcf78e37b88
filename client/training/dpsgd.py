# SPDX-License-Identifier: Apache-2.0
"""Differentially private SGD (Abadi et al. 2016, https://arxiv.org/abs/1607.00133, algorithm 1), for patients and on whole numbers.

    t_u = the gradient of unit u (the mean over its images drawn), clipped to C and truncated to the lattice, in steps
    w <- w - learning_rate * (sum_u t_u + noise) * step / batch        noise a discrete Gaussian on the integers

Units are drawn anew for each step; the sum is divided by the plan's batch, a constant, and never by how many were drawn. A draw is
worked through in chunks that fit in memory: a unit is whole in one chunk. Sums are exact, and nothing leaves the integers before the
constant: what is released lies on a grid that no patient has moved (Jin et al. 2021, https://arxiv.org/abs/2112.05307).

Sampling, dropout and noise all come from the run's noise source. Accounting happens elsewhere, before this runs (`client/ledger.py`).
What this does not do: protect a *patient* where the unit is a record. With m images, the guarantee for the patient is about m times
weaker.

    U  units in a chunk      I  their images      P  values of the model
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.imaging.dataset import Dataset
from client.training.batches import images, labels
from client.training.bench import Bench
from client.training.clipping import add_clipped
from client.training.optimiser import optimiser_of
from client.training.sampler import Draw, draw, pick
from client.training.units import units_of
from client.training.work import LocalWork
from common.models import seed_dropout
from common.plan import Plan
from common.privacy import charged_as, lattice_of, noise_of, sampling_rate

CHUNK_IMAGES = 32  # more are no faster on a CPU
CHUNK_VALUES = 2**25  # gradients by record held at once: 128 MB
DROPOUT_SEED_BYTES = 32


def train(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> None:
    """Take the work's steps on the bench's model, in place.

    Raises: TooFewPatients, if the plan's batch is more than the public count of units here; NoPatientId.
    """
    model, optimiser = bench.model, optimiser_of(plan.training)
    noised = noised_sums(bench, data, plan, work)
    for _ in range(work.steps):
        model.gradient.copy_(_mean(noised(), plan))
        optimiser.step(model.values, model.gradient)


def gradient(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> Tensor:
    """The noised mean gradient of one draw, (P,) float32. Raises: as `train`."""
    return _mean(noised_sums(bench, data, plan, work)(), plan).float()


def noised_sums(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> Callable[[], NDArray[np.int64]]:
    """A function that draws units anew each time it is called, and gives their clipped sum at the present weights plus noise, in steps.

    Raises: TooFewPatients, NoPatientId.
    """
    assert work.noise_multiplier is not None
    units = units_of(data, plan)
    rate = sampling_rate(batch=plan.training.batch, units=len(units))
    noise = noise_of(charged_as(work.noise_multiplier, lattice_of(plan).clip_steps))
    entropy = work.noise.open()
    seed_dropout(bench.model.module, entropy(DROPOUT_SEED_BYTES))

    def noised() -> NDArray[np.int64]:
        drawn = pick(units, draw(len(units), rate, entropy), plan.privacy.images_per_patient, entropy)
        total: NDArray[np.int64] = sum_of_clipped(bench, data, plan, drawn).cpu().numpy()
        return total + noise.draw(total.size, entropy)

    return noised


def sum_of_clipped(bench: Bench, data: Dataset, plan: Plan, drawn: Draw) -> Tensor:
    """The sum over a draw's units of their clipped gradients at the present weights, in steps, (P,) int64; zeros if there are none.

    Guarantees: one unit more or less moves it by at most the plan's clip norm (L2).
    """
    assert bench.by_record is not None
    module, lattice = bench.model.module, lattice_of(plan)
    total_P = torch.zeros(bench.model.layout.size, dtype=torch.int64)
    most = max(1, min(CHUNK_IMAGES, CHUNK_VALUES // bench.model.layout.size))
    for chunk in drawn.chunks(most):
        sizes_U = torch.from_numpy(chunk.sizes)
        losses_I = bench.task.loss(module(images(data, chunk.rows, plan.input)), labels(data, chunk.rows))
        gradients = bench.by_record(losses_I / sizes_U.repeat_interleave(sizes_U))
        add_clipped(total_P, [_by_unit(gradient, sizes_U) for gradient in gradients], lattice)
    return total_P


def _mean(steps_P: NDArray[np.int64], plan: Plan) -> Tensor:
    """From steps of the lattice to a mean gradient, (P,) float64: times a constant."""
    return torch.from_numpy(steps_P * (lattice_of(plan).step / plan.training.batch))


def _by_unit(gradients_I: Tensor, sizes_U: Tensor) -> Tensor:
    """Sums over each unit's images, (U, *shape)."""
    if len(sizes_U) == len(gradients_I):
        return gradients_I
    owners_I = torch.arange(len(sizes_U)).repeat_interleave(sizes_U)
    return gradients_I.new_zeros(len(sizes_U), *gradients_I.shape[1:]).index_add_(0, owners_I, gradients_I)

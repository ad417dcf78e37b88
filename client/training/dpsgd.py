# SPDX-License-Identifier: Apache-2.0
"""Differentially private SGD (Abadi et al. 2016, https://arxiv.org/abs/1607.00133, algorithm 1), for patients and on whole numbers.

    t_u = the gradient of unit u (the mean over its images drawn), clipped to C and truncated to the lattice, in steps
    w <- w - learning_rate * (sum_u t_u + noise) * step / batch        noise a discrete Gaussian on the integers

Units are drawn anew for each step; the sum is divided by the plan's batch, a constant, and never by how many were drawn. A draw is
worked through in chunks that fit in memory, of units with equally many images each; a unit is whole in one chunk, and what its gradient
is depends on nobody else in it (`company`). One that is too large for others beside it has a backward pass to itself. Sums are exact, and
nothing leaves the integers before the constant: what is released lies on a grid that no patient has moved (Jin et al. 2021,
https://arxiv.org/abs/2112.05307).

Sampling, dropout, augmentation and noise all come from the run's noise source. Accounting happens elsewhere, before this runs
(`client/ledger.py`).
What this does not do: protect a *patient* where the unit is a record. With m images, the guarantee for the patient is about m times
weaker.

    U  units in a chunk      I  their images      P  values of the model
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from client.imaging.dataset import Dataset
from client.training.augmentation import SECRET_BYTES, shown
from client.training.batches import cases_of, inputs, targets
from client.training.bench import Bench
from client.training.clipping import Kept, UnitGradients, add_clipped
from client.training.company import places_for
from client.training.noise import NoiseThreads
from client.training.optimiser import optimiser_of
from client.training.sampler import Draw, draw, pick
from client.training.units import units_of
from client.training.work import LocalWork
from common.models import parts_of, seed_dropout
from common.plan import Plan, at_round
from common.privacy import charged_as, lattice_of, noise_of, sampling_rate

DROPOUT_SEED_BYTES = 32


def train(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> None:
    """Take the work's steps on the bench's model, in place.

    Raises: TooFewPatients, if the plan's batch is more than the public count of units here; NoPatientId.
    """
    model, optimiser = bench.model, optimiser_of(at_round(plan.training, work.round))
    noised = noised_sums(bench, data, plan, work)
    for _ in range(work.steps):
        model.gradient.copy_(_mean(noised(), plan))
        optimiser.step(model.values, model.gradient)


def gradient(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> Tensor:
    """The noised mean gradient of one draw, (P,) float32. Raises: as `train`."""
    return _mean(noised_sums(bench, data, plan, work)(), plan).float()


def noised_sums(bench: Bench, data: Dataset, plan: Plan, work: LocalWork) -> Callable[[], Tensor]:
    """A function that draws units anew each time it is called, and gives their clipped sum at the present weights plus noise, in steps.

    Shapes: (P,) int64, where the model is.
    Raises: TooFewPatients, NoPatientId.
    """
    assert work.noise_multiplier is not None
    units = units_of(data, plan)
    rate = sampling_rate(batch=plan.training.batch, units=len(units))
    noise = noise_of(charged_as(work.noise_multiplier, lattice_of(plan).clip_steps))
    entropy = work.noise.open()
    drawing = NoiseThreads(torch.get_num_threads() if work.noise.has_no_order else 1)
    seed_dropout(bench.model.module, entropy(DROPOUT_SEED_BYTES))

    def noised() -> Tensor:
        drawn = pick(units, draw(len(units), rate, entropy), plan.privacy.images_per_patient, entropy)
        if plan.augmentation is not None:
            drawn = replace(drawn, secret=entropy(SECRET_BYTES))
        begun = drawing.begin(noise, bench.model.layout.size, entropy)
        total_P = bench.room.fitting(lambda: sum_of_clipped(bench, data, plan, drawn))
        return total_P + torch.from_numpy(begun()).to(total_P.device)

    return noised


def sum_of_clipped(bench: Bench, data: Dataset, plan: Plan, drawn: Draw) -> Tensor:
    """The sum over a draw's units of their clipped gradients at the present weights, in steps, (P,) int64; zeros if there are none.

    Guarantees: one unit more or less moves it by at most the plan's clip norm (L2).
    """
    total_P = torch.zeros_like(bench.model.values, dtype=torch.int64)
    parts = parts_of(total_P, bench.model.layout)
    for chunk, gradients, places in unclipped(bench, data, plan, drawn):
        there_U = torch.arange(places, device=total_P.device) < len(chunk)
        add_clipped(parts, gradients, lattice_of(plan), there_U)
    return total_P


def unclipped(bench: Bench, data: Dataset, plan: Plan, drawn: Draw) -> Iterator[tuple[Draw, list[UnitGradients], int]]:
    """The gradients of a draw's units at the present weights, chunk by chunk; those of the next chunk overwrite them.

    They have more places than the chunk has units, perhaps: what stands behind its units counts as nothing.
    """
    together = partial(_together, bench, plan)
    for alike in drawn.alike():
        places = places_for(bench, data, plan, alike.rows[: alike.sizes[0]], together)
        for chunk in alike.chunks(places):
            yield chunk, together(data, chunk.filled(places)) if places > 1 else _alone(bench, data, plan, chunk), places


def _together(bench: Bench, plan: Plan, data: Dataset, chunk: Draw) -> list[UnitGradients]:
    """The gradients of units that have equally many images, from one pass."""
    assert bench.by_unit is not None
    return bench.by_unit.gradients(lambda: _losses(bench, data, plan, chunk) / float(chunk.sizes[0]), len(chunk))


def _alone(bench: Bench, data: Dataset, plan: Plan, unit: Draw) -> list[UnitGradients]:
    """The gradient of one unit, however many images it has: added up over as many passes as memory asks for, and clipped as a whole."""
    model = bench.model
    model.gradient.zero_()
    at_once = cases_of(bench.room.images, plan)
    for start in range(0, len(unit.rows), at_once):
        losses = _losses(bench, data, plan, replace(unit, rows=unit.rows[start : start + at_once]))
        torch.autograd.backward(losses.sum() / len(unit.rows))
    return [Kept(part.unsqueeze(0)) for part in parts_of(model.gradient, model.layout)]


def _losses(bench: Bench, data: Dataset, plan: Plan, drawn: Draw) -> Tensor:
    """The loss of each case, (I,)."""
    device = bench.model.values.device
    data, rows = shown(data, drawn.rows, plan, drawn.secret)
    return bench.task.loss(bench.model.module(*inputs(data, rows, plan, device)), targets(data, rows, plan, bench.task.target).to(device))


def _mean(steps_P: Tensor, plan: Plan) -> Tensor:
    """From steps of the lattice to a mean gradient, (P,) float64: times a constant."""
    return steps_P.double() * (lattice_of(plan).step / plan.training.batch)

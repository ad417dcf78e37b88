# SPDX-License-Identifier: Apache-2.0
"""How many units share a pass, so that none of them feels the others.

A library chooses its order of summing by shape, so the last bits of a unit's gradient may depend on how many units go through with it.
That is more than last bits: weights can be made in which such a bit opens or closes every gate of a layer, and then one patient less
changes the gradients of all others, beyond what was charged (of floating point and sensitivity: Casacuberta et al. 2022,
https://arxiv.org/abs/2207.10635). So all units of as many images go through in passes of one shape. Places that nobody takes are filled up
with copies, and count as nothing. A unit's gradient then depends on the unit and its place; and that it does not depend on the place is
tried for each shape before it is used, with random weights on random images. Where it does, fewer go together, at last each by itself.
(Of five or seven places some are a library's leftovers, and differ; powers of two have been alike wherever we looked.)

How many places there are follows from the plan and the machine, never from who was drawn. Few places waste few: units of k images fill
half of their last pass, on average, for each k.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.imaging.dataset import Dataset, Images, whole
from client.training.augmentation import SECRET_BYTES
from client.training.batches import cases_of
from client.training.bench import Bench
from client.training.clipping import UnitGradients, add_clipped
from client.training.sampler import Draw
from common.models import Dropout, FlatModel, parts_of
from common.plan import Plan
from common.privacy import lattice_of

Together = Callable[[Dataset, Draw], list[UnitGradients]]
"""The gradients of all units of a draw from one pass."""

_SEED: Final = 1
_PASSES: Final = 2
"""Into how many passes the units of one size would go at least, if all sizes that the plan allows were equally common."""


def places_for(bench: Bench, data: Dataset, plan: Plan, rows: NDArray[np.int64], together: Together) -> int:
    """How many units of as many images as these `rows` go through together. 1: each has a pass to itself."""
    if bench.by_unit is None:
        return 1
    sizes = plan.privacy.images_per_patient if plan.privacy.unit == "patient" else 1
    fitting = min(bench.room.units, cases_of(bench.room.images, plan) // len(rows))
    most = max(1, min(fitting, max(2, plan.training.batch // (_PASSES * sizes))))
    most = 1 << most.bit_length() - 1
    known = bench.by_unit.alike
    while most > 1:
        shape = (len(rows), most)
        if shape not in known:
            known[shape] = _is_one_as_any(bench, data, plan, rows, most, together)
        if known[shape]:
            break
        most //= 2
    return most


def _is_one_as_any(bench: Bench, data: Dataset, plan: Plan, rows: NDArray[np.int64], most: int, together: Together) -> bool:
    """Whether a unit's gradient has the same bits in each of so many places, and its norm, and what is left of it when it is clipped."""
    unit = Draw(rows=np.arange(len(rows)), sizes=np.array([len(rows)]), secret=bytes(SECRET_BYTES))
    with _strange_weights(bench.model), _nothing_dropped(bench.model.module):
        gradients = together(_stranger(data, rows), unit.filled(most))
    found = [values for gradient in gradients for values in (gradient.whole(), gradient.squares())]
    if not all(torch.equal(values, values[:1].expand_as(values)) for values in found):
        return False
    first_P, all_P = (_sum_of(bench.model, gradients, plan, taken, most) for taken in (1, most))
    return bool(first_P.any()) and torch.equal(first_P * most, all_P)


def _sum_of(model: FlatModel, gradients: list[UnitGradients], plan: Plan, taken: int, most: int) -> Tensor:
    """What the units in the first places add to the sum, (P,) int64."""
    total_P = torch.zeros_like(model.values, dtype=torch.int64)
    there_U = torch.arange(most, device=model.values.device) < taken
    add_clipped(parts_of(total_P, model.layout), gradients, lattice_of(plan), there_U)
    return total_P


def _stranger(data: Dataset, rows: NDArray[np.int64]) -> Dataset:
    """A unit of as many random images and numbers, which nobody has. What they are classed as chooses no order of summing, and stays."""
    rng, part = np.random.default_rng(_SEED), data.subset(rows)

    def made(images: Images) -> Images:
        return whole(rng.integers(0, 2**16, images.shape, dtype=np.uint16))

    parts = dict(part.parts)
    if "second" in parts:
        parts["second"] = made(parts["second"])
    if "record" in parts:
        parts["record"] = whole(rng.normal(size=parts["record"].shape).astype(np.float32))
    return replace(part, images=made(part.images), parts=parts)


@contextmanager
def _strange_weights(model: FlatModel) -> Iterator[None]:
    """Random ones, of a size at which signals neither die nor explode: the coordinator's may have been made to hide something."""
    kept, random = model.values.clone(), torch.Generator().manual_seed(_SEED)
    for name, part in zip(model.layout.names, parts_of(model.values, model.layout), strict=True):
        drawn = torch.randn(part.shape, generator=random)
        if part.dim() > 1:
            drawn *= (2 / part[0].numel()) ** 0.5
        else:
            drawn = 0.1 * drawn + float(name.endswith("weight"))
        part.copy_(drawn)
    try:
        yield
    finally:
        model.values.copy_(kept)


@contextmanager
def _nothing_dropped(module: nn.Module) -> Iterator[None]:
    layers = [(layer, layer.training) for layer in module.modules() if isinstance(layer, Dropout)]
    for layer, _ in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer, training in layers:
            layer.train(training)

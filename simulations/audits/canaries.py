# SPDX-License-Identifier: Apache-2.0
"""Canary patients: people made so that training has to show whether it keeps its promise to them.

*Gradient canaries* are the strongest there are against training whose every step is watched: patient i's gradient is as long as clipping
lets it be and points along a coordinate that nobody else moves (a Dirac canary; Nasr et al. 2023, https://arxiv.org/abs/2302.07956). They
need no way into the trainer: the model is `Probe`, whose logit is <w, x> and whose loss is that logit, so an image *is* its gradient, and a
canary is a picture with one bright pixel. Everything from drawing patients and slices to clipping, lattice and noise is what a hospital
runs. Whoever is not a canary is a patient with a black picture, who moves nothing and keeps the number of patients what it is.

*Mislabelled canaries* are for the observer who sees no more than the model before and after: noise images whose class is their
brightness, and among them patients whose label is wrong, which only memory can explain.

    N  images      H, W  height and width of one      P  coordinates
"""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from client.imaging.dataset import Dataset, Images
from client.imaging.splits import Split
from client.training.batches import FULL_SCALE
from client.training.bench import Bench, bench_of
from common.plan import Plan
from common.tasks import Target

OVERSHOOT = 64.0
"""How many times the clip norm a gradient canary is long before it is clipped."""
_LEAST_SIDE = 8

Coins = NDArray[np.bool_]


class Probe(nn.Module):
    """<w, x>: (B, 1, H, W) -> (B, 1). The gradient of its output is its input."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.direction = nn.Linear(side * side, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_B1: Tensor = self.direction(x_BCHW.flatten(1))
        return logits_B1


class Itself:
    """The task of a probe: the loss is the logit."""

    outputs = 1
    target: Target = "label"

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        del labels
        return logits.squeeze(1)

    def predict(self, logits: Tensor) -> Tensor:
        return logits


def side_for(coordinates: int) -> int:
    """The side of a square picture with at least so many pixels."""
    return max(_LEAST_SIDE, math.isqrt(max(coordinates, 1) - 1) + 1)


def probe_bench(side: int) -> Bench:
    """A bench with a probe on it, for private training."""
    return bench_of(Probe(side), Itself(), private=True)


def probed(plan: Plan, side: int, *, clip_norm: float) -> Plan:
    """The plan with pictures for a probe: a white pixel is a gradient of OVERSHOOT times this clip norm."""
    return replace(plan, input=replace(plan.input, height=side, width=side, channels=1, mean=0.0, std=1 / (OVERSHOOT * clip_norm)))


def gradient_canaries(coins: Coins, *, coordinates: NDArray[np.int64], patients: int, slices: int, side: int) -> Dataset:
    """A site of so many patients with so many identical slices each; the first are the canaries whose coin says so, all others are black.

    Shapes: coins, coordinates (canaries of this site,).
    """
    pictures = np.zeros((len(coins) + 1, 1, side, side), dtype=np.uint16)
    pictures.reshape(len(pictures), -1)[np.arange(len(coins)), coordinates] = FULL_SCALE * coins
    shown = np.minimum(np.arange(patients), len(coins)).repeat(slices)
    return _site(Images(pictures, shown), np.zeros(len(shown), dtype=np.int64), np.arange(patients).repeat(slices))


def mislabelled_canaries(coins: Coins, *, patients: int, plan: Plan, rng: np.random.Generator) -> tuple[Dataset, Dataset]:
    """A site of so many patients and of those canaries whose coin says so; and all canaries, drawn or not, to be asked about.

    One image each, of noise whose brightness is its class; a canary has the next class's label.
    """
    count, classes, image = patients + len(coins), len(plan.task.classes), plan.input
    truth = rng.integers(0, classes, count)
    level = (truth * (FULL_SCALE // 2) // max(1, classes - 1)).reshape(-1, 1, 1, 1)
    pictures = (level + rng.integers(0, FULL_SCALE // 2, (count, image.channels, image.height, image.width))).astype(np.uint16)
    is_canary = np.arange(count) < len(coins)
    everybody = _site(Images(pictures, np.arange(count)), (truth + is_canary) % classes, np.arange(count))
    return everybody.subset(~is_canary | np.pad(coins, (0, patients))), everybody.subset(is_canary)


def _site(pictures: Images, labels: NDArray[np.int64], patients: NDArray[np.int64]) -> Dataset:
    return Dataset(
        images=pictures,
        labels=labels,
        patients=patients.astype(np.int32),
        patient_keys=tuple(f"made-{number}" for number in range(int(patients.max()) + 1)),
        splits=np.full(len(labels), Split.TRAIN, dtype=np.int8),
        unit_source="patient_id",
    )

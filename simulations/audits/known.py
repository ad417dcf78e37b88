# SPDX-License-Identifier: Apache-2.0
"""Whose gradients an auditor knows, and what a noised sum of clipped gradients then says of each.

A promise holds against somebody who knows every patient's images and everything but one coin. So the auditor works out, at the weights of
a round, the clipped gradient a_j of every canary and of some of the others, who stand for all others. What the others add is expected, but
for chance: of the sum y, with e_j and v_j mean and variance of how often j is in it and sigma^2 that of the noise, all in clip norms,

    r = y - sum_j e_j a_j        S = sigma^2 I + sum_j v_j a_j a_j^T        s_i = a_i . S^-1 r        h_i = a_i . S^-1 a_i

is the inner product of a canary's gradient with what was seen, directions in which chance alone moves a sum counting less. A canary that
is drawn k times makes y likelier by exp(k s - k^2 h / 2), all others being Gaussian (s and h without the canary's own e and v). Its score
is the logarithm of the mean of that over k, binomial: how much likelier y is with the canary than without. S is never built: (sigma^2 I +
A A^T V)^-1 A is as large as there are people.

    n  people      P  values of the model
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.training import SystemNoise, dpsgd, units_of
from client.training.bench import bench_for
from client.training.clipping import ROOM_FOR_ROUNDING
from client.training.sampler import pick
from common.plan import Plan
from common.privacy import public_count
from common.update import Weights
from simulations.audits.one_run import log_choose
from simulations.audits.planted import Cast

Values = NDArray[np.float64]
_NOBODY: Final = -1
_LEAST: Final = 1e-300


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class People:
    """Gradients (n, P), which canary each is or -1 (n,), how often it is expected in the sum, and the variance of that (n,).

    A canary that is there is drawn up to `draws` times, each time with the probability `rate`.
    """

    gradients: Values
    numbers: NDArray[np.int64]
    expected: Values
    variance: Values
    draws: int
    rate: float

    @classmethod
    def at(cls, site: Cast, plan: Plan, weights: Weights, *, others: int, records: int) -> "People":
        """The canaries of a site, each in by a fair coin as so many `records`, and so many of the others."""
        units, canaries = units_of(site.others, plan), len(site.numbers)
        rate = plan.training.batch / public_count(site.units(plan, records=records))
        steps = plan.training.local_steps or 1
        chosen = np.linspace(0, len(units) - 1, min(others, len(units))).astype(np.int64)
        stand_for = len(units) / max(1, len(chosen))
        drawn, away = np.array([records / 2, stand_for]) * rate, np.array([records**2 / 4, stand_for * (stand_for - 1)]) * rate**2
        counts = [canaries, len(chosen)]
        return cls(
            gradients=np.concatenate(
                [gradients_of(site.canaries, plan, weights, np.arange(canaries)), gradients_of(site.others, plan, weights, chosen)]
            ),
            numbers=np.concatenate([site.numbers, np.full(len(chosen), _NOBODY)]),
            expected=steps * np.repeat(drawn, counts),
            variance=steps * np.repeat(drawn * (1 - rate), counts) + steps**2 * np.repeat(away, counts),
            draws=steps * records,
            rate=rate,
        )

    @classmethod
    def of(cls, groups: Sequence["People"]) -> "People":
        """Several sites' as one: of one plan, so that rates differ by little, if by anything."""
        return cls(
            gradients=np.concatenate([each.gradients for each in groups]),
            numbers=np.concatenate([each.numbers for each in groups]),
            expected=np.concatenate([each.expected for each in groups]),
            variance=np.concatenate([each.variance for each in groups]),
            draws=groups[0].draws,
            rate=max(each.rate for each in groups),
        )

    def score_into(self, scores: Values, seen: Values, *, noise: float) -> None:
        """Add to each canary's score what this sum (P,) says of it; `noise` is the variance of a value."""
        along = self.gradients @ (seen - self.expected @ self.gradients)
        gram = self.gradients @ self.gradients.T
        solved = np.linalg.solve(noise * np.eye(len(gram)) + gram * self.variance, np.column_stack([along, gram]))
        s, h = solved[:, 0], np.diagonal(solved[:, 1:])
        # Without its own part in S and in what was expected (Sherman and Morrison).
        apart = 1 - self.variance * h
        s, h = (s + self.expected * h) / apart, h / apart
        canaries = self.numbers != _NOBODY
        scores[self.numbers[canaries]] += _log_ratio(s[canaries], h[canaries], self.draws, self.rate)


def _log_ratio(s: Values, h: Values, draws: int, rate: float) -> Values:
    """log of the mean of exp(k s - k^2 h / 2), k binomial.

    >>> _log_ratio(np.array([0.0, 1.0]), np.zeros(2), 1, 0.5).round(3).tolist()  # log(1/2 + e/2)
    [0.0, 0.62]
    """
    k = np.arange(draws + 1)
    chances = log_choose(draws) + k * math.log(rate) + (draws - k) * math.log1p(-rate) if rate < 1 else np.where(k == draws, 0.0, -np.inf)
    return np.asarray(np.logaddexp.reduce(chances[:, np.newaxis] + np.outer(k, s) - np.outer(k**2, h) / 2, axis=0))


def gradients_of(data: Dataset, plan: Plan, weights: Weights, chosen: NDArray[np.int64]) -> Values:
    """The gradient of each chosen unit of a data set as the trainer clips it, in clip norms, (n, P), in this order."""
    units, clip_norm = units_of(data, plan), plan.privacy.clip_norm
    assert clip_norm is not None
    owner = {int(row): number for number, unit in enumerate(chosen) for row in units.rows_of(unit)}
    drawn = pick(units, chosen, plan.privacy.images_per_patient, SystemNoise().open())
    found = np.zeros((len(chosen), weights.layout.size))
    with bench_for(plan, weights) as bench:
        bench.model.module.train()
        for chunk, gradients, _ in dpsgd.unclipped(bench, data, plan, drawn):
            there = torch.cat([gradient.whole()[: len(chunk)].flatten(1) for gradient in gradients], dim=1)
            flat = there.double().cpu().numpy() / clip_norm
            norms = np.linalg.norm(flat, axis=1, keepdims=True)
            firsts = chunk.rows[np.cumsum(chunk.sizes) - chunk.sizes]
            found[[owner[int(row)] for row in firsts]] = flat * np.minimum(1.0, ROOM_FOR_ROUNDING / np.maximum(norms, _LEAST))
    return found

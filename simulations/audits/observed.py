# SPDX-License-Identifier: Apache-2.0
"""What an observer of training has to go by: scores of canaries, from one run of the client's own code.

*White box.* The noised sums of all steps, which is more than any coordinator gets; a canary's score is how much likelier they are with it
than without. Where sites share their noise, the observer has the sum over a noise quorum less the shares of the plan's colluders, who tell:
as few sites' noise as the promise relies on.

*Black box.* The model before and after: a canary's score is by how much its loss fell.

A *crowd* is as many sites as are seen together: one with local noise. Crowds have nothing to do with each other, so an audit of more
canaries than fit in one takes several; the promise to each canary is the same.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.release import release
from client.training import LocalWork, dpsgd, noised_sum, predict, train_locally
from common.models import initial_weights
from common.plan import Plan, at_round
from common.privacy import Charge, Event, lattice_of, round_charge
from common.update import AggregateDelta, Vector, Weights
from server.strategies import strategy_of
from simulations.audits.canaries import Coins, gradient_canaries, mislabelled_canaries, probe_bench, probed, side_for

Scores = NDArray[np.float64]
Progress = Callable[[int, int], None]
_NO_ORDER = b"private training takes nothing from it"
_LEAST = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Training as an observer of gradient canaries sees it.

    `plan` is what the sites follow, `charge` what is claimed of it, for all rounds; `noise` is how much of the noise charged they add. In
    honest training plan and charge belong together and all the noise is there; controls differ. Scores are in units of `clip_norm`.
    """

    plan: Plan
    charge: Charge
    clip_norm: float
    patients: int
    slices: int = 1
    noise: float = 1.0


def white_box(training: Training, coins: Coins, *, progress: Progress) -> Scores:
    """Scores of gradient canaries, (m,): the sum over steps of log (1 - q + q exp((y - 1/2) / sigma^2)).

    That is how much likelier what was seen is with the canary than without, if training is what it claims to be: no score tells more
    (Neyman and Pearson). y is the noised sum along the canary's coordinate, in clip norms; q and sigma are those charged.
    """
    scores, crowds = np.empty(len(coins)), crowds_of(len(coins), training.patients * seen_together(training.plan))
    done, total = 0, len(crowds) * training.charge.outside.steps
    for crowd in crowds:
        scores[crowd] = 0
        for y in seen(training, coins[crowd]):
            scores[crowd] += _log_ratio(y, training.charge.outside)
            done += 1
            progress(done, total)
    return scores


def seen(training: Training, coins: Coins) -> Iterator[Scores]:
    """What an observer sees of one crowd's canaries at each step: the noised sum along the coordinate of each, in clip norms."""
    together, side = seen_together(training.plan), side_for(len(coins))
    plan, bench = probed(training.plan, side, clip_norm=training.clip_norm), probe_bench(side)
    work = LocalWork(steps=1, noise_multiplier=training.noise * training.charge.own_share.noise_multiplier, order_seed=_NO_ORDER)
    sites = []
    for own in np.array_split(np.arange(len(coins)), together):
        data = gradient_canaries(coins[own], coordinates=own, patients=training.patients, slices=training.slices, side=side)
        sites.append(dpsgd.noised_sums(bench, data, plan, work))
    for _ in range(training.charge.outside.steps):
        total: NDArray[np.int64] = np.sum([noised().numpy() for noised in sites], axis=0)
        yield total[: len(coins)].astype(np.float64) * (lattice_of(plan).step / training.clip_norm)


def black_box(plan: Plan, coins: Coins, *, patients: int, rng: np.random.Generator, progress: Progress) -> Scores:
    """Scores of mislabelled canaries, (m,): the plan trains its own model, round by round, at sites of so many patients besides them."""
    together, start = seen_together(plan), initial_weights(plan)
    scores, crowds = np.empty(len(coins)), crowds_of(len(coins), patients * together)
    rounds = plan.training.rounds
    for number, crowd in enumerate(crowds):
        parts = np.array_split(crowd, together)
        sites = [mislabelled_canaries(coins[part], patients=patients, plan=plan, rng=rng) for part in parts]
        told = partial(_tell, progress, number * rounds, len(crowds) * rounds)
        end = _federate(start, plan, [present for present, _ in sites], told)
        for part, (_, asked) in zip(parts, sites, strict=True):
            scores[part] = _losses(start, asked, plan) - _losses(end, asked, plan)
    return scores


def seen_together(plan: Plan) -> int:
    """How many honest sites' sum an observer sees at the least."""
    return plan.noise_quorum - plan.privacy.colluders if plan.shares_noise else 1


def crowds_of(canaries: int, most: int) -> list[NDArray[np.int64]]:
    """The canaries of each crowd, as evenly as can be."""
    return np.array_split(np.arange(canaries), -(-canaries // most))


def _log_ratio(y: Scores, event: Event) -> Scores:
    undrawn = math.log1p(-event.sampling_rate) if event.sampling_rate < 1 else -math.inf
    return np.asarray(np.logaddexp(undrawn, math.log(event.sampling_rate) + (y - 0.5) / event.noise_multiplier**2))


def _tell(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _federate(start: Weights, plan: Plan, sites: list[Dataset], progress: Callable[[int], None]) -> Weights:
    """All rounds of a plan at these sites; what is summed is what a coordinator would open."""
    state, weights = strategy_of(plan.training).init(start.values), start
    for done in range(1, plan.training.rounds + 1):
        mean = np.stack([_delta(weights, data, plan, done) for data in sites]).mean(axis=0, dtype=np.float64)
        state = strategy_of(at_round(plan.training, done)).apply(
            state, AggregateDelta(values=mean.astype(np.float32), num_sites=len(sites))
        )
        weights = Weights(layout=start.layout, values=state.weights)
        progress(done)
    return weights


def _delta(weights: Weights, data: Dataset, plan: Plan, number: int) -> Vector | NDArray[np.float64]:
    event = round_charge(plan, data.num_patients).own_share
    work = LocalWork(steps=event.steps, noise_multiplier=event.noise_multiplier, order_seed=_NO_ORDER, round=number)
    if plan.shares_noise:
        return noised_sum(weights, data, plan, work).values * (lattice_of(plan).step / plan.training.batch)
    return release(train_locally(weights, data, plan, work), max_norm=plan.aggregation.update_norm).values


def _losses(weights: Weights, data: Dataset, plan: Plan) -> Scores:
    of_label = predict(weights, data, plan)[np.arange(len(data)), data.labels].astype(np.float64)
    return np.asarray(-np.log(np.maximum(of_label, _LEAST)))

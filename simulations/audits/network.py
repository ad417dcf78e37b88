# SPDX-License-Identifier: Apache-2.0
"""Audits through the plan's own network: a federation is staged, canary patients are planted, it trains once and is watched.

    scenario -> made data -> homes (`stage`) -> canaries (`planted`) -> rounds (`watched`) -> scores

Controls break training in the words of a plan, because a deployed site follows nothing else: it is given another plan than the one that
claims. In them everybody is drawn in every step, which is when such canaries, duller than those of `canaries`, show most. How much noise a
site adds follows from its plan's epsilon, so less noise is a larger epsilon, which the accountant finds. (A wrong sampling rate,
and records counted as patients, are for the sharp canaries to find: these are too dull for the one and were not tried on the other.)
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from common.plan import Plan
from common.privacy import epsilon, plan_charge, public_count
from simulations.audits import planted, watched
from simulations.audits.canaries import Coins
from simulations.audits.observed import Scores
from simulations.engine.nursery import Nursery
from simulations.scenario import Scenario
from simulations.stage import Workshop, set_stage

SLICES: Final = 50
HARDLY: Final = 1 / 32
"""The part of the noise that is left where there should be none: no deployed site trains privately without any."""
TOO_LONG: Final = 32
"""How many times the clip norm that is accounted for a gradient may be long, where it is not clipped."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Studio:
    """What staging federations needs: caches, processes; `data`, if the plan brings none of its own."""

    cache: Path
    workers: int
    nursery: Nursery
    data: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """A claim, and the plan that sites follow; the two are one in sound training."""

    name: str
    claim: Plan
    played: Scenario
    slices: int = 1
    is_sound: bool = False


def own(asked: Scenario, *, name: str) -> Staged:
    """The plan's own training. Raises: PlanConflict, if its canaries or its updates are none that this audit can watch."""
    planted.check(asked.plan)
    watched.check(asked.plan)
    return Staged(name=name, claim=asked.plan, played=_fewest(asked), is_sound=True)


def controls(asked: Scenario, *, claimed: float, patients: int) -> list[Staged]:
    """Training that is sound, and training that is broken in two ways, at sites of so many patients, all of it claiming so much."""
    promise, everybody = replace(asked.plan.privacy, epsilon=claimed), public_count(patients)
    base = replace(asked.plan, privacy=promise, training=replace(asked.plan.training, batch=everybody))
    clip_norm = base.privacy.clip_norm
    assert clip_norm is not None
    short = replace(base, privacy=replace(base.privacy, clip_norm=clip_norm / TOO_LONG))
    return [
        Staged(name="nothing is broken", claim=base, played=_of(asked, base), is_sound=True),
        Staged(name="hardly any noise", claim=base, played=_of(asked, _noisy(base, base, HARDLY, patients))),
        Staged(name="no clipping", claim=short, played=_of(asked, _noisy(base, base, 1 / TOO_LONG, patients))),
    ]


def scores_of(staged: Staged, studio: Studio, *, canaries: int, seed: int, progress: Progress) -> tuple[Scores, Coins]:
    """Train it once and score its canaries, up to so many as its sites have room for. Raises: as `fedward simulate` does."""
    with TemporaryDirectory(prefix="fedward-audit-") as folder:
        shop = Workshop(
            cache=studio.cache,
            workers=studio.workers,
            progress=progress,
            aggregation="fsa1" if staged.played.plan.shares_noise else "plain",
        )
        stage = set_stage(staged.played, studio.data, Path(folder) / "run", shop)
        coins, cast = planted.plant(stage, canaries=canaries, slices=staged.slices, rng=np.random.default_rng(seed))
        found = watched.watch(
            stage,
            cast,
            slices=staged.slices,
            workers=studio.workers,
            nursery=studio.nursery,
            progress=lambda done, total: progress(f"{staged.name}, its own network", done, total),
        )
    return found, coins


def _of(asked: Scenario, plan: Plan) -> Scenario:
    return _fewest(replace(asked, plan=plan))


def _fewest(asked: Scenario) -> Scenario:
    """As few sites as the promise counts on: there the noise is least."""
    if not asked.plan.shares_noise or asked.simulation.sites <= asked.plan.noise_quorum:
        return asked
    return asked.with_changes(sites=asked.plan.noise_quorum)


def _noisy(followed: Plan, accounted: Plan, part: float, patients: int) -> Plan:
    """A plan whose sites add this part of the noise that another one accounts for."""
    charge, delta = plan_charge(accounted, patients), followed.privacy.delta
    assert delta is not None
    rate = followed.training.batch / public_count(patients)
    event = replace(charge.outside, sampling_rate=rate, noise_multiplier=part * charge.outside.noise_multiplier)
    return replace(followed, privacy=replace(followed.privacy, epsilon=epsilon([event], delta)))

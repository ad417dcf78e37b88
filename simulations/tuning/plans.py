# SPDX-License-Identifier: Apache-2.0
"""The plan that a trial's federation follows in one fold: the trial's keys, the rungs as the rounds in which it is judged, and its promise.

Every fold of every trial is a plan of its own, with a name and a digest by which ledgers tell them apart. Folds begin from weights of their
own, trials of one fold from the same ones where their networks are the same: what differs between two trials is their keys.

Where sites share noise, a plan says for how many patients at least that is enough. Some of a site's patients are judged here instead of
trained on, so a trial's plan asks for as many fewer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from common.plan import EvaluationSpec, Plan
from common.plan.spec import USUAL_BINS
from simulations.tuning.halving import Rung, stops
from simulations.tuning.space import Trial

_NAME_LENGTH = 40
EVALUATION_SPARE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the plan of each trial in each fold promises, were it trained to its end; and which part of that is for judging it."""

    epsilon: float
    evaluation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Who is tried, how far, and in how many folds. `validation`: the part of the patients that is judged where there is one fold."""

    base: Plan
    trials: tuple[Trial, ...]
    rungs: tuple[Rung, ...]
    num_folds: int
    validation: float

    @property
    def training_part(self) -> float:
        """The part of a site's patients that a trial trains on."""
        return 1 - (self.validation if self.num_folds == 1 else 1 / self.num_folds)


def of_fold(design: Design, trial: Trial, fold: int, promise: Promise | None) -> Plan:
    """The plan of one trial in one fold; without a promise, of a plan that has none."""
    plan = trial.plan
    identity = replace(plan.plan, name=f"{plan.name[:_NAME_LENGTH]}-trial-{trial.number:02d}-fold-{fold}")
    training = replace(plan.training, seed=plan.training.seed + fold)
    plan = replace(plan, plan=identity, training=training, evaluation=None, statistics=None)
    if promise is None:
        return plan
    least = plan.privacy.minimum_patients
    fewer = max(plan.training.batch, math.floor(least * design.training_part)) if least else None
    privacy = replace(plan.privacy, epsilon=promise.epsilon, minimum_patients=fewer)
    return replace(plan, privacy=privacy, evaluation=_judged_at(design.rungs, plan, promise, trial.plan.evaluation))


def _judged_at(rungs: Sequence[Rung], plan: Plan, promise: Promise, own: EvaluationSpec | None) -> EvaluationSpec:
    return EvaluationSpec(
        after=stops(rungs, plan.training.rounds),
        epsilon=promise.epsilon * promise.evaluation,
        bins=own.bins if own else USUAL_BINS,
        spare=EVALUATION_SPARE,
    )

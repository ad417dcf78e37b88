# SPDX-License-Identifier: Apache-2.0
"""`fedward audit privacy`: what an observer of training can prove about it, beside what a plan claims; and whether this auditor can see.

One run with canary patients, fair coins and a lower bound (`one_run`). A bound above the claim refutes the claim. A bound below it refutes
nothing, and a blind auditor would find one too; so training is also broken on purpose, and the auditor must catch it:

    no noise; no clipping; patients drawn four times as often as is accounted; a patient of 50 slices counted as 50 records

and must accept it where nothing is broken. The controls claim epsilon 2. With m canaries no more than about log(m) can be shown
(`one_run.ceiling`), so a plan that claims 8 could be broken to pieces and two thousand canaries would not show it; at 2 there is room to
see, and two thousand catch each control in more than 99 of 100 audits.

Gradient canaries meet a layer of their own, which makes them sharp. What is between them and a plan's network, its layers' gradients,
ledgers, secure aggregation, a coordinator, is watched in a whole federation (`network`), with fewer and duller canaries.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from common.errors import PlanConflict, PrivacyError
from common.plan import Plan
from common.privacy import plan_charge, public_count
from simulations.audits import network
from simulations.audits.canaries import OVERSHOOT, Coins
from simulations.audits.findings import Audit, Report, Trial
from simulations.audits.network import SLICES, Staged, Studio
from simulations.audits.observed import Scores, Training, black_box, white_box
from simulations.audits.one_run import ceiling, lower_bound
from simulations.scenario import Scenario

THIS_PLAN = "this plan"
CONTROL_EPSILON = 2.0
TOO_OFTEN = 4
PATIENTS_PER_DRAW = 4
_APART = 1_000_003

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A claim, and training to test it on, with gradient canaries; without `training`, the claiming plan's own with mislabelled ones."""

    name: str
    claim: Plan
    training: Training | None
    is_sound: bool = False


def usual_patients(plan: Plan) -> int:
    """Where a plan's promise is at its tightest: at its smallest site; else at one that draws a quarter of its patients."""
    return plan.privacy.minimum_patients or PATIENTS_PER_DRAW * plan.training.batch


def audit(plan: Plan, asked: Audit, *, with_controls: bool, progress: Progress) -> Report:
    """Audit a plan, and the auditor. Raises: PrivacyError, if the plan promises nothing; TooFewPatients, EpsilonImpossible."""
    _require_promise(plan)
    assert plan.privacy.delta is not None
    experiments = [_own(plan, asked), *(controls(plan, asked) if with_controls else ())]
    trials = [
        _try(experiment, replace(asked, seed=asked.seed + number * _APART), partial(progress, experiment.name))
        for number, experiment in enumerate(experiments)
    ]
    return Report(asked=asked, plan=trials[0], controls=tuple(trials[1:]), ceiling=ceiling(asked.canaries, delta=plan.privacy.delta))


def audit_network(asked: Scenario, how: Audit, studio: Studio, *, with_controls: bool, progress: Progress) -> Report:
    """The same through the plan's own network. Raises: PrivacyError, PlanConflict, and whatever a simulation can."""
    _require_promise(asked.plan)
    trained = [network.own(asked, name=THIS_PLAN if how.kind == "network" else f"{THIS_PLAN}, own network")]
    if with_controls:
        trained += network.controls(asked, claimed=CONTROL_EPSILON, patients=how.patients)
    trials = [_try_staged(staged, replace(how, seed=how.seed + number * _APART), studio, progress) for number, staged in enumerate(trained)]
    assert asked.plan.privacy.delta is not None
    found = trials[0].bound.tally.canaries
    return Report(
        asked=replace(how, canaries=found),
        plan=trials[0],
        controls=tuple(trials[1:]),
        ceiling=ceiling(found, delta=asked.plan.privacy.delta),
    )


def can_be_watched(asked: Scenario) -> bool:
    """Whether a plan's own network can be audited with nobody's data: it brings made ones, of pictures with a class."""
    try:
        network.own(asked, name=THIS_PLAN)
    except PlanConflict:
        return False
    return asked.simulation.phantoms is not None or asked.simulation.made is not None


def controls(plan: Plan, asked: Audit) -> list[Experiment]:
    """Training that is sound, and training that is broken in four ways, with gradient canaries."""
    base = replace(plan, privacy=replace(plan.privacy, epsilon=CONTROL_EPSILON))
    seldom = min(base.training.batch, max(1, public_count(asked.patients) // TOO_OFTEN))
    rarely = replace(base, training=replace(base.training, batch=seldom))
    often = replace(base, training=replace(base.training, batch=TOO_OFTEN * seldom))
    long = replace(base, privacy=replace(base.privacy, clip_norm=OVERSHOOT * _clip_norm(base)))
    slices = asked.patients * SLICES
    smallest = slices if base.privacy.minimum_patients else None
    records = replace(base, privacy=replace(base.privacy, unit="record", minimum_patients=smallest))
    honest = _training(base, asked)
    return [
        Experiment(name="nothing is broken", claim=base, training=honest, is_sound=True),
        Experiment(name="no noise", claim=base, training=replace(honest, noise=0.0)),
        Experiment(name="no clipping", claim=base, training=replace(honest, plan=long, noise=1 / OVERSHOOT)),
        Experiment(name=f"drawn {TOO_OFTEN} times too often", claim=rarely, training=replace(_training(rarely, asked), plan=often)),
        Experiment(name=f"{SLICES} slices, {SLICES} records", claim=records, training=_training(records, asked, slices=SLICES)),
    ]


def _own(plan: Plan, asked: Audit) -> Experiment:
    training = None if asked.kind == "mislabelled" else _training(plan, asked, slices=SLICES if asked.kind == "slices" else 1)
    return Experiment(name=THIS_PLAN, claim=plan, training=training, is_sound=True)


def _training(plan: Plan, asked: Audit, *, slices: int = 1) -> Training:
    """A plan's training as it is, and what the plan says of it."""
    units = asked.patients * (slices if plan.privacy.unit == "record" else 1)
    return Training(plan=plan, charge=plan_charge(plan, units), clip_norm=_clip_norm(plan), patients=asked.patients, slices=slices)


def _try(experiment: Experiment, asked: Audit, progress: Callable[[int, int], None]) -> Trial:
    rng = np.random.default_rng(asked.seed)
    coins = rng.random(asked.canaries) < 0.5
    if experiment.training is None:
        scores = black_box(experiment.claim, coins, patients=asked.patients, rng=rng, progress=progress)
    else:
        scores = white_box(experiment.training, coins, progress=progress)
    return _trial(experiment, scores, coins)


def _try_staged(staged: Staged, how: Audit, studio: Studio, progress: Progress) -> Trial:
    scores, coins = network.scores_of(staged, studio, canaries=how.canaries, seed=how.seed, progress=progress)
    return _trial(staged, scores, coins)


def _trial(tried: Experiment | Staged, scores: Scores, coins: Coins) -> Trial:
    claim = tried.claim.privacy
    assert claim.epsilon is not None
    assert claim.delta is not None
    bound = lower_bound(scores - scores.mean(), coins, delta=claim.delta)
    return Trial(name=tried.name, claimed=claim.epsilon, bound=bound, is_sound=tried.is_sound)


def _require_promise(plan: Plan) -> None:
    if not plan.is_private:
        raise PrivacyError(
            f"plan '{plan.name}' promises no privacy, so there is nothing to audit.", fix='Audit a plan with [privacy] unit = "patient".'
        )


def _clip_norm(plan: Plan) -> float:
    assert plan.privacy.clip_norm is not None
    return plan.privacy.clip_norm

# SPDX-License-Identifier: Apache-2.0
"""The plan that won, as a file that is ready for `fedward simulate`; and what is left of epsilon for it.

Tuning and the final training are on one ledger, so the final plan promises as much as, added to what tuning has spent, keeps the promise
that was made at the beginning: the largest epsilon for which, at every site, the Rényi sum of both is at most the base plan's. That is more
than the difference of the two numbers, since what is added costs less than by itself. Evaluation and statistics of the base plan keep their
part of it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from common.errors import EpsilonImpossible
from common.plan import Plan
from common.privacy import charges_beside_training, epsilon_at_most, plan_charge
from simulations.scenario import Scenario, to_toml
from simulations.tuning.price import Choices
from simulations.tuning.space import Trial, in_words

WINNER_FILE = "winner.toml"
_CLOSE = 0.985  # noise is calibrated to 99 % of a promise
_TRIES = 20
_NAME_LENGTH = 57


def left_for(plan: Plan, units: Mapping[str, int], spent: Mapping[str, Choices]) -> float | None:
    """The largest epsilon of this plan that every site's promise still holds, to three digits; None, if none is left to train by.

    `units`: what each site would train on; `spent`: what it has paid, or may have to.
    """
    whole = plan.privacy.epsilon
    assert whole is not None
    alike = {(units[site], _key(spent[site])): site for site in units}

    def total(epsilon: float) -> float:
        return max(_sum(with_epsilon(plan, epsilon), units[site], spent[site]) for site in alike.values())

    return _largest(total, whole)


def with_epsilon(plan: Plan, epsilon: float) -> Plan:
    """The plan with another promise; what is counted beside training keeps its part of it."""
    assert plan.privacy.epsilon is not None
    part = epsilon / plan.privacy.epsilon
    judged, asked = plan.evaluation, plan.statistics
    return replace(
        plan,
        privacy=replace(plan.privacy, epsilon=epsilon),
        evaluation=replace(judged, epsilon=judged.epsilon * part) if judged else None,
        statistics=replace(asked, epsilon=asked.epsilon * part) if asked else None,
    )


def winning_plan(trial: Trial, epsilon: float | None) -> Plan:
    """The trial's plan under a name of its own, with what is left; a plan without privacy keeps none."""
    plan = trial.plan if epsilon is None else with_epsilon(trial.plan, epsilon)
    return replace(plan, plan=replace(plan.plan, name=f"{plan.name[:_NAME_LENGTH]}-tuned", version=plan.plan.version + 1))


def as_toml(base: Scenario, trial: Trial, epsilon: float | None, *, spent: float | None) -> str:
    """The winner as one file, played as the base plan is; with a word on where it comes from."""
    words = [f"# Chosen by `fedward tune`: trial {trial.number}, {in_words(trial.keys)}."]
    if epsilon is not None:
        whole = base.plan.privacy.epsilon
        words.append(f"# Tuning spent epsilon {spent:.3f} of {whole:g}; with the {epsilon:g} below, both together are within {whole:g}.")
    return "\n".join(words) + "\n\n" + to_toml(Scenario(plan=winning_plan(trial, epsilon), simulation=base.simulation))


def _sum(plan: Plan, units: int, spent: Choices) -> float:
    try:
        own = [charge.outside for charge in (plan_charge(plan, units), *charges_beside_training(plan))]
    except EpsilonImpossible:
        return float("inf")
    assert plan.privacy.delta is not None
    return epsilon_at_most([*spent, (1, [own])], plan.privacy.delta)


def _largest(total: Callable[[float], float], whole: float) -> float | None:
    """The largest epsilon of its own with which the total is at most the whole.

    Squares of epsilons nearly add up, so the search aims along that, inside what it knows to be too little and too much.
    """
    low, high, aim = 0.0, whole, 0.9 * whole
    for _ in range(_TRIES):
        found = total(aim)
        low, high = (aim, high) if found <= whole else (low, aim)
        if low >= _CLOSE * high or (found <= whole and found >= _CLOSE * whole):
            break
        ahead = aim**2 + whole**2 - found**2 if math.isfinite(found) else 0.0
        aim = min(max(math.sqrt(max(ahead, 0.0)), low + (high - low) / 10), high - (high - low) / 10)
    shown = float(f"{low:.3g}")
    shown = shown if shown <= low else float(f"{_CLOSE * low:.3g}")
    return shown if shown > 0 and total(shown) <= whole else None


def _key(choices: Choices) -> tuple[object, ...]:
    """Equal for sites that pay alike."""
    return tuple((number, tuple(map(tuple, alternatives))) for number, alternatives in choices)

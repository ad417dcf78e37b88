# SPDX-License-Identifier: Apache-2.0
"""The same plan with local and with distributed noise, so that the two can be set side by side.

Distributed noise needs every round to be one global step, so a plan of several local steps becomes one of as many rounds as it had steps.
Its smallest hospital sets the noise for all. What remains of a plan is what it was: model, batch, steps in all, epsilon, delta, clip norm.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

from common.errors import PlanConflict
from common.plan import Plan
from common.plan.consistency import broken_rules
from common.privacy import public_count

Mode = Literal["distributed", "local"]
MODES: Final[tuple[Mode, ...]] = ("distributed", "local")


def mode_of(plan: Plan) -> Mode:
    return "distributed" if plan.shares_noise else "local"


def in_mode(plan: Plan, mode: Mode, units: Sequence[int]) -> Plan:
    """The plan itself, or its sibling with the other noise; `units` are those of each hospital.

    Raises: PlanConflict, if the sibling would contradict itself.
    """
    if mode == mode_of(plan):
        return plan
    sibling = _local(plan) if mode == "local" else _distributed(plan, units)
    for rule in broken_rules(sibling):
        raise PlanConflict(f"[{rule.where[0]}] {rule.where[1]}: {rule.wrong}.", fix=rule.fix)
    return sibling


def _local(plan: Plan) -> Plan:
    return replace(plan, privacy=replace(plan.privacy, noise="local", noise_quorum=None, minimum_patients=None))


def _distributed(plan: Plan, units: Sequence[int]) -> Plan:
    training, privacy, aggregation = plan.training, plan.privacy, plan.aggregation
    steps = training.local_steps or 1
    large_enough = [public_count(count) for count in units if public_count(count) >= training.batch]
    return replace(
        plan,
        training=replace(
            training,
            strategy="fedsgd",
            rounds=training.rounds * steps,
            local_steps=1,
            momentum=training.momentum or (training.server_momentum if training.optimiser == "sgd" else 0.0),
            server_learning_rate=1.0,
            server_momentum=0.0,
        ),
        privacy=replace(privacy, noise="distributed", minimum_patients=min(large_enough, default=training.batch)),
        aggregation=replace(aggregation, bits=None, word_bits=32, coordinate_range=None),
    )

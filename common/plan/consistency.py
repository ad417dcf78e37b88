# SPDX-License-Identifier: Apache-2.0
"""Values that are fine one by one and impossible together.

Each rule is one line of a table: where it points, when it is broken, what is wrong, what to do. `parse` turns a broken rule into
`PlanConflict` with the line of the file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from common.plan.spec import CnnSpec, Plan

SMALLEST_MAP = 1
LARGEST_UPDATE = 2**28
RING_BITS = 32
FEWEST_GROUPS = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """One way for a plan to contradict itself; `where` is (section, key)."""

    where: tuple[str, str]
    broken: Callable[[Plan], bool]
    wrong: str
    fix: str


def _vanishes(plan: Plan) -> bool:
    stages = len(plan.model.widths) if isinstance(plan.model, CnnSpec) else len(plan.model.widths) - 1
    return min(plan.input.height, plan.input.width) >> stages < SMALLEST_MAP


RULES = (
    Rule(
        ("task", "classes"),
        lambda p: len(set(p.task.classes)) < len(p.task.classes),
        "a class is named twice",
        "Give every class its own name.",
    ),
    Rule(
        ("task", "threshold"),
        lambda p: len(p.task.classes) > 2 and p.task.threshold != 0.5,
        "a threshold is set for more than two classes, where the largest probability decides",
        "Remove threshold, or name two classes.",
    ),
    Rule(
        ("model", "widths"),
        _vanishes,
        "the image is halved away before the last stage",
        "Use fewer widths or a larger [input] height and width.",
    ),
    Rule(
        ("training", "local_steps"),
        lambda p: (p.training.local_steps is None) == (p.training.local_epochs is None),
        "exactly one of local_steps and local_epochs says how long a site trains in a round",
        "Keep one of the two.",
    ),
    Rule(
        ("training", "local_epochs"),
        lambda p: p.is_private and p.training.local_epochs is not None,
        "local_epochs makes the number of steps depend on how many patients a site has, which private training must not show",
        "Use local_steps.",
    ),
    Rule(
        ("training", "momentum"),
        lambda p: p.training.optimiser == "adam" and p.training.momentum != 0,
        "momentum belongs to sgd; adam has its own",
        'Remove momentum, or set optimiser = "sgd".',
    ),
    Rule(
        ("training", "server_momentum"),
        lambda p: p.training.strategy == "fedavg" and (p.training.server_momentum != 0 or p.training.server_learning_rate != 1),
        "server_momentum and server_learning_rate have no meaning under fedavg",
        'Remove them, or set strategy = "fedavgm".',
    ),
    Rule(
        ("privacy", "epsilon"),
        lambda p: p.is_private and p.privacy.epsilon is None,
        "private training needs an epsilon",
        'Set epsilon (8 is a common upper end), or unit = "none".',
    ),
    Rule(
        ("privacy", "delta"),
        lambda p: p.is_private and p.privacy.delta is None,
        "private training needs a delta",
        "Set delta well below one in the number of patients, for example 1e-5.",
    ),
    Rule(
        ("privacy", "delta"),
        lambda p: p.is_private and (p.privacy.delta or 0) > 1e-3,
        "delta above 1e-3 promises next to nothing",
        "Set delta well below one in the number of patients, for example 1e-5.",
    ),
    Rule(
        ("privacy", "clip_norm"),
        lambda p: p.is_private and p.privacy.clip_norm is None,
        "private training needs a clip_norm, the bound on one unit's gradient",
        "Set clip_norm, for example 1.0.",
    ),
    Rule(
        ("privacy", "unit"),
        lambda p: not p.is_private and (p.privacy.epsilon, p.privacy.delta, p.privacy.clip_norm) != (None, None, None),
        'epsilon, delta and clip_norm are given, but unit = "none" means that nothing is private',
        'Set unit = "record", or remove them.',
    ),
    Rule(
        ("aggregation", "sites_per_round"),
        lambda p: p.aggregation.sites_per_round is not None and p.aggregation.sites_per_round < p.aggregation.minimum_cohort,
        "fewer sites are asked each round than minimum_cohort demands to answer",
        "Raise sites_per_round or lower minimum_cohort.",
    ),
    Rule(
        ("aggregation", "max_group"),
        lambda p: p.aggregation.max_group < p.aggregation.minimum_cohort,
        "a group of max_group sites is smaller than minimum_cohort",
        "Raise max_group or lower minimum_cohort.",
    ),
    Rule(
        ("aggregation", "bits"),
        lambda p: p.aggregation.bits is not None and p.aggregation.bits > RING_BITS - (p.aggregation.max_group - 1).bit_length(),
        "the sum of max_group updates of that many bits could overflow",
        "Lower bits or max_group, or leave bits out.",
    ),
    Rule(
        ("aggregation", "combine"),
        lambda p: (
            p.aggregation.combine != "mean"
            and p.aggregation.sites_per_round is not None
            and p.aggregation.sites_per_round < FEWEST_GROUPS * p.aggregation.minimum_cohort
        ),
        "a median or trimmed mean needs at least three groups, and fewer sites are asked than those would hold",
        'Raise sites_per_round, or set combine = "mean".',
    ),
)


def broken_rules(plan: Plan) -> Iterator[Rule]:
    """The rules that this plan breaks, in the order of the table."""
    return (rule for rule in RULES if rule.broken(plan))

# SPDX-License-Identifier: Apache-2.0
"""What [training], [privacy], [aggregation] and what is counted cannot say together: how a round goes, and what it costs."""

from common.plan.rule import Rule
from common.plan.spec import USUAL_BINS, Plan

FEWEST_BITS = 8
FEWEST_GROUPS = 3
LARGEST_GROUP_THAT_COUNTS = 256
MOST_CLASSES_JUDGED = 100


def _counted(plan: Plan) -> float:
    """What is set apart for evaluation and statistics; Rényi sums are never above it."""
    return sum(section.epsilon for section in (plan.evaluation, plan.statistics) if section is not None)


def _room(plan: Plan) -> int:
    """Bits of a word that one of max_group updates may fill."""
    return plan.aggregation.word_bits - (plan.aggregation.max_group - 1).bit_length()


RULES = (
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
        ("training", "warmup_rounds"),
        lambda p: p.training.warmup_rounds >= p.training.rounds,
        "the plan's rounds are over before the learning rate is what it says",
        "Lower warmup_rounds; a tenth of the rounds is usual.",
    ),
    Rule(
        ("training", "momentum"),
        lambda p: p.training.optimiser == "adam" and p.training.momentum != 0,
        "momentum belongs to sgd; adam has its own",
        'Remove momentum, or set optimiser = "sgd".',
    ),
    Rule(
        ("training", "server_momentum"),
        lambda p: p.training.strategy != "fedavgm" and (p.training.server_momentum != 0 or p.training.server_learning_rate != 1),
        "server_momentum and server_learning_rate belong to fedavgm",
        'Remove them, or set strategy = "fedavgm".',
    ),
    Rule(
        ("training", "strategy"),
        lambda p: p.training.strategy == "fedsgd" and p.training.local_steps != 1,
        "under fedsgd a round is one global step, so a site takes one",
        "Set local_steps = 1, or another strategy.",
    ),
    Rule(
        ("privacy", "noise"),
        lambda p: p.shares_noise and p.training.strategy != "fedsgd",
        "distributed noise makes the sum over sites private, and no site's own update, so every round has to be one global step",
        'Set [training] strategy = "fedsgd" and local_steps = 1, or noise = "local".',
    ),
    Rule(
        ("privacy", "minimum_patients"),
        lambda p: p.shares_noise != (p.privacy.minimum_patients is not None),
        "minimum_patients says for which smallest site shared noise is enough, and has no other meaning",
        'Give both noise = "distributed" and minimum_patients, or neither.',
    ),
    Rule(
        ("privacy", "minimum_patients"),
        lambda p: p.privacy.minimum_patients is not None and p.privacy.minimum_patients < p.training.batch,
        "minimum_patients is less than the batch that is drawn from them",
        "Raise minimum_patients or lower [training] batch.",
    ),
    Rule(
        ("privacy", "noise_quorum"),
        lambda p: p.privacy.noise_quorum is not None and not p.shares_noise,
        "a noise_quorum is given for noise that is not shared",
        'Remove it, or set noise = "distributed".',
    ),
    Rule(
        ("privacy", "colluders"),
        lambda p: p.shares_noise and p.privacy.colluders >= p.noise_quorum,
        "as many colluders are assumed as sites have to add noise, so nobody honest might be left",
        "Raise noise_quorum or lower colluders.",
    ),
    Rule(
        ("privacy", "noise_quorum"),
        lambda p: p.noise_quorum > p.aggregation.max_group,
        "a group of max_group sites is smaller than the noise quorum",
        "Raise max_group or lower noise_quorum.",
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
        'Set unit = "patient", or remove them.',
    ),
    Rule(
        ("evaluation", "epsilon"),
        lambda p: p.evaluation is not None and not p.is_private,
        'counts of patients leave a site noised only, and unit = "none" names nobody for whom',
        'Set [privacy] unit = "patient", or remove [evaluation].',
    ),
    Rule(
        ("statistics", "epsilon"),
        lambda p: p.statistics is not None and not p.is_private,
        'counts of patients leave a site noised only, and unit = "none" names nobody for whom',
        'Set [privacy] unit = "patient", or remove [statistics].',
    ),
    Rule(
        ("privacy", "epsilon"),
        lambda p: p.privacy.epsilon is not None and _counted(p) >= p.privacy.epsilon,
        "evaluation and statistics cost part of the plan's epsilon, and here would leave none to train by",
        "Raise epsilon, or lower those of [evaluation] and [statistics].",
    ),
    Rule(
        ("evaluation", "every"),
        lambda p: p.evaluation is not None and (p.evaluation.every is None) == (not p.evaluation.after),
        "exactly one of every and after says which models are judged",
        "Keep one of the two; every set to [training] rounds judges the final model alone.",
    ),
    Rule(
        ("evaluation", "every"),
        lambda p: p.evaluation is not None and (p.evaluation.every or 0) > p.training.rounds,
        "there are fewer rounds than that",
        "Lower every; set to [training] rounds, the final model alone is judged.",
    ),
    Rule(
        ("evaluation", "patience"),
        lambda p: p.evaluation is not None and (p.evaluation.patience or 0) >= max(1, len(p.evaluation_rounds) - 1),
        "the last judgement comes after all rounds, so training would never end for it",
        "Lower patience, judge more often, or leave it out.",
    ),
    Rule(
        ("evaluation", "after"),
        lambda p: p.evaluation is not None and max(p.evaluation.after, default=0) > p.training.rounds,
        "there are fewer rounds than the last that is named",
        "Name rounds up to [training] rounds, whose model is judged anyway.",
    ),
    Rule(
        ("evaluation", "bins"),
        lambda p: p.evaluation is not None and len(p.task.classes) > 2 and p.evaluation.bins != USUAL_BINS,
        "bins are of the probability of the second of two classes; of more, the class decided on is counted",
        "Remove bins.",
    ),
    Rule(
        ("task", "classes"),
        lambda p: p.evaluation is not None and len(p.task.classes) > MOST_CLASSES_JUDGED,
        f"a table of more than {MOST_CLASSES_JUDGED} classes against each other is nothing but noise",
        "Name fewer classes, or remove [evaluation].",
    ),
    Rule(
        ("statistics", "classes"),
        lambda p: p.statistics is not None and not (p.statistics.classes or p.statistics.intensity),
        "neither classes nor intensity is asked for",
        "Ask for one, or remove [statistics].",
    ),
    Rule(
        ("aggregation", "max_group"),
        lambda p: (p.evaluation is not None or p.statistics is not None) and p.aggregation.max_group > LARGEST_GROUP_THAT_COUNTS,
        "the noised counts of so many sites could overflow",
        f"Lower max_group to {LARGEST_GROUP_THAT_COUNTS} or less, or remove [evaluation] and [statistics].",
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
        lambda p: p.aggregation.bits is not None and p.aggregation.bits > _room(p),
        "the sum of max_group updates of that many bits could overflow",
        "Lower bits or max_group, or leave bits out.",
    ),
    Rule(
        ("aggregation", "bits"),
        lambda p: p.shares_noise and p.aggregation.bits is not None,
        "with distributed noise updates lie on the noise's own lattice",
        "Leave bits out.",
    ),
    Rule(
        ("aggregation", "word_bits"),
        lambda p: p.shares_noise and p.aggregation.word_bits == 16,
        "noised sums do not fit words of 16 bits, and rounding them again would undo what was accounted",
        'Leave word_bits out, or set [privacy] noise = "local".',
    ),
    Rule(
        ("aggregation", "word_bits"),
        lambda p: p.aggregation.word_bits == 16 and _room(p) < FEWEST_BITS,
        "in words of 16 bits max_group updates leave fewer than 8 bits each",
        "Lower max_group to 256 or less, or leave word_bits out.",
    ),
    Rule(
        ("aggregation", "coordinate_range"),
        lambda p: p.aggregation.word_bits == 32 and p.aggregation.coordinate_range is not None,
        "coordinate_range belongs to words of 16 bits; those of 32 hold every update within update_norm",
        "Remove it, or set word_bits = 16.",
    ),
    Rule(
        ("aggregation", "coordinate_range"),
        lambda p: (p.aggregation.coordinate_range or 0) > p.aggregation.update_norm,
        "coordinate_range is wider than the longest update",
        "Lower it to update_norm or less.",
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

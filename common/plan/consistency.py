# SPDX-License-Identifier: Apache-2.0
"""Values that are fine one by one and impossible together.

Each rule is one line of a table: where it points, when it is broken, what is wrong, what to do. `parse` turns a broken rule into
`PlanConflict` with the line of the file.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from common.plan.spec import (
    USUAL_BINS,
    AugmentationSpec,
    CentreSpec,
    ClassificationSpec,
    CnnSpec,
    FcnSpec,
    FusionSpec,
    Plan,
    ResNetSpec,
    RestorationSpec,
    ScatteringSpec,
    SequenceSpec,
    SrcnnSpec,
    UNetSpec,
)

SMALLEST_MAP = 1
SMALLEST_SCATTERED = 2  # each map is normalised by itself, and one value alone would become 0
FEWEST_BITS = 8
FEWEST_GROUPS = 3
LARGEST_GROUP_THAT_COUNTS = 256
MOST_CLASSES_JUDGED = 100
SMALLEST_SIDE = 8
_TOLD_APART = frozenset({"classification", "multi-label"})
TASKS_OF: Mapping[str, frozenset[str]] = {
    "backbone": _TOLD_APART,
    "cnn": _TOLD_APART,
    "resnet": _TOLD_APART,
    "scattering": _TOLD_APART,
    "unet": frozenset({"segmentation", "restoration"}),
    "fcn": _TOLD_APART | {"segmentation"},
    "centre": frozenset({"detection"}),
    "srcnn": frozenset({"restoration"}),
    "sequence": _TOLD_APART,
    "mlp": _TOLD_APART,
    "text": _TOLD_APART,
    "fusion": _TOLD_APART,
}
"""What a family can answer: one line a case, or something for each pixel."""
INPUTS_OF: Mapping[str, frozenset[str]] = {
    "unet": frozenset({"image", "sequence"}),
    "fcn": frozenset({"image", "sequence"}),
    "centre": frozenset({"image", "sequence"}),
    "sequence": frozenset({"image", "sequence"}),
    "mlp": frozenset({"record"}),
    "text": frozenset({"text"}),
    "fusion": frozenset({"image", "second", "record", "text"}),
}
"""What a family takes, where that is not one image alone."""
NEEDS_OF: Mapping[str, frozenset[str]] = {
    "sequence": frozenset({"image", "sequence"}),
    "mlp": frozenset({"record"}),
    "text": frozenset({"text"}),
}
"""What a family cannot do without, where that is not an image."""
FEWEST_FUSED = 2


@dataclass(frozen=True, slots=True)
class Rule:
    """One way for a plan to contradict itself; `where` is (section, key)."""

    where: tuple[str, str]
    broken: Callable[[Plan], bool]
    wrong: str
    fix: str


_HALVING = CnnSpec | CentreSpec | FusionSpec | SequenceSpec
"""Families that halve an image at each stage, the last one included."""


def _vanishes(plan: Plan) -> bool:
    if not isinstance(plan.model, _HALVING | ResNetSpec | UNetSpec | FcnSpec) or not plan.input.has_image:
        return False
    if isinstance(plan.model, FcnSpec) and not plan.model.pooling:
        return False
    stages = len(plan.model.widths) if isinstance(plan.model, _HALVING) else len(plan.model.widths) - 1
    return min(plan.input.height, plan.input.width) >> stages < SMALLEST_MAP


def _given(plan: Plan) -> set[str]:
    """What [input] gives: an image, a sequence of them, a second image, a record, a text."""
    image = plan.input
    given = {
        "image": image.has_image,
        "sequence": image.sequence > 1,
        "second": image.second is not None,
        "record": bool(image.record),
        "text": image.text is not None,
    }
    return {name for name, there in given.items() if there}


def _takes(plan: Plan) -> bool:
    """Whether the family takes all that there is."""
    return _given(plan) <= INPUTS_OF.get(plan.model.family, frozenset({"image"}))


def _has_enough(plan: Plan) -> bool:
    """Whether there is all that the family cannot do without; to fuse there have to be two."""
    given = _given(plan)
    return NEEDS_OF.get(plan.model.family, frozenset({"image"})) <= given and (plan.model.family != "fusion" or len(given) >= FEWEST_FUSED)


def _counted(plan: Plan) -> float:
    """What is set apart for evaluation and statistics; Rényi sums are never above it."""
    return sum(section.epsilon for section in (plan.evaluation, plan.statistics) if section is not None)


def _room(plan: Plan) -> int:
    """Bits of a word that one of max_group updates may fill."""
    return plan.aggregation.word_bits - (plan.aggregation.max_group - 1).bit_length()


RULES = (
    Rule(
        ("task", "classes"),
        lambda p: len(set(p.task.classes)) < len(p.task.classes),
        "a class is named twice",
        "Give every class its own name.",
    ),
    Rule(
        ("task", "weights"),
        lambda p: bool(found := getattr(p.task, "weights", ())) and len(found) != len(p.task.classes),
        "there is not one weight for each class",
        "Give as many weights as classes, in the same order.",
    ),
    Rule(
        ("task", "threshold"),
        lambda p: isinstance(p.task, ClassificationSpec) and len(p.task.classes) > 2 and p.task.threshold != 0.5,
        "a threshold is set for more than two classes, where the largest probability decides",
        "Remove threshold, or name two classes.",
    ),
    Rule(
        ("input", "height"),
        lambda p: (
            p.input.has_image != (min(p.input.height, p.input.width) >= SMALLEST_SIDE) or (p.input.height == 0) != (p.input.width == 0)
        ),
        "an image has at least 8 pixels each way, and a plan without images has none",
        'Set height and width; or set modality = "none" and leave them out.',
    ),
    Rule(
        ("input", "modality"),
        lambda p: not (p.input.has_image or p.input.record or p.input.text),
        "there is no image, no record and no text to learn from",
        "Name a modality, or add [[input.record]] or [input.text].",
    ),
    Rule(
        ("input", "record"),
        lambda p: len({each.column for each in p.input.record}) < len(p.input.record),
        "a column of the record is named twice",
        "Name every column once.",
    ),
    Rule(
        ("model", "family"),
        lambda p: p.task.kind not in TASKS_OF[p.model.family],
        "this family does not answer in the way that the task asks for",
        "Choose a family for the task: docs/tasks.md lists them.",
    ),
    Rule(
        ("model", "family"),
        lambda p: not _takes(p),
        "this family does not take all that [input] gives",
        "Choose a family for the input: docs/tasks.md lists them.",
    ),
    Rule(
        ("model", "family"),
        lambda p: not _has_enough(p),
        "this family needs more than [input] gives: an image, for sequence several; for mlp a record, for text a text; for fusion two",
        "Add what is missing to [input], or choose a family for the input: docs/tasks.md lists them.",
    ),
    Rule(
        ("input", "second"),
        lambda p: p.input.second is not None and not p.input.has_image,
        "there is a second image and no first one",
        "Name a modality, or make the second image the only one.",
    ),
    Rule(
        ("model", "answer"),
        lambda p: isinstance(p.model, FcnSpec) and (p.model.answer == "pixel") != (p.task.kind == "segmentation"),
        "segmentation asks for an answer at each pixel, and every other task of this family for one of the image",
        'Set answer = "pixel" for segmentation, else answer = "image".',
    ),
    Rule(
        ("model", "residual"),
        lambda p: isinstance(p.model, UNetSpec) and p.model.residual and not isinstance(p.task, RestorationSpec),
        "the image is added to the answer, which makes sense for restoration only",
        "Remove residual.",
    ),
    Rule(
        ("model", "stride"),
        lambda p: isinstance(p.model, CentreSpec) and p.model.stride > 1 << len(p.model.widths),
        "the map is coarser than the last stage: each width halves the image once",
        "Use more widths, or a smaller stride.",
    ),
    Rule(
        ("model", "kernels"),
        lambda p: (
            isinstance(p.model, SrcnnSpec)
            and (len(p.model.kernels) != len(p.model.widths) + 1 or not all(side % 2 for side in p.model.kernels))
        ),
        "every convolution has one kernel of an odd side, and there is one more than widths",
        "Give as many odd kernels as widths, and one more.",
    ),
    Rule(
        ("input", "sequence"),
        lambda p: p.task.kind in {"segmentation", "detection"} and p.input.sequence % 2 == 0,
        "an image stands in the middle of its neighbours, as many on one side as on the other",
        "Give an odd number.",
    ),
    Rule(
        ("input", "sequence"),
        lambda p: isinstance(p.task, RestorationSpec) and p.input.sequence > 1,
        "an image is restored by itself",
        "Remove sequence.",
    ),
    Rule(
        ("evaluation", "every"),
        lambda p: p.evaluation is not None and not isinstance(p.task, ClassificationSpec),
        "sites can count together how a model does for classification only",
        "Leave [evaluation] out.",
    ),
    Rule(
        ("statistics", "epsilon"),
        lambda p: p.statistics is not None and not (isinstance(p.task, ClassificationSpec) and p.input.has_image),
        "sites can count together what their data are like for classification of images only",
        "Leave [statistics] out.",
    ),
    Rule(
        ("input", "tissue"),
        lambda p: p.input.tissue > 0 and p.input.modality not in ("SM", "any"),
        "tissue chooses among the tiles of whole slides",
        'Remove it, or set modality = "SM".',
    ),
    Rule(
        ("model", "widths"),
        _vanishes,
        "the image is halved away before the last stage",
        "Use fewer widths or a larger [input] height and width.",
    ),
    Rule(
        ("model", "scales"),
        lambda p: isinstance(p.model, ScatteringSpec) and min(p.input.height, p.input.width) >> p.model.scales < SMALLEST_SCATTERED,
        "the image is averaged away: every scale halves it, and maps of 2 x 2 have to be left",
        "Use fewer scales or a larger [input] height and width.",
    ),
    Rule(
        ("augmentation", "rotation_degrees"),
        lambda p: p.augmentation is not None and not p.input.has_image,
        "there are no images to alter",
        "Remove [augmentation].",
    ),
    Rule(
        ("augmentation", "rotation_degrees"),
        lambda p: p.augmentation == AugmentationSpec(),
        "nothing is altered: every key is left at nothing",
        "Set one, for example rotation_degrees = 10, or remove [augmentation].",
    ),
    Rule(
        ("augmentation", "flip"),
        lambda p: p.augmentation is not None and p.augmentation.flips_across and p.input.laterality is not None,
        "images of one side are asked for, and mirrored they would be of the other",
        'Set flip = "none" or "vertical", or remove [input] laterality.',
    ),
    Rule(
        ("training", "precision"),
        lambda p: p.is_private and p.training.precision != "float32",
        "what bounds one patient's part is computed in float32, so private training is too",
        "Remove precision.",
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


def broken_rules(plan: Plan) -> Iterator[Rule]:
    """The rules that this plan breaks, in the order of the table."""
    return (rule for rule in RULES if rule.broken(plan))

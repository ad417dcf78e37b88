# SPDX-License-Identifier: Apache-2.0
"""What [input], [task], [model] and [augmentation] cannot say together: which network can be shown what, and be asked what."""

from collections.abc import Mapping

from common.plan.families import CentreSpec, CnnSpec, FcnSpec, FusionSpec, ResNetSpec, ScatteringSpec, SequenceSpec, SrcnnSpec, UNetSpec
from common.plan.rule import Rule
from common.plan.spec import AugmentationSpec, Plan
from common.plan.tasks import ClassificationSpec, RestorationSpec

SMALLEST_MAP = 1
SMALLEST_SCATTERED = 2  # each map is normalised by itself, and one value alone would become 0
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
)

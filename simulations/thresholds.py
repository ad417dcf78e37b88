# SPDX-License-Identifier: Apache-2.0
"""From what on a model's word counts: the plan's threshold, or one chosen by a rule on validation patients.

    two classes         one, of the second class's probability
    several findings    one for each; where too few validation patients are known to have a finding, or not to, the plan's stays
    boxes               one score for the boxes of all classes

Of more classes the most probable is said, of pixels too, and a restored image has no threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.training import predict
from common.errors import PlanValue, TooFewPatients
from common.plan import ClassificationSpec, DetectionSpec, MultiLabelSpec, Plan
from common.tasks import by_patient
from common.tasks.scoring.detection import choose_score
from common.tasks.scoring.multilabel import UNKNOWN, of_patients
from common.tasks.scoring.operating import OperatingPoint, Rule, choose
from common.update import Weights
from simulations.judging import BOX_SCORE, found_boxes, true_boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """`name`: what it parts from the rest; `chosen`: where it came from, None for the plan's own."""

    name: str
    value: float
    chosen: OperatingPoint | None = None


def of_plan(plan: Plan) -> tuple[Threshold, ...]:
    """Those that nobody has chosen. Empty, where there is nothing to part."""
    match plan.task:
        case ClassificationSpec(classes=(_, second)) as task:
            return (Threshold(name=second, value=task.threshold),)
        case MultiLabelSpec() as task:
            return tuple(Threshold(name=name, value=task.threshold) for name in task.classes)
        case DetectionSpec():
            return (Threshold(name="boxes", value=BOX_SCORE),)
    return ()


def check(plan: Plan) -> None:
    """Raises: PlanValue, if there is nothing that a threshold would part."""
    if not of_plan(plan):
        raise PlanValue(
            f"plan '{plan.name}' has nothing to part: a threshold is of two classes, of findings, or of boxes.",
            fix="Leave --threshold out.",
        )


def chosen_on(weights: Weights, validation: Dataset, plan: Plan, rule: Rule) -> tuple[Threshold, ...]:
    """By the rule, on these patients.

    Raises: TooFewPatients, if they can choose none; PlanValue, if there is nothing to choose, or the rule cannot be kept; ModelLayout.
    """
    check(plan)
    said, before = predict(weights, validation, plan), of_plan(plan)
    match plan.task:
        case MultiLabelSpec():
            probabilities, findings = of_patients(said, validation.parts["findings"][:], validation.patients)
            known = findings != UNKNOWN
            points = [_tried(probabilities[known[:, f], f], findings[known[:, f], f] == 1, rule) for f in range(len(before))]
            return _if_any(before, points)
        case DetectionSpec() as task:
            found, true = [found_boxes(boxes) for boxes in said], [true_boxes(boxes) for boxes in validation.parts["boxes"][:]]
            return _with(before, [choose_score(len(task.classes), found, true, validation.patients, rule)])
    probabilities, labels = by_patient(said, validation.labels, validation.patients)
    return _with(before, [choose(probabilities[:, 1], labels == 1, rule)])


def _tried(probabilities: NDArray[np.floating], there: NDArray[np.bool_], rule: Rule) -> OperatingPoint | TooFewPatients:
    try:
        return choose(probabilities, there, rule)
    except TooFewPatients as error:
        return error


def _if_any(before: Sequence[Threshold], points: Sequence[OperatingPoint | TooFewPatients]) -> tuple[Threshold, ...]:
    """The plan's own where there were too few. Raises: TooFewPatients, if that is everywhere."""
    few = [point for point in points if isinstance(point, TooFewPatients)]
    if len(few) == len(points):
        raise few[0]
    return _with(before, [None if isinstance(point, TooFewPatients) else point for point in points])


def _with(before: Sequence[Threshold], points: Sequence[OperatingPoint | None]) -> tuple[Threshold, ...]:
    return tuple(
        one if point is None else replace(one, value=point.threshold, chosen=point) for one, point in zip(before, points, strict=True)
    )

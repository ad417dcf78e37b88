# SPDX-License-Identifier: Apache-2.0
"""How good a model is on a data set, whatever its task: predictions against the truth, in the task's own figures.

    classification   probabilities against labels      AUC of patients, and much more (common.tasks.scores)
    multi-label      probabilities against findings    mean AUC
    segmentation     classes against masks             Dice
    detection        boxes against boxes               AP at IoU 0.5
    restoration      images against what they were     PSNR, beside that of what they were made from

Who only wants to know whether it got better asks for the `headline`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.imaging.dataset import Dataset
from client.training import predict
from client.training.batches import FULL_SCALE, inputs
from common.plan import DetectionSpec, MultiLabelSpec, Plan, RestorationSpec, SegmentationSpec
from common.tasks import Scores, evaluate
from common.tasks.scoring.detection import Boxes, DetectionScores, score_boxes
from common.tasks.scoring.groups import Groups, by_group
from common.tasks.scoring.multilabel import MultiLabelScores, score_findings
from common.tasks.scoring.restoration import RestorationScores, fidelity_of, score_images
from common.tasks.scoring.segmentation import SegmentationScores, joined, overlap_of, score_areas
from common.update import Weights

AnyScores = Scores | MultiLabelScores | SegmentationScores | DetectionScores | RestorationScores
BOX_SCORE = 0.5
"""From which score on a box is shown where nobody chose: a detector's plan names none."""
_AT_ONCE = 256
"""Cases whose predictions are held at once where each is a picture."""


def judge(weights: Weights, data: Dataset, plan: Plan, *, resamples: int, thresholds: Sequence[float] = ()) -> AnyScores:
    """Predict and score; intervals from that many resamples of patients. Raises: ModelLayout.

    `thresholds`: of findings and boxes, where they are others than the plan's (`simulations.thresholds`).
    """
    again = {"resamples": resamples, "seed": plan.training.seed}
    match plan.task:
        case MultiLabelSpec() as task:
            said, truth = predict(weights, data, plan), data.parts["findings"][:]
            return score_findings(task.classes, said, truth, data.patients, threshold=thresholds or task.threshold, **again)
        case SegmentationSpec() as task:
            spacing = plan.input.spacing_mm
            counts = [
                overlap_of(
                    predict(weights, part, plan).argmax(axis=1), part.parts["mask"][:], num_classes=len(task.classes), spacing_mm=spacing
                )
                for part in _portions(data)
            ]
            return score_areas(task.classes, joined(counts), data.patients, **again, in_mm=spacing is not None)
        case DetectionSpec() as task:
            found = [found_boxes(boxes) for boxes in predict(weights, data, plan)]
            true = [true_boxes(boxes) for boxes in data.parts["boxes"][:]]
            return score_boxes(task.classes, found, true, data.patients, threshold=thresholds[0] if thresholds else BOX_SCORE, **again)
        case RestorationSpec():
            return _restored(weights, data, plan, resamples=resamples)
    return evaluate(plan.classification, predict(weights, data, plan), data.labels, data.patients, **again)


def judge_by_site(weights: Weights, data: Dataset, plan: Plan, *, resamples: int) -> Groups[AnyScores] | None:
    """The same for the patients of each site, where the data say whose they are; of small sites nothing. Raises: ModelLayout."""
    if data.sites is None or data.site_index is None:
        return None
    names = [data.sites[index] for index in data.site_index]
    return by_group(names, data.patients, lambda rows: judge(weights, data.subset(rows), plan, resamples=resamples))


def _portions(data: Dataset) -> list[Dataset]:
    return [data.subset(np.arange(start, min(start + _AT_ONCE, len(data)))) for start in range(0, max(1, len(data)), _AT_ONCE)]


def found_boxes(boxes: NDArray[np.float32]) -> Boxes:
    """A prediction (M, 6): class, score, left, top, right, bottom; class -1 is no box."""
    there = boxes[boxes[:, 0] >= 0]
    return Boxes(corners=there[:, 2:], classes=there[:, 0].astype(np.int64), scores=there[:, 1])


def true_boxes(boxes: NDArray[np.float32]) -> Boxes:
    """The truth (M, 5): class, left, top, right, bottom; class -1 is no box."""
    there = boxes[boxes[:, 0] >= 0]
    return Boxes(corners=there[:, 1:], classes=there[:, 0].astype(np.int64))


def _restored(weights: Weights, data: Dataset, plan: Plan, *, resamples: int) -> RestorationScores:
    """In the intensities of [0, 1], as a reader sees them."""
    rows = np.arange(len(data))
    clean = data.images[:].astype(np.float32) / FULL_SCALE
    before = _intensity(inputs(data, rows, plan)[0].numpy(), plan)
    after = _intensity(predict(weights, data, plan), plan)
    return score_images(fidelity_of(after, clean), fidelity_of(before, clean), data.patients, resamples=resamples, seed=plan.training.seed)


def _intensity(normalised: NDArray[np.float32], plan: Plan) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = np.clip(normalised * np.float32(plan.input.std) + np.float32(plan.input.mean), 0, 1)
    return unit

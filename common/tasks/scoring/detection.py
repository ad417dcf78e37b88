# SPDX-License-Identifier: Apache-2.0
"""How well findings are found as boxes: average precision, and how many are found at how many false boxes an image.

Boxes are matched as COCO does (Lin et al. 2014): the surest box first, each to the free true box of its class that it overlaps most, if by
at least a given IoU; at most a hundred boxes of a class in an image count.

    AP        precision at 101 recalls, each the best at that recall or above, averaged; AP50 at IoU 0.5, mAP over IoU 0.50, 0.55 ... 0.95
    FROC      share of true boxes found where so many false ones an image are drawn, on average: what a reader sits through (Bunch 1978)

AP at weight 1 is pycocotools', to the last digits, which is what torchmetrics' metric runs; it is written here because an interval asks
for it a thousand times: matching does not change when patients are drawn again, only how often each box counts.

    N  images      D  boxes of a class, surest first      L  levels of IoU      R  resamples
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import PlanValue, TooFewPatients
from common.tasks.bootstrap import Interval, interval_of, mean_of_said, resampled
from common.tasks.scoring.averages import mean, ratio
from common.tasks.scoring.headline import Headline
from common.tasks.scoring.operating import FEWEST_OF_EACH, OperatingPoint, Rule, between

IOU_LEVELS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_BOXES = 100
FALSE_PER_IMAGE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Where lung nodule detectors are compared (Setio et al. 2017, LUNA16)."""


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """The boxes of one image: corners (D, 4) left, top, right, bottom in any one unit; classes (D,); scores (D,), of true ones None."""

    corners: NDArray[np.floating]
    classes: NDArray[np.integer]
    scores: NDArray[np.floating] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxScores:
    """One class. `support` is of true boxes; precision, recall and F1 are at IoU 0.5, of boxes whose score reaches the threshold."""

    name: str
    ap50: float | None
    ap: float | None
    ap50_interval: Interval | None
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FrocPoint:
    """At so many false boxes an image on average, at most: the share of true boxes found."""

    false_per_image: float
    sensitivity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionScores:
    """Means over the classes that have true boxes. `count` is of images. No interval where patients are not known."""

    count: int
    ap50: float | None
    ap50_interval: Interval | None
    ap: float | None
    classes: tuple[BoxScores, ...]
    froc: tuple[FrocPoint, ...]

    @property
    def headline(self) -> Headline:
        return Headline(name="AP50", value=self.ap50, interval=self.ap50_interval)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and None, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Matched:
    """All boxes of a class: image (D,) and scores (D,), surest first; whether each is right at each level of IoU, (L, D)."""

    image: NDArray[np.int64]
    scores: NDArray[np.float64]
    right: NDArray[np.bool_]
    true_in_image: NDArray[np.int64]


def score_boxes(
    names: Sequence[str],
    found: Sequence[Boxes],
    true: Sequence[Boxes],
    patients: NDArray[np.int32] | None = None,
    *,
    threshold: float = 0.5,
    resamples: int = 1000,
    seed: int = 0,
) -> DetectionScores:
    """Judge boxes. Shapes: found and true (N,), aligned; patients (N,). N may be 0."""
    matched = [_match(found, true, c) for c in range(len(names))]
    once = np.ones((1, len(true)))
    whole = [average_precision(one, once) for one in matched]
    weights = _image_weights(patients, resamples=resamples, seed=seed)
    again = [None if weights is None else average_precision(one, weights, levels=1)[0] for one in matched]
    classes = tuple(
        _of_class(name, one, aps[:, 0], drawn, threshold) for name, one, aps, drawn in zip(names, matched, whole, again, strict=True)
    )
    drawn = [values for values in again if values is not None]
    return DetectionScores(
        count=len(true),
        ap50=mean(one.ap50 for one in classes),
        ap50_interval=interval_of(mean_of_said(np.stack(drawn))) if drawn else None,
        ap=mean(one.ap for one in classes),
        classes=classes,
        froc=_froc(matched, len(true)),
    )


def choose_score(
    num_classes: int, found: Sequence[Boxes], true: Sequence[Boxes], patients: NDArray[np.int32], rule: Rule
) -> OperatingPoint:
    """The score from which on boxes are shown, one for all classes; on validation patients. Shapes: found and true (N,), patients (N,).

    Guarantees: `sensitivity` and `precision` are those of the boxes whose score reaches `threshold`, at IoU 0.5.
    Raises: PlanValue for a rule about what is not there, or a sensitivity that no score reaches; TooFewPatients, with fewer than five
    boxes.
    """
    if rule.aim not in ("f1", "sensitivity"):
        raise PlanValue(f"the rule '{rule}' counts boxes that are not there, which nobody can count.", fix="Use f1, or sensitivity=0.8.")
    scores, right, support = _all_classes([_match(found, true, c) for c in range(num_classes)])
    if support < FEWEST_OF_EACH:
        raise TooFewPatients(f"validation: {support} true boxes; a threshold needs {FEWEST_OF_EACH}.", fix="Give more validation patients.")
    stops = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    hits, shown = np.cumsum(right)[stops], stops + 1
    if rule.aim == "f1":
        best = int(np.argmax(2 * hits / (shown + support))) if len(stops) else -1
    else:
        enough = np.flatnonzero(hits >= (rule.least or 0) * support)
        best = int(enough[0]) if len(enough) else -1
    if best < 0:
        most = 0.0 if not len(hits) else hits[-1] / support
        raise PlanValue(f"the model finds {most:.0%} of the boxes at any score, which is not {rule}.", fix="Ask for less: --threshold f1.")
    upper = scores[stops].astype(np.float32)
    return OperatingPoint(
        threshold=float(between(upper, np.append(upper[1:], np.float32(0)))[best]),
        rule=str(rule),
        sensitivity=float(hits[best] / support),
        specificity=None,
        precision=float(hits[best] / shown[best]),
        patients=len(np.unique(patients)),
    )


def _all_classes(matched: Sequence[_Matched]) -> tuple[NDArray[np.float64], NDArray[np.bool_], int]:
    """Scores (D,) from the surest on, which boxes are right at IoU 0.5, and how many are to be found."""
    scores = np.concatenate([one.scores for one in matched])
    surest = np.argsort(-scores, kind="stable")
    return scores[surest], np.concatenate([one.right[0] for one in matched])[surest], sum(int(one.true_in_image.sum()) for one in matched)


def iou(boxes: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Area in both over area in either. Shapes: (D, 4), (G, 4) -> (D, G); 0 for boxes without an area.

    >>> iou(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2], [5, 5, 6, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    a, b = boxes.astype(np.float64)[:, None, :], others.astype(np.float64)[None, :, :]
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    both = sides.prod(axis=-1)
    either = np.clip(a[..., 2:] - a[..., :2], 0, None).prod(axis=-1) + np.clip(b[..., 2:] - b[..., :2], 0, None).prod(axis=-1) - both
    share: NDArray[np.float64] = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return share


def average_precision(matched: _Matched, weights: NDArray[np.float64], *, levels: int = len(IOU_LEVELS)) -> NDArray[np.float64]:
    """AP at the first levels of IoU for each row of images' weights. Shapes: weights (R, N) -> (L, R); NaN where no box is true."""
    whole = weights @ matched.true_in_image
    each = weights[:, matched.image]
    found = np.full((levels, len(weights)), np.nan)
    for level in range(levels):
        right, wrong = np.cumsum(each * matched.right[level], axis=1), np.cumsum(each * ~matched.right[level], axis=1)
        drawn = right + wrong
        precision = np.divide(right, drawn, out=np.zeros_like(right), where=drawn > 0)
        best = np.append(np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1], np.zeros((len(weights), 1)), axis=1)
        for row in np.flatnonzero(whole > 0):
            places = np.searchsorted(right[row] / whole[row], RECALLS, side="left")
            found[level, row] = best[row, places].mean()
    return found


def _match(found: Sequence[Boxes], true: Sequence[Boxes], kind: int) -> _Matched:
    images, scores, rights = [np.zeros(0, dtype=np.int64)], [np.zeros(0)], [np.zeros((len(IOU_LEVELS), 0), dtype=bool)]
    true_in_image = np.zeros(len(true), dtype=np.int64)
    for number, (ours, theirs) in enumerate(zip(found, true, strict=True)):
        assert ours.scores is not None
        mine, wanted = ours.classes == kind, theirs.corners[theirs.classes == kind]
        true_in_image[number] = len(wanted)
        order = np.argsort(-ours.scores[mine], kind="stable")[:MOST_BOXES]
        rights.append(_match_image(iou(ours.corners[mine][order], wanted)))
        scores.append(ours.scores[mine][order].astype(np.float64))
        images.append(np.full(len(order), number, dtype=np.int64))
    surest = np.argsort(-np.concatenate(scores), kind="stable")
    return _Matched(
        image=np.concatenate(images)[surest],
        scores=np.concatenate(scores)[surest],
        right=np.concatenate(rights, axis=1)[:, surest],
        true_in_image=true_in_image,
    )


def _match_image(overlaps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes, surest first, find a true one that no surer box has taken. Shapes: (D, G) -> (L, D)."""
    right = np.zeros((len(IOU_LEVELS), len(overlaps)), dtype=bool)
    if not overlaps.shape[1]:
        return right
    for level, least in enumerate(IOU_LEVELS):
        free = np.ones(overlaps.shape[1], dtype=bool)
        for place, row in enumerate(overlaps):
            open_to_it = np.where(free, row, -1.0)
            # The last of equals, as pycocotools takes it.
            best = len(row) - 1 - int(np.argmax(open_to_it[::-1]))
            if open_to_it[best] >= least:
                right[level, place], free[best] = True, False
    return right


def _image_weights(patients: NDArray[np.int32] | None, *, resamples: int, seed: int) -> NDArray[np.float64] | None:
    """How often each image counts in each resample of patients, (R, N)."""
    if patients is None:
        return None
    unique, owner = np.unique(patients, return_inverse=True)
    return resampled(len(unique), resamples=resamples, seed=seed)[:, owner]


def _of_class(name: str, matched: _Matched, aps: NDArray[np.float64], again: NDArray[np.float64] | None, threshold: float) -> BoxScores:
    support = int(matched.true_in_image.sum())
    drawn = matched.scores >= threshold
    right = int((matched.right[0] & drawn).sum())
    return BoxScores(
        name=name,
        ap50=float(aps[0]) if support else None,
        ap=float(aps.mean()) if support else None,
        ap50_interval=None if again is None else interval_of(again),
        precision=ratio(right, int(drawn.sum())),
        recall=ratio(right, support),
        f1=ratio(2 * right, int(drawn.sum()) + support),
        support=support,
    )


def _froc(matched: Sequence[_Matched], images: int) -> tuple[FrocPoint, ...]:
    scores, right, support = _all_classes(matched)
    if not support:
        return ()
    hits, false = np.append(0, np.cumsum(right)), np.append(0, np.cumsum(~right))
    # No threshold tells equal scores apart: only the last of them is a place to stop.
    stops = np.append(True, np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    return tuple(
        FrocPoint(false_per_image=allowed, sensitivity=int(hits[stops & (false <= allowed * images)].max()) / support)
        for allowed in FALSE_PER_IMAGE
    )

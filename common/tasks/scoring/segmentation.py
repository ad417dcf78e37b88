# SPDX-License-Identifier: Apache-2.0
"""How well areas are found: overlap of each class, over patients, and how far apart the edges are at worst.

    Dice = 2 |A and B| / (|A| + |B|)        IoU = |A and B| / |A or B|        Dice = 2 IoU / (1 + IoU)

A batch of masks becomes counts of pixels at once (`overlap_of`), so a hold-out of any size is scored in the memory of one batch. Pixels of
all images of a patient are counted together, as those of a volume would be; then every patient counts alike, whatever the size of the
organ. A class that neither the truth nor the model sees in a patient says nothing of that patient; one that only one of them sees is a 0.
The headline is over the classes but for the first, the background, which is large, easy, and would flatter.

Edges (Hausdorff 1914, at the 95th percentile, as usual since single pixels stray) are compared image by image where both see the class, and
a patient has the mean over such images; how often only one sees it is counted beside, since a model that finds nothing must not look exact.

    N  images      H, W  pixels      C  classes, the first one background      M  patients
"""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.tasks.bootstrap import Interval, interval_of, mean_by_weight, mean_of_said, resampled
from common.tasks.scoring.edges import hausdorff
from common.tasks.scoring.headline import Headline

Number = TypeVar("Number", np.int64, np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Overlap:
    """Pixels of each class in each image: in both masks, in the model's, in the truth; (N, C) int64 each.

    `apart`: how far the two edges are from each other, (N, C); NaN, unless both see the class.
    """

    both: NDArray[np.int64]
    said: NDArray[np.int64]
    true: NDArray[np.int64]
    apart: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaScores:
    """One class. Means over the `patients` in whom the truth or the model sees it; `pooled_dice` is of all pixels together.

    `missed` and `invented`: in how many patients only the truth sees it, and only the model. `edges_apart`: Hausdorff's distance at 95 %,
    over the patients of whom both see it in one image; None of the background, and in scores that an earlier version wrote.
    """

    name: str
    dice: float | None
    iou: float | None
    dice_interval: Interval | None
    pooled_dice: float | None
    patients: int
    missed: int
    invented: int
    edges_apart: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationScores:
    """`dice` and `iou` are means over the classes but for the background; `count` is of patients, or of images where they are not known.

    `in_mm`: edges are apart by millimetres, not by pixels.
    """

    count: int
    dice: float | None
    iou: float | None
    dice_interval: Interval | None
    classes: tuple[AreaScores, ...]
    in_mm: bool = False

    @property
    def headline(self) -> Headline:
        return Headline(name="Dice", value=self.dice, interval=self.dice_interval)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and None, ready for JSON."""
        return asdict(self)


def overlap_of(said: NDArray[np.integer], true: NDArray[np.integer], *, num_classes: int, spacing_mm: float | None = None) -> Overlap:
    """Count the pixels of a batch, and measure its edges. Shapes: said and true (N, H, W) of classes 0 to C - 1."""
    return Overlap(
        both=_counts(np.where(said == true, said, num_classes), num_classes),
        said=_counts(said, num_classes),
        true=_counts(true, num_classes),
        apart=_edges_apart(said, true, num_classes, spacing_mm),
    )


def joined(parts: Sequence[Overlap]) -> Overlap:
    """The counts of several batches as one; there is at least one."""
    return Overlap(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("both", "said", "true", "apart")))


def score_areas(
    names: Sequence[str],
    overlap: Overlap,
    patients: NDArray[np.int32] | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
    in_mm: bool = False,
) -> SegmentationScores:
    """Judge masks from their counts. Shapes: patients (N,). Without patients every image stands for itself, and there is no interval."""
    apart = _mean_by_patient(overlap.apart, patients)
    both, said, true = (_by_patient(counts, patients) for counts in (overlap.both, overlap.said, overlap.true))
    dice = _share(2 * both, said + true)
    iou = _share(both, said + true - both)
    weights = resampled(len(both), resamples=0 if patients is None else resamples, seed=seed)
    means = np.stack([mean_by_weight(dice[:, c], weights) for c in range(len(names))])
    classes = tuple(
        AreaScores(
            name=name,
            dice=_mean(dice[:, c]),
            iou=_mean(iou[:, c]),
            dice_interval=interval_of(means[c]),
            pooled_dice=_mean(_share(2 * both[:, [c]].sum(axis=0), (said + true)[:, [c]].sum(axis=0))),
            patients=int((~np.isnan(dice[:, c])).sum()),
            missed=int(((true[:, c] > 0) & (said[:, c] == 0)).sum()),
            invented=int(((said[:, c] > 0) & (true[:, c] == 0)).sum()),
            edges_apart=_mean(apart[:, c]),
        )
        for c, name in enumerate(names)
    )
    return SegmentationScores(
        count=len(both),
        dice=_mean(np.array([one.dice for one in classes[1:]], dtype=np.float64)),
        iou=_mean(np.array([one.iou for one in classes[1:]], dtype=np.float64)),
        dice_interval=interval_of(mean_of_said(means[1:])),
        classes=classes,
        in_mm=in_mm,
    )


def _counts(classes: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """How often each class occurs in each image, (N, C); numbers from C on are not counted."""
    images = classes.reshape(len(classes), -1)
    offsets = np.arange(len(images), dtype=np.int64)[:, None] * (num_classes + 1)
    counted = np.bincount((images.astype(np.int64) + offsets).ravel(), minlength=len(images) * (num_classes + 1))
    return counted.reshape(len(images), num_classes + 1)[:, :num_classes]


def _edges_apart(said: NDArray[np.integer], true: NDArray[np.integer], num_classes: int, spacing_mm: float | None) -> NDArray[np.float64]:
    """(N, C); NaN where not both see the class, and of the background, whose edge is everybody's."""
    apart = np.full((len(said), num_classes), np.nan)
    spacing = None if spacing_mm is None else (spacing_mm, spacing_mm)
    for n, c in itertools.product(range(len(said)), range(1, num_classes)):
        distance = hausdorff(said[n] == c, true[n] == c, spacing_mm=spacing)
        apart[n, c] = np.nan if distance is None else distance
    return apart


def _mean_by_patient(values: NDArray[np.float64], patients: NDArray[np.int32] | None) -> NDArray[np.float64]:
    """Means of what is known."""
    known = ~np.isnan(values)
    return _share(_by_patient(np.where(known, values, 0), patients), _by_patient(known.astype(np.int64), patients))


def _by_patient(counts: NDArray[Number], patients: NDArray[np.int32] | None) -> NDArray[Number]:
    if patients is None:
        return counts
    unique, owner = np.unique(patients, return_inverse=True)
    sums = np.zeros((len(unique), counts.shape[1]), dtype=counts.dtype)
    np.add.at(sums, owner, counts)
    return sums


def _share(part: NDArray[Number], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    share: NDArray[np.float64] = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return share


def _mean(values: NDArray[np.float64]) -> float | None:
    said = values[~np.isnan(values)]
    return float(said.mean()) if len(said) else None

# SPDX-License-Identifier: Apache-2.0
"""The figures of every task but classification as tables: what is read first, then a row for each class, finding or rate.

Classification has curves and a confusion matrix and its own part of the page; the other tasks have figures of their own kinds, and one
shape of table for all of them. A cell is a number as it is to be read, so that a page and a terminal need not know what it counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from common.tasks.bootstrap import Interval
from common.tasks.scoring.detection import DetectionScores
from common.tasks.scoring.multilabel import MultiLabelScores
from common.tasks.scoring.restoration import RestorationScores
from common.tasks.scoring.segmentation import SegmentationScores
from simulations.report import numbers

OtherScores = MultiLabelScores | SegmentationScores | DetectionScores | RestorationScores


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A score with its 95 % interval, each None where it is not defined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


NOT_SAID = Estimate()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A figure with its name, and what it says in a few words."""

    label: str
    found: Estimate
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A table: a caption, headings, and rows of as many cells. The first column is of names."""

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tabled:
    """What is read first, and the tables under it."""

    first: tuple[Reading, ...]
    tables: tuple[Rows, ...] = ()


def estimate_of(value: float | None, interval: Interval | None) -> Estimate:
    """A value and its interval in one."""
    return Estimate(value=value) if interval is None else Estimate(value=value, low=interval.low, high=interval.high)


def tabled(found: OtherScores) -> Tabled:
    """The scores of one model as tables."""
    match found:
        case MultiLabelScores():
            return _findings(found)
        case SegmentationScores():
            return _areas(found)
        case DetectionScores():
            return _boxes(found)
        case RestorationScores():
            return _images(found)


def _findings(found: MultiLabelScores) -> Tabled:
    macro = found.averages.macro.f1
    first = (
        _reading("AUC, mean over findings", found.auc, "with and without a finding, told apart", found.auc_interval),
        _reading("F1, mean over findings", macro, "every finding counts alike, however rare"),
        _reading("All right", found.exact, "patients with every finding right, of those of whom all are known"),
        _reading("Single answers wrong", found.hamming, "of all answers whose truth is known"),
    )
    rows = [
        (
            one.name,
            *_cells(one.auc, one.average_precision, one.precision, one.recall, one.specificity, one.f1),
            numbers.count(one.support),
            numbers.count(known),
        )
        for one, known in zip(found.findings, found.known, strict=True)
    ]
    headings = ("Finding", "AUC", "Average precision", "Precision", "Recall", "Specificity", "F1", "With it", "Known of")
    return Tabled(first=first, tables=(_rows("Each finding by itself, where it is known.", headings, rows),))


def _areas(found: SegmentationScores) -> Tabled:
    first = (
        _reading("Dice", found.dice, "twice the overlap over both areas; mean over classes but the background", found.dice_interval),
        _reading("IoU", found.iou, "overlap over the area in either"),
    )
    rows = [
        (
            one.name,
            numbers.ratio(one.dice),
            _span(one.dice_interval),
            *_cells(one.iou, one.pooled_dice),
            numbers.decimals(one.edges_apart, 1),
            *(numbers.count(number) for number in (one.patients, one.missed, one.invented)),
        )
        for one in found.classes
    ]
    edges = f"Edges apart ({'mm' if found.in_mm else 'pixels'})"
    headings = ("Class", "Dice", "95 %", "IoU", "Dice of all pixels", edges, "Patients with it", "Missed in", "Invented in")
    caption = (
        "Each class, over the patients in whom the truth or the model sees it; the first is the background and counts in no mean. "
        "Edges: Hausdorff's distance at 95 %, where both see it."
    )
    return Tabled(first=first, tables=(_rows(caption, headings, rows),))


def _boxes(found: DetectionScores) -> Tabled:
    first = (
        _reading("AP50", found.ap50, "average precision of boxes that overlap a true one by half", found.ap50_interval),
        _reading("mAP", found.ap, "the same, mean over overlaps of 0.50 to 0.95"),
    )
    rows = [
        (
            one.name,
            numbers.ratio(one.ap50),
            _span(one.ap50_interval),
            *_cells(one.ap, one.precision, one.recall, one.f1),
            numbers.count(one.support),
        )
        for one in found.classes
    ]
    caption = "Each class; precision, recall and F1 of boxes with a score of at least one half."
    tables = [_rows(caption, ("Class", "AP50", "95 %", "AP", "Precision", "Recall", "F1", "True boxes"), rows)]
    if found.froc:
        rates = [(f"{point.false_per_image:g}", numbers.ratio(point.sensitivity)) for point in found.froc]
        tables.append(_rows("How many are found where so many false boxes an image are drawn.", ("False boxes an image", "Found"), rates))
    return Tabled(first=first, tables=tuple(tables))


def _images(found: RestorationScores) -> Tabled:
    first = (
        _reading("PSNR, dB", found.psnr, "how near grey values are to the true ones", found.psnr_interval),
        _reading("PSNR gained, dB", found.psnr_gain, "over the image as it was before", found.psnr_gain_interval),
        _reading("SSIM", found.ssim, "how alike structures are; 1 is equal", found.ssim_interval),
    )
    rows = [
        ("as it was", *_cells(found.psnr_before, found.ssim_before)),
        ("restored", *_cells(found.psnr, found.ssim)),
    ]
    return Tabled(first=first, tables=(_rows("Before and after.", ("Image", "PSNR, dB", "SSIM"), rows),))


def _reading(label: str, value: float | None, meaning: str, interval: Interval | None = None) -> Reading:
    return Reading(label=label, found=estimate_of(value, interval), meaning=meaning)


def _rows(caption: str, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Rows:
    return Rows(caption=caption, headings=headings, rows=tuple(rows))


def _cells(*values: float | None) -> tuple[str, ...]:
    return tuple(map(numbers.ratio, values))


def _span(found: Interval | None) -> str:
    return numbers.NOTHING if found is None else f"{numbers.ratio(found.low)} to {numbers.ratio(found.high)}"

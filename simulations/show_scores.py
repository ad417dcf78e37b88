# SPDX-License-Identifier: Apache-2.0
"""What `fedward evaluate` prints for people: the first figures, each class, averages, what was said of whom, and groups."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from common.tasks import LevelScores, Scores
from simulations.evaluation import Answer
from simulations.report import numbers
from simulations.report.scores import ModelScores, model_scores
from simulations.report.tabled import Estimate, Rows

_CONFUSION_SHOWN = 8


def score_tables(answer: Answer) -> Iterator[Table | Text]:
    """Tables from the most to the least important, with a line between them."""
    scores = answer.scores
    found = model_scores(scores)
    yield _first(answer, found)
    if isinstance(scores, Scores):
        yield from _of_classes(scores.patients or scores.images)
    elif found.tabled is not None:
        yield from map(_rows, found.tabled.tables)
    if any(one.chosen for one in answer.thresholds) and len(answer.thresholds) > 1:
        yield _thresholds(answer)
    if answer.groups is not None:
        yield _groups(answer)


def _first(answer: Answer, found: ModelScores) -> Table:
    table = _table(f"{found.count} {found.unit}s, {answer.intake['used']} of {answer.intake['seen']} files used", "figure", "value", "95 %")
    if found.tabled is None:
        for label, estimate in (
            (found.measure, found.headline),
            ("balanced accuracy", found.balanced_accuracy),
            ("accuracy", found.accuracy),
        ):
            table.add_row(label, numbers.ratio(estimate.value), _interval(estimate))
    for reading in found.further if found.tabled is None else found.tabled.first:
        table.add_row(reading.label, numbers.ratio(reading.found.value), _interval(reading.found))
    if len(answer.thresholds) == 1:
        (one,) = answer.thresholds
        whence = "the plan's" if one.chosen is None else f"{one.chosen.rule}, on {one.chosen.patients} validation patients"
        table.caption = f"threshold {one.value:.3g} ({whence})"
    return table


def _thresholds(answer: Answer) -> Table:
    table = _table("from which probability on a finding is called", "finding", "threshold", "from", "sensitivity", "specificity")
    table.caption = "sensitivity and specificity are those of the validation patients"
    for one in answer.thresholds:
        did = (None, None) if one.chosen is None else (one.chosen.sensitivity, one.chosen.specificity)
        whence = "the plan's" if one.chosen is None else f"{one.chosen.rule}, {one.chosen.patients} patients"
        table.add_row(one.name, f"{one.value:.3g}", whence, *map(numbers.ratio, did))
    return table


def _of_classes(level: LevelScores) -> Iterator[Table | Text]:
    yield _classes(level)
    if len(level.classes) <= _CONFUSION_SHOWN:
        yield _confusion(level)
    if level.calibration is not None:
        found = level.calibration
        yield Text(
            f"calibration: off by {numbers.ratio(found.ece)} on average, {numbers.ratio(found.largest_gap)} at most; "
            f"slope {numbers.decimals(found.slope, 2)}, shift {numbers.decimals(found.intercept, 2)}"
        )


def _rows(found: Rows) -> Table:
    table = _table(found.caption, *found.headings)
    for row in found.rows:
        table.add_row(*row)
    return table


def _classes(level: LevelScores) -> Table:
    table = _table("each class against the rest", "class", "AUC", "precision", "recall", "specificity", "F1", "support")
    for row in level.classes:
        cells = (row.auc, row.precision, row.recall, row.specificity, row.f1)
        table.add_row(row.name, *map(numbers.ratio, cells), str(row.support))
    if level.averages is not None:
        table.add_section()
        for name in ("macro", "weighted", "micro"):
            average = getattr(level.averages, name)
            precision, recall, f1 = map(numbers.ratio, (average.precision, average.recall, average.f1))
            table.add_row(f"{name} average", "", precision, recall, "", f1, "", style="dim")
    return table


def _confusion(level: LevelScores) -> Table:
    table = _table("what it said of whom", "", *(f"said {one.name}" for one in level.classes))
    for one, row in zip(level.classes, level.confusion, strict=True):
        table.add_row(f"is {one.name}", *map(str, row))
    return table


def _groups(answer: Answer) -> Table:
    assert answer.groups is not None
    whole = model_scores(answer.scores)
    more = ("balanced accuracy", "95 %") if whole.tabled is None else ()
    table = _table(f"by {answer.by}", f"{answer.by}", "patients", whole.measure, "95 %", *more)
    for group in answer.groups.shown:
        found = model_scores(group.scores)
        estimates = (found.headline, found.balanced_accuracy) if more else (found.headline,)
        table.add_row(group.name, str(group.patients), *(cell for one in estimates for cell in (numbers.ratio(one.value), _interval(one))))
    if answer.groups.hidden:
        table.caption = f"{answer.groups.hidden} not shown: fewer than ten patients, or left out so that those cannot be had by subtracting"
    return table


def _interval(found: Estimate) -> str:
    return "" if found.low is None or found.high is None else f"{found.low:.3f} to {found.high:.3f}"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right")
    return table

# SPDX-License-Identifier: Apache-2.0
"""EVAL: how the model does on the sites' validation patients, whom nobody trains on.

One unit, one cell: what it is, and what the model says of it (the mean probability over its images). Cells are disjoint, so one unit more
or less moves the sum by exactly 1; cumulative counts, from which a ROC curve would be read directly, would move it by the square root of
their number.

    two classes    (class, bin of the second one's probability)
    more           (class, class decided on): the confusion matrix

Bins are equal steps of log-odds, eight in all, around those of the threshold: privately trained models are seldom sure of anything, and of
equal steps of probability they would fill two or three. What one bin holds is not told apart: of pairs, one patient of each class, those
within a bin count half for the area under the curve. A model that orders patients within a bin no worse than by chance does better than
that, by at most half the share of such pairs; so the interval reaches up by as much, and a model all of whose patients are in one bin has
an area of 0.5 with an interval up to 1.

Negative counts are left in, since noise that is even pulls no figure to one side; so products of two rows, as in the area, are right on
average. Of too few patients beside the noise nothing is said.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from common.counting.form import Counted, Form, Steps, grid_of
from common.counting.intervals import Estimate, Figure, Table, estimate, played_again
from common.plan import Plan
from common.privacy import evaluation_charge
from common.secagg.terms import Kind

_LOG_ODDS = 8.0
_SAYABLE = 3.0
"""Standard deviations of noise by which a number of patients must be above nothing before anything is divided by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFigures:
    """What the noised counts say, each None where they do not.

    `units` is how many were judged. `recall` of each class in the plan's order: of two, the first is the specificity and the second the
    sensitivity at the plan's threshold. `auc` and `tied`, the share of pairs that bins do not tell apart, are of two classes only.
    """

    units: float
    noise_sd: float
    num_sites: int
    auc: Estimate | None
    tied: Estimate | None
    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    recall: tuple[Estimate | None, ...]


def form(plan: Plan) -> Form:
    """Raises: EpsilonImpossible."""
    classes = plan.classification.classes
    said = [f"{low:g} to {high:g}" for low, high in pairwise(edges(plan))] if len(classes) == 2 else list(classes)
    cells = tuple(f"{true}: {column}" for true in classes for column in said)
    return Form(
        kind=Kind.EVAL,
        rounds=plan.evaluation_rounds,
        cells=cells,
        norm_squared=1.0,
        charge=evaluation_charge(plan),
        grid=grid_of(plan),
    )


def edges(plan: Plan) -> tuple[float, ...]:
    """Where bins of the second class's probability begin and end; the middle edge is the threshold.

    Equal log-odds apart: logit(p_k) = logit(threshold) + (k - bins // 2) * 8 / bins, but for the ends.
    """
    assert plan.evaluation is not None
    bins, threshold = plan.evaluation.bins, plan.classification.threshold
    middle, centre = bins // 2, math.log(threshold / (1 - threshold))
    between = [1 / (1 + math.exp(-centre - (edge - middle) * _LOG_ODDS / bins)) for edge in range(1, bins)]
    between[middle - 1] = threshold
    return (0.0, *between, 1.0)


def count(plan: Plan, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> Steps:
    """The sum of the forms of these units, without noise. Shapes: probabilities (U, C), labels (U,), result (cells,), in steps."""
    filled = form(plan)
    if len(plan.classification.classes) == 2:
        columns = len(edges(plan)) - 1
        said = np.searchsorted(np.array(edges(plan)[1:-1], dtype=np.float32), probabilities[:, 1], side="right")
    else:
        columns, said = len(plan.classification.classes), probabilities.argmax(axis=1)
    return np.bincount(labels * columns + said, minlength=len(filled.cells)).astype(np.int64) * filled.steps


def figures(plan: Plan, counted: Counted) -> EvaluationFigures:
    """What a noised sum says of the model. The same sum gives the same figures."""
    table = counted.values.reshape(len(plan.classification.classes), -1)
    again = played_again(table, counted.noise_sd, patients=True)
    decided = _decided(plan)

    def area() -> Estimate | None:
        found, furthest = said(_auc, of=table), said(lambda t: _auc(t) + _tied(t) / 2, of=table)
        return replace(found, high=furthest.high) if found and furthest else None

    def said(figure: Figure, *, of: Table) -> Estimate | None:
        """A figure that divides by the rows of `of`."""
        return estimate(figure, table, again, most=1.0) if (of.sum(axis=1) >= _least(of.shape[1], counted.noise_sd)).all() else None

    def recall(row: int) -> Estimate | None:
        return said(lambda t: _recalls(t @ decided)[..., row], of=table[row : row + 1])

    return EvaluationFigures(
        units=max(0.0, float(table.sum())),
        noise_sd=counted.noise_sd,
        num_sites=counted.num_sites,
        auc=area() if len(table) == 2 else None,
        tied=said(_tied, of=table) if len(table) == 2 else None,
        accuracy=said(lambda t: _accuracy(t @ decided), of=table.reshape(1, -1)),
        balanced_accuracy=said(lambda t: np.asarray(_recalls(t @ decided).mean(axis=-1)), of=table),
        recall=tuple(map(recall, range(len(table)))),
    )


def worth(plan: Plan, counted: Counted) -> float | None:
    """What models of one plan are compared by: the area under the curve with two classes, balanced accuracy with more.

    It is the figure that is shown, between 0 and 1; None where the counts do not say it.
    """
    table = counted.values.reshape(len(plan.classification.classes), -1)
    if (table.sum(axis=1) < _least(table.shape[1], counted.noise_sd)).any():
        return None
    found = float(_auc(table) if len(table) == 2 else _recalls(table @ _decided(plan)).mean())
    return min(1.0, max(0.0, found))


def _least(cells: int, noise_sd: float) -> float:
    """How many units a sum over so many cells must show before anything is divided by it."""
    return max(1.0, _SAYABLE * noise_sd * math.sqrt(cells))


def _decided(plan: Plan) -> Table:
    """From columns to the class decided on, (columns, C)."""
    classes = len(plan.classification.classes)
    if classes > 2:
        return np.eye(classes)
    positive = np.array([low >= plan.classification.threshold for low in edges(plan)[:-1]])
    return np.stack([~positive, positive], axis=1).astype(np.float64)


def _auc(table: Table) -> NDArray[np.float64]:
    negative, positive = table[..., 0, :], table[..., 1, :]
    below = np.cumsum(negative, axis=-1) - negative / 2
    return np.asarray((positive * below).sum(axis=-1) / (positive.sum(axis=-1) * negative.sum(axis=-1)))


def _tied(table: Table) -> NDArray[np.float64]:
    negative, positive = table[..., 0, :], table[..., 1, :]
    return np.asarray((positive * negative).sum(axis=-1) / (positive.sum(axis=-1) * negative.sum(axis=-1)))


def _accuracy(confusion: Table) -> NDArray[np.float64]:
    return np.asarray(np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1)))


def _recalls(confusion: Table) -> NDArray[np.float64]:
    return np.asarray(np.diagonal(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=-1))

# SPDX-License-Identifier: Apache-2.0
"""A trained model with its smallest weights set to zero, and what that costs.

    model -> the largest `keep` of its weights, over all layers together -> the same model with zeros -> scores beside the whole one's

Magnitude pruning (Han et al. 2015, https://arxiv.org/abs/1506.02626, section 3), without training again: that would cost patients' budget,
this is arithmetic on a model that is public already and costs none. Biases and norms are few and stay. What was trained elsewhere and is
frozen is not the model's own, and stays too.

Scores are measured on a folder of labelled images at several levels, so that one sees where a model breaks.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from client.imaging.identity import load_or_create
from common.plan import Plan
from common.tasks.scoring.headline import Headline
from common.update import Layout, Weights
from server.export import export
from simulations.evaluation import Folders, load_model
from simulations.judging import judge

LEVELS: Final = (1.0, 0.8, 0.6, 0.4, 0.2, 0.1)
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One model on the way: which share of the weights is kept, how many numbers are not zero, and how good it is."""

    keep: float
    values: int
    score: Headline


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """The model that was asked for, and all levels that were looked at, the whole model first."""

    plan: Plan
    whole: str
    weights: Weights
    keep: float
    cases: int
    levels: tuple[Level, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and the model's card: figures, and no patient's own."""
        return {
            "from": self.whole,
            "model": self.weights.digest.hex(),
            "keep": self.keep,
            "cases": self.cases,
            "levels": [asdict(level) for level in self.levels],
        }

    def write(self, folder: Path) -> None:
        """As a model of its own, whose card says what it was made from."""
        export(folder, weights=self.weights, plan=self.plan, facts={"pruned": self.as_dict()})


def prune(weights: Weights, keep: float) -> Weights:
    """The same model with only the largest `keep` of its weights, biases and norms aside; of equals the first are kept.

    Guarantees: exactly round(keep * n) of n weights are left as they are, all others are 0.
    """
    may_go = _may_go(weights.layout)
    order = np.argsort(-np.abs(weights.values[may_go]), kind="stable")
    gone = np.flatnonzero(may_go)[order[round(keep * order.size) :]]
    values = weights.values.copy()
    values[gone] = 0
    return replace(weights, values=values)


def prune_folder(model: Path, data: Path, keep: float, *, resamples: int, workers: int, progress: Progress) -> Pruned:
    """Prune a saved model and judge it at several levels. Raises: what `load_model` and the intake raise."""
    weights, plan = load_model(model)
    levels = sorted({*LEVELS, keep}, reverse=True)
    with tempfile.TemporaryDirectory(prefix="fedward-") as scratch:
        secret = load_or_create(Path(scratch) / "patient.key")
        opened, _ = Folders(Path(scratch), secret, plan, workers, progress).open(data, "reading images")
        found, pruned = [], weights
        for number, level in enumerate(levels, start=1):
            smaller = prune(weights, level)
            pruned = smaller if level == keep else pruned
            score = judge(smaller, opened, plan, resamples=resamples).headline
            found.append(Level(keep=level, values=int(np.count_nonzero(smaller.values)), score=score))
            progress("scoring", number, len(levels))
        return Pruned(
            plan=plan,
            whole=weights.digest.hex(),
            weights=pruned,
            keep=keep,
            cases=len(opened),
            levels=tuple(found),
        )


def rows(levels: Sequence[Level]) -> list[tuple[str, str, str, str]]:
    """Share kept, numbers left, score with its interval, and what was lost, for people to read."""
    best = levels[0].score.value
    return [(f"{level.keep:.0%}", f"{level.values:,}", _said(level.score), _lost(best, level.score.value)) for level in levels]


def _may_go(layout: Layout) -> NDArray[np.bool_]:
    """Which values of the flat vector are weights of a layer: those of tensors with two axes or more."""
    return np.concatenate([np.full(math.prod(shape), len(shape) > 1) for shape in layout.shapes])


def _said(score: Headline) -> str:
    if score.value is None:
        return "cannot be said"
    return f"{score.value:.3f}" + (f" ({score.interval.low:.3f} to {score.interval.high:.3f})" if score.interval else "")


def _lost(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{after - before:+.3f}"

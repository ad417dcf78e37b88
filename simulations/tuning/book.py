# SPDX-License-Identifier: Apache-2.0
"""Scores as they become known, one line each; a search that was killed reads here what it need not do again.

    {"trial": 3, "fold": 0, "round": 9, "value": 0.81, "low": 0.74, "high": 0.88, "failure": ""}

A line is written once its federation is safely on the disk, so what is lost with a torn last line is read off that federation again.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from common.durable import write_atomically

SCORES_FILE = "scores.jsonl"
NO_SCORE = "too few patients beside the noise"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How one trial did in one fold after some round; `failure` says why there is no figure."""

    trial: int
    fold: int
    round: int
    value: float | None = None
    low: float | None = None
    high: float | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A trial's score over all folds, None if one fold has none; the interval takes folds as independent of each other."""

    value: float | None
    low: float | None
    high: float | None
    failure: str = ""


class Book:
    """The scores of one search."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / SCORES_FILE
        self._scores: dict[tuple[int, int, int], Score] = {}
        whole, _, torn = self._file.read_text(encoding="utf-8").rpartition("\n") if self._file.exists() else ("", "", "")
        for line in whole.splitlines():
            self._take(Score(**json.loads(line)))
        if torn:
            write_atomically(self._file, (whole + "\n" if whole else "").encode(), fsync=False)

    def note(self, score: Score) -> None:
        """Write one down; what is known already stays as it is."""
        if self._take(score):
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(score)) + "\n")

    def find(self, trial: int, fold: int, number: int) -> Score | None:
        """The score after a round. A trial that failed has it for every later round too."""
        if found := self._scores.get((trial, fold, number)):
            return found
        failed = (score for score in self._scores.values() if (score.trial, score.fold) == (trial, fold) and score.failure)
        return next((score for score in failed if score.value is None and score.round < number and score.failure != NO_SCORE), None)

    def mean(self, trial: int, folds: Iterable[int], number: int) -> Mean | None:
        """Over all folds; None while one is missing."""
        found = [self.find(trial, fold, number) for fold in folds]
        known = [score for score in found if score is not None]
        return mean_of(known) if len(known) == len(found) else None

    def _take(self, score: Score) -> bool:
        place = (score.trial, score.fold, score.round)
        if place in self._scores:
            return False
        self._scores[place] = score
        return True


def mean_of(scores: list[Score]) -> Mean:
    """The mean, with the interval of a mean of independent figures: squares of half-widths add up.

    >>> two = [Score(trial=0, fold=fold, round=1, value=0.8, low=0.7, high=0.86) for fold in (0, 1)]
    >>> found = mean_of(two)
    >>> [round(edge, 3) for edge in (found.value, found.low, found.high)]
    [0.8, 0.729, 0.842]
    """
    if failures := [score.failure for score in scores if score.value is None]:
        return Mean(value=None, low=None, high=None, failure=failures[0])
    value = sum(score.value or 0.0 for score in scores) / len(scores)
    below = math.hypot(*((score.value or 0.0) - (value if score.low is None else score.low) for score in scores)) / len(scores)
    above = math.hypot(*((value if score.high is None else score.high) - (score.value or 0.0) for score in scores)) / len(scores)
    return Mean(value=value, low=value - below, high=value + above)

# SPDX-License-Identifier: Apache-2.0
"""The one number by which a task is judged first, and what every score of a task can be asked.

A task is scored in figures of its own: overlap of areas, boxes found, decibels. What reads scores without knowing the task (a table, a
tuning, a choice of the best round) asks for the headline: a name, a value of which more is better, and its interval over patients.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from common.tasks.bootstrap import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """`value` is None where it cannot be said, `interval` (95 %) also where patients are not known."""

    name: str
    value: float | None
    interval: Interval | None = None


class TaskScores(Protocol):
    """The scores of one model on one data set, for any task."""

    @property
    def headline(self) -> Headline: ...

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and None, ready for JSON."""
        ...

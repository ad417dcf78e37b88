# SPDX-License-Identifier: Apache-2.0
"""What the sites counted together, as the report shows it: noised figures with their intervals, and questions that had no answer.

Everywhere else the report's figures come from the simulator's hold-out, which no federation has. These are what a real one would know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from common.counting import choice
from common.plan import Plan
from simulations.report import numbers

LENIENT = ConfigDict(extra="ignore", allow_inf_nan=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A figure and its 95 % interval; spelled like every score of the page."""

    __pydantic_config__ = LENIENT
    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """An evaluation's figures."""

    __pydantic_config__ = LENIENT
    units: float
    noise_sd: float
    auc: Measured | None = None
    tied: Measured | None = None
    accuracy: Measured | None = None
    balanced_accuracy: Measured | None = None
    recall: tuple[Measured | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The statistic's figures."""

    __pydantic_config__ = LENIENT
    units: Measured
    noise_sd: float
    classes: tuple[Measured, ...] = ()
    mean: Measured | None = None
    std: Measured | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedLine:
    """One line of counted.jsonl: a question, and its answer or the code of why there is none."""

    __pydantic_config__ = LENIENT
    kind: str
    number: Annotated[int, Field(validation_alias="round")]
    sites: tuple[str, ...] = ()
    failure: str | None = None
    evaluation: Judged | None = None
    statistic: Known | None = None

    @property
    def after_round(self) -> int:
        """Whose model was judged."""
        return self.number - 1


def evaluations(lines: Sequence[CountedLine]) -> list[CountedLine]:
    """In the order of rounds; a line that was written twice counts once."""
    found = {line.number: line for line in lines if line.kind == "EVAL"}
    return [found[number] for number in sorted(found)]


def kept(lines: Sequence[CountedLine], plan: Plan | None, *, trained: int) -> int:
    """The round whose model the run gave out."""
    return trained if plan is None else choice.kept(plan, _worths(lines, plan), last=trained)


def choice_in_words(lines: Sequence[CountedLine], plan: Plan | None, *, trained: int) -> str:
    """What the judgements decided; nothing, if that is nothing."""
    if plan is None or plan.evaluation is None:
        return ""
    said = []
    if trained < plan.training.rounds and choice.is_enough(plan, _worths(lines, plan)):
        said.append(f"Training ended after round {trained} of {plan.training.rounds}, since models were judged no better than before.")
    if (number := kept(lines, plan, trained=trained)) != trained:
        said.append(f"The model of round {number} was judged best and is the one that this report is about.")
    return " ".join(said)


def _worths(lines: Sequence[CountedLine], plan: Plan) -> dict[int, float]:
    """As `common.counting.evaluation.worth` has it."""
    judged = {line.after_round: line.evaluation for line in lines if line.evaluation is not None}
    figures = {number: each.auc if len(plan.task.classes) == 2 else each.balanced_accuracy for number, each in judged.items()}
    return {number: each.value for number, each in figures.items() if each is not None and each.value is not None}


def statistic(lines: Sequence[CountedLine]) -> CountedLine | None:
    return next((line for line in lines if line.kind == "STAT"), None)


def words(known: Known, plan: Plan | None) -> str:
    """The statistic in a sentence: '2,014 patients (1,990 to 2,038), of them normal 1,510 (...); mean intensity 0.312 (...)'."""
    unit = "images" if plan is not None and plan.privacy.unit == "record" else "patients"
    said = f"{_about(known.units)} {unit}"
    if plan is not None and len(known.classes) == len(plan.task.classes):
        said += ", of them " + numbers.listed(f"{name} {_about(each)}" for name, each in zip(plan.task.classes, known.classes, strict=True))
    if known.mean is not None and known.std is not None:
        said += f"; mean stored intensity {_ratio(known.mean)}, standard deviation {_ratio(known.std)}"
    return said


def _about(found: Measured) -> str:
    low, value, high = (None if number is None else round(number) for number in (found.low, found.value, found.high))
    return f"{numbers.count(value)} ({numbers.count(low)} to {numbers.count(high)})"


def _ratio(found: Measured) -> str:
    return f"{numbers.ratio(found.value)} ({numbers.ratio(found.low)} to {numbers.ratio(found.high)})"

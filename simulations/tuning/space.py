# SPDX-License-Identifier: Apache-2.0
"""A space: which keys of a plan may vary, between what; and the trials that are drawn from it.

    [tuning]                                          how to search
    [space.training]                                  the plan's own sections and keys
    learning_rate = { log_uniform = [0.003, 0.3] }    each power of ten alike likely
    batch = [16, 32, 64]                              one of these
    [space.model]
    dropout = { uniform = [0.0, 0.5] }
    hidden = { whole = [8, 64] }                      a whole number

Trial 0 is the plan as it is, so that a search never ends below where it began for want of having looked. The others are drawn at random
(Bergstra and Bengio, JMLR 13, 2012: of several keys few matter, and a random search tries more values of each than a grid); where the
space is no larger than the number of trials, all of it is tried. A promise is not for tuning, nor is what the data are or what a prediction
means: keys of those sections are refused.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import tomli_w
from pydantic import Field, TypeAdapter

from common.errors import DataNotFound, PlanConflict, PlanError, PlanUnknownKey, PlanValue
from common.plan import Plan
from common.plan.parse import PLAN, Sections, line_of, read_table, text_of, validate
from common.plan.values import STRICT, Positive

Metric = Literal["auc", "balanced_accuracy", "headline"]
Keys = Mapping[str, Any]
"""A trial's values, by "section.key"."""

_CLOSED: Final = ("plan", "input", "task", "evaluation", "statistics", "simulation")
_OPEN_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "privacy": ("clip_norm", "images_per_patient"),
    "aggregation": ("update_norm",),
}
_CLOSED_KEYS: Final[Mapping[str, tuple[str, ...]]] = {"training": ("seed",)}
_DRAWS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningSpec:
    """[tuning]. `trials`: plans that are tried, the plan itself among them. `eta`: of so many trials one goes on to the next rung.

    smallest_rounds: at least so many rounds before anything is judged. folds: of each site's patients; 1 keeps one part of them for judging
    ([simulation] validation), k trains and judges every trial k times. epsilon: what a private plan may spend on tuning, half of its own
    if unset; evaluation: the part of that which pays for judging. score: "auc" of two classes, "balanced_accuracy" of more, and of what is
    no classification the "headline", its task's first figure; if unset, as that says.
    """

    __pydantic_config__ = STRICT
    trials: Annotated[int, Field(ge=2, le=1000)] = 9
    eta: Annotated[int, Field(ge=2, le=16)] = 3
    smallest_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    folds: Annotated[int, Field(ge=1, le=20)] = 1
    epsilon: Positive | None = None
    evaluation: Annotated[float, Field(gt=0, lt=1)] = 0.5
    score: Metric | None = None
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Between two values, both included: alike likely ("uniform"), each factor alike likely ("log_uniform"), whole numbers ("whole")."""

    kind: Literal["uniform", "log_uniform", "whole"]
    low: float
    high: float


Dimension = Range | tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """How to search, and what; the text as it was written, for messages and for the run folder."""

    tuning: TuningSpec
    dimensions: Mapping[str, Dimension]
    text: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point of the space; number 0 is the plan as it is. `plan` has the base plan's promise, not yet a trial's part of it."""

    number: int
    keys: Keys
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    __pydantic_config__ = STRICT
    tuning: TuningSpec = field(default_factory=TuningSpec)
    space: dict[str, dict[str, Any]]


_FILE: Final[TypeAdapter[_File]] = TypeAdapter(_File)
_SECTIONS: Final[Sections] = {"tuning": (TuningSpec,)}


def load(path: Path) -> Space:
    """Raises: DataNotFound, PlanSyntax, PlanUnknownKey, PlanValue, PlanConflict."""
    if not path.is_file():
        raise DataNotFound(
            f"space file '{path}' does not exist.", fix="Give a .toml file with a [space.training] table; see docs/tuning.md."
        )
    return parse(text_of(path), name=str(path))


def parse(text: str, *, name: str = "space.toml") -> Space:
    """A space's text. Raises: PlanSyntax, PlanUnknownKey, PlanValue, PlanConflict, each with its line."""
    file = validate(_FILE, read_table(text, name=name), text=text, name=name, sections=_SECTIONS)
    dimensions = {
        f"{section}.{key}": _dimension(value, section, key, text, name)
        for section, keys in file.space.items()
        for key, value in keys.items()
    }
    if not dimensions:
        raise PlanConflict(f"{name}: [space] names no key.", fix="Name one, such as [space.training] learning_rate = [0.01, 0.1].")
    return Space(tuning=file.tuning, dimensions=dimensions, text=text, name=name)


def with_tuning(space: Space, tuning: TuningSpec) -> Space:
    """The same keys, searched otherwise; the text says so too."""
    table = read_table(space.text, name=space.name)
    text = tomli_w.dumps({**table, "tuning": {key: value for key, value in asdict(tuning).items() if value is not None}})
    return parse(text, name=space.name)


def draw(space: Space, plan: Plan) -> tuple[Trial, ...]:
    """The trials: the plan itself, then points of the space, all different. Raises: PlanError, where one of them is no plan."""
    own = {key: _own_value(plan, key) for key in space.dimensions}
    found = [Trial(number=0, keys=own, plan=plan)]
    for keys in _points(space, own):
        found.append(Trial(number=len(found), keys=keys, plan=_with_keys(plan, keys, space.name)))
    return tuple(found)


def _points(space: Space, own: Keys) -> Sequence[Keys]:
    """As many as there are trials beside the plan itself, or all that there are."""
    wanted = space.tuning.trials - 1
    lists = [dimension for dimension in space.dimensions.values() if isinstance(dimension, tuple)]
    if len(lists) == len(space.dimensions) and math.prod(map(len, lists)) <= space.tuning.trials:
        points = [dict(zip(space.dimensions, values, strict=True)) for values in itertools.product(*lists)]
        return [point for point in points if point != own][:wanted]
    rng = np.random.default_rng([space.tuning.seed])
    found: list[Keys] = []
    for _ in range(_DRAWS * space.tuning.trials):
        point = {key: _value(dimension, rng) for key, dimension in space.dimensions.items()}
        if len(found) < wanted and point != own and point not in found:
            found.append(point)
    return found


def _value(dimension: Dimension, rng: np.random.Generator) -> Any:
    if isinstance(dimension, tuple):
        return dimension[int(rng.integers(len(dimension)))]
    match dimension.kind:
        case "whole":
            return int(rng.integers(int(dimension.low), int(dimension.high), endpoint=True))
        case "uniform":
            return _rounded(rng.uniform(dimension.low, dimension.high), dimension)
        case "log_uniform":
            return _rounded(math.exp(rng.uniform(math.log(dimension.low), math.log(dimension.high))), dimension)


def _rounded(value: float, dimension: Range) -> float:
    """To three significant digits, inside the range: a plan is read by people."""
    return min(max(float(f"{value:.3g}"), dimension.low), dimension.high)


def _with_keys(plan: Plan, keys: Keys, name: str) -> Plan:
    """The plan with some keys set anew, checked as a whole. Raises: PlanError, naming the values."""
    table = asdict(plan)
    for path, value in keys.items():
        section, key = path.split(".")
        table[section] = {**table[section], key: value}
    try:
        return validate(PLAN, table, text="", name=f"{name}, with {in_words(keys)}")
    except PlanError as error:
        raise type(error)(error.message, fix=f"{error.fix} Or narrow the space, so that every point of it is a plan.") from error


def in_words(keys: Keys) -> str:
    """A trial in a line.

    >>> in_words({"training.learning_rate": 0.1, "model.widths": (8, 16)})
    'learning_rate 0.1, widths 8 16'
    """
    return ", ".join(f"{path.split('.')[-1]} {shown(value)}" for path, value in keys.items())


def shown(value: Any) -> str:
    """One value, short."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(shown, value)) or "-"
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _own_value(plan: Plan, path: str) -> Any:
    """The plan's value as TOML has it. Raises: PlanUnknownKey."""
    section, key = path.split(".")
    found = asdict(plan).get(section)
    if not isinstance(found, dict) or key not in found:
        raise PlanUnknownKey(
            f"[space.{section}] {key}: the plan has no such key.", fix="Name a key of the plan's; fedward plan show lists them."
        )
    value = found[key]
    return list(value) if isinstance(value, tuple) else value


def _dimension(value: Any, section: str, key: str, text: str, name: str) -> Dimension:
    line = line_of(text, ("space", section, key)) or line_of(text, ("space", section))
    where = f"{name}, line {line}: [space.{section}] {key}"
    if section in _CLOSED or key in _CLOSED_KEYS.get(section, ()) or key not in _OPEN_KEYS.get(section, (key,)):
        raise PlanConflict(
            f"{where} is not for tuning: it says what is promised, asked or given.", fix="Remove it; docs/tuning.md has the list."
        )
    if isinstance(value, list) and value:
        return tuple(value)
    if isinstance(value, dict) and len(value) == 1:
        [(kind, ends)] = value.items()
        if kind in ("uniform", "log_uniform", "whole") and _are_ends(ends, kind):
            return Range(kind=kind, low=ends[0], high=ends[1])
    raise PlanValue(
        f"{where}: neither a list of values nor a range with its lower end first.",
        fix="Write [0.01, 0.1], { uniform = [0.0, 0.5] }, { log_uniform = [0.001, 0.1] } or { whole = [8, 64] }.",
    )


def _are_ends(ends: Any, kind: str) -> bool:
    number: type | tuple[type, ...] = int if kind == "whole" else (int, float)
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, number) and not isinstance(end, bool) for end in ends):
        return False
    return bool(all(map(math.isfinite, ends)) and ends[0] < ends[1] and (kind != "log_uniform" or ends[0] > 0))

# SPDX-License-Identifier: Apache-2.0
"""From TOML text to a `Plan`, or to an error that names line, value and fix.

The whole file is checked before anything is raised: the first problem gives the exception its class, the others are listed beneath.
TOML has no positions once parsed, so a line is found again by its section header and key; an inline table is reported at its key.
"""

import dataclasses
import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from common import canonical
from common.errors import DataNotFound, PlanConflict, PlanError, PlanSyntax, PlanUnknownKey, PlanValue
from common.plan import families, inputs, spec, tasks
from common.plan.consistency import broken_rules
from common.plan.shown import unshown
from common.plan.spec import Plan

T = TypeVar("T")

PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)
Sections = Mapping[str, tuple[type, ...]]
PLAN_SECTIONS: Sections = {
    "plan": (spec.Identity,),
    "input": (inputs.InputSpec,),
    "window": (inputs.Window,),
    "second": (inputs.SecondImage,),
    "record": (inputs.RecordField,),
    "text": (inputs.TextSpec,),
    "task": get_args(get_args(tasks.TaskSpec)[0]),
    "model": get_args(get_args(families.ModelSpec)[0]),
    "training": (spec.TrainingSpec,),
    "privacy": (spec.PrivacySpec,),
    "aggregation": (spec.AggregationSpec,),
    "evaluation": (spec.EvaluationSpec,),
    "statistics": (spec.StatisticsSpec,),
    "augmentation": (spec.AugmentationSpec,),
}


_TAGS: Mapping[str, str] = {"task": "kind", "model": "family"}
"""Sections of which there are several types, and the key that says which."""


@dataclass(frozen=True, slots=True)
class _Problem:
    kind: type[PlanError]
    line: int | None
    text: str
    fix: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


def load(path: Path) -> Plan:
    """Read a plan file. Raises: DataNotFound, or what `parse` raises."""
    if not path.is_file():
        raise DataNotFound(f"plan file '{path}' does not exist.", fix="Give the path of a .toml file, or make one: fedward plan new.")
    return parse(text_of(path), name=str(path))


def text_of(path: Path) -> str:
    """A TOML file's text. Raises: PlanSyntax, if it is none, such as an image."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise PlanSyntax(f"{path}: not UTF-8 text.", fix="Give a .toml file.") from error


def parse(text: str, *, name: str = "plan.toml") -> Plan:
    """Turn a plan's text into a `Plan`.

    Raises: PlanSyntax, PlanUnknownKey, PlanValue, PlanConflict; each message begins with `name` and the line.
    """
    table = read_table(text, name=name)
    return validate(PLAN, table, text=text, name=name)


def read_table(text: str, *, name: str) -> dict[str, Any]:
    """TOML text as a table of which all can be shown. Raises: PlanSyntax with the parser's line and column, or PlanValue."""
    try:
        table = tomllib.loads(text)
        json.dumps(table, default=str)  # as it is read on
    except tomllib.TOMLDecodeError as error:
        raise PlanSyntax(f"{name}: not valid TOML: {error}.", fix="Check quotes, brackets and equals signs on that line.") from error
    except (ValueError, RecursionError) as error:
        raise PlanSyntax(
            f"{name}: a number of thousands of digits, or tables within thousands of tables.", fix="Nobody wrote that: get the file anew."
        ) from error
    for path, character in unshown(table):
        where = line_of(text, path) if path else None
        raise PlanValue(
            f"{name}{f', line {where}' if where else ''}: a text holds U+{ord(character):04X}, which is not shown but acted upon.",
            fix="People approve what they read: letters, signs and spaces, in one line.",
        )
    return table


def validate(
    adapter: TypeAdapter[T], table: dict[str, Any], *, text: str, name: str, sections: Sections = PLAN_SECTIONS, quoted: bool = True
) -> T:
    """Check a table against a type, strictly; a `Plan` is also checked for contradictions.

    Misspelt keys are compared with those of `sections`. With `quoted` wrong values are shown: a plan's may be, a hospital's own file's not.
    """
    try:
        # JSON mode: a TOML array becomes a tuple, and still nothing else is converted.
        value = adapter.validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        _refuse([_from_pydantic(detail, text, sections, quoted=quoted) for detail in error.errors()], name)
    if isinstance(value, Plan):
        _refuse([_conflict(rule.where, rule.wrong, rule.fix, text) for rule in broken_rules(value)], name)
    return value


@lru_cache(maxsize=64)
def digest_of(plan: Plan) -> str:
    """SHA-256 over the canonical bytes of all that is not left as it is by default, 64 hex digits: this plan's name in every artefact.

    So a later version that knows another key, and leaves it out by default, has the same name for the same plan: approvals and cards
    outlive an upgrade. The price: a default is never changed once released (docs/decisions/0014-a-plans-name.md).
    """
    return canonical.digest(b"fedward plan 2", canonical.encode(_said(plan))).hex()


def _said(value: Any) -> Any:
    """A dataclass as a mapping, without the fields that have their default."""
    if isinstance(value, tuple):
        return [_said(each) for each in value]
    if not dataclasses.is_dataclass(value):
        return value
    pairs = ((field, getattr(value, field.name)) for field in fields(value))
    return {field.name: _said(given) for field, given in pairs if not _is_default(field, given)}


def _is_default(field: dataclasses.Field[Any], given: Any) -> bool:
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    return default is not dataclasses.MISSING and type(given) is type(default) and bool(given == default)


def to_toml(plan: Plan) -> str:
    """The plan as a file again, every default written out; `parse` gives back an equal plan."""
    return dump(plan)


def dump(value: Any) -> str:
    """A dataclass, or a mapping of section names to dataclasses, as TOML; what is None is left out."""
    table = {name: dataclasses.asdict(item) for name, item in value.items()} if isinstance(value, dict) else dataclasses.asdict(value)
    return tomli_w.dumps(_without_none(table))


def line_of(text: str, location: Sequence[int | str]) -> int | None:
    """The 1-based line of a key such as ("training", "rounds"); of its section if the key is absent; else None."""
    section, found = "", None
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            section = header[1].strip()
            if section == str(location[0]) or section == ".".join(map(str, location)):
                found = number
        elif key := re.match(r"\s*([\w.\"-]+)\s*=", line):
            path = [*filter(None, section.split(".")), *key[1].replace('"', "").split(".")]
            if path == [str(part) for part in location[: len(path)]]:
                return number
    return found


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in table.items() if value is not None}
    return {key: _without_none(value) if isinstance(value, dict) else value for key, value in kept.items()}


def _refuse(problems: list[_Problem], name: str) -> None:
    if not problems:
        return
    # An unknown key is usually the cause of the missing one: say it first.
    first, *others = sorted(problems, key=lambda problem: problem.kind is not PlanUnknownKey)
    further = "".join(f"\n  also {other}. {other.fix}" for other in others)
    raise first.kind(f"{name}, {first}.", fix=first.fix + further) from None


def _conflict(where: tuple[str, str], wrong: str, fix: str, text: str) -> _Problem:
    return _Problem(PlanConflict, line_of(text, where), f"[{where[0]}] {where[1]}: {wrong}", fix)


def _from_pydantic(detail: ErrorDetails, text: str, sections: Sections, *, quoted: bool) -> _Problem:
    where = list(detail["loc"])
    tag = _TAGS.get(str(where[0])) if where else None
    if tag and len(where) > 1:
        del where[1]  # a union member's tag ("cnn") stands in the location but not in the file
    elif tag and detail["type"].startswith("union_tag"):
        where.append(tag)
    keys = [str(part) for part in where if isinstance(part, str)]
    dotted = f"[{keys[0]}] {'.'.join(keys[1:])}".strip() if keys else "the plan"
    line = line_of(text, where) if where else None
    match detail["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            return _Problem(PlanUnknownKey, line, f"{dotted} is not a key that fedward knows", _suggest(keys, sections))
        case "missing" | "missing_argument" | "missing_keyword_only_argument" | "union_tag_not_found":
            return _Problem(PlanValue, line, f"{dotted} is missing", "Add it; `fedward plan new` prints a complete plan.")
    found = "" if isinstance(detail["input"], dict) or not quoted else f", found {detail['input']!r}"
    return _Problem(PlanValue, line, f"{dotted}: {_lower(detail['msg'])}{found}", "Correct the value on this line.")


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _suggest(keys: list[str], sections: Sections) -> str:
    known = _known_keys(sections.get(keys[-2], ())) if len(keys) > 1 else [*sections]
    near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.6)
    if near == [keys[-1]]:
        return f"Remove it: it belongs to another {_TAGS.get(keys[0], 'section')}."
    if near:
        return f"Did you mean '{near[0]}'?"
    return f"Remove it. Known here: {', '.join(sorted(known))}." if known else "Remove it."


def _known_keys(types: Iterable[Any]) -> list[str]:
    return sorted({field.name for kind in types for field in fields(kind)})

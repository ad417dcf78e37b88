# SPDX-License-Identifier: Apache-2.0
"""Cases counted by what their headers say, with the classes beside: how many images and patients there are, and how many a plan would use.

Coded values are shown as they are: a modality, a sex, a band of ages. What people type into a console is shown if it stands in the
images of at least `ENOUGH` patients; the rest is one line, because a text that stands with one patient may be about them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from client.imaging.data_report.facts import Case

ENOUGH: Final = 3
MOST_ROWS: Final = 12
NOT_STATED: Final = "not stated"
BANDS: Final = ((0, 17), (18, 39), (40, 59), (60, 79), (80, 130))
_SEXES: Final = {"F": "female", "M": "male", "O": "other"}
_MODALITY: Final = re.compile(r"[A-Z]{2,8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One value: images in the folder, their patients, images that the plan uses, and these by class."""

    name: str
    images: int
    patients: int
    used: int
    by_class: tuple[int, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the used images with a label, how many are of each class."""
        total = sum(self.by_class)
        return tuple(count / total if total else 0.0 for count in self.by_class)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One question put to all cases."""

    title: str
    lines: tuple[Line, ...]

    @property
    def is_telling(self) -> bool:
        """Whether any header answered."""
        return any(line.name != NOT_STATED for line in self.lines)


def scanner(case: Case) -> str:
    """Manufacturer and model."""
    maker, model = (" ".join(case.about.get(name, "").split()) for name in ("manufacturer", "model"))
    return model if model.casefold().startswith(maker.casefold()) else f"{maker} {model}".strip()


def band(case: Case) -> str:
    """A band of ages."""
    if case.years is None:
        return NOT_STATED
    low, high = next(pair for pair in BANDS if case.years <= pair[1])
    return f"{low} and over" if high == BANDS[-1][1] else f"{low} to {high}"


def sex(case: Case) -> str:
    return _SEXES.get(case.about.get("sex", ""), NOT_STATED)


def modality(case: Case) -> str:
    code = case.about.get("modality", "")
    return code if _MODALITY.fullmatch(code) else NOT_STATED


def of(cases: Sequence[Case], classes: Sequence[str]) -> list[Table]:
    """All tables, those first that the others are read by."""
    questions: list[tuple[str, Callable[[Case], str], bool, Sequence[str]]] = [
        ("Modality", modality, False, ()),
        ("Scanner", scanner, True, ()),
        ("Protocol", lambda case: case.about.get("protocol", ""), True, ()),
        ("Body part", lambda case: case.about.get("body_part", "").casefold(), True, ()),
        ("Age at examination, years", band, False, [f"{low} to {high}" for low, high in BANDS]),
        ("Sex", sex, False, ()),
        ("Size, rows × columns", lambda case: case.about.get("size", ""), True, ()),
    ]
    imaged = [case for case in cases if case.patient]
    tables = [
        Table(title=title, lines=_lines(imaged, value, len(classes), is_free=is_free, order=order))
        for title, value, is_free, order in questions
    ]
    return [table for table in tables if table.is_telling]


def by_class(cases: Sequence[Case], classes: Sequence[str]) -> list[Line]:
    """Images and patients of each class, and of none."""
    imaged = [case for case in cases if case.patient]
    lines = [_line(name, [case for case in imaged if case.label == label], len(classes)) for label, name in enumerate(classes)]
    without = [case for case in imaged if case.label is None]
    return [*lines, *([_line("no label", without, len(classes))] if without else [])]


def _lines(cases: Sequence[Case], value: Callable[[Case], str], classes: int, *, is_free: bool, order: Sequence[str]) -> tuple[Line, ...]:
    found: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        found[value(case).strip() or NOT_STATED].append(case)
    shown: dict[str, list[Case]] = {}
    rest: list[Case] = []
    folded = 0
    for name, group in sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        is_safe = not is_free or name == NOT_STATED or len({case.patient for case in group}) >= ENOUGH
        if is_safe and len(shown) < MOST_ROWS:
            shown[name] = group
        else:
            rest += group
            folded += 1
    lines = [_line(name, group, classes) for name, group in shown.items()]
    if order:
        lines.sort(key=lambda line: order.index(line.name) if line.name in order else len(order) + (line.name == NOT_STATED))
    if rest:
        lines.append(_line(f"{folded} other{'s' if folded > 1 else ''}, rare or with fewer than {ENOUGH} patients", rest, classes))
    return tuple(lines)


def _line(name: str, group: Sequence[Case], classes: int) -> Line:
    counts = Counter(case.label for case in group if case.is_used)
    return Line(
        name=name,
        images=len(group),
        patients=len({case.patient for case in group}),
        used=sum(case.is_used for case in group),
        by_class=tuple(counts[label] for label in range(classes)),
    )

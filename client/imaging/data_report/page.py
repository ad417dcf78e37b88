# SPDX-License-Identifier: Apache-2.0
"""The page of a data report: one HTML file with its drawings inside, no script, and a policy of its own that forbids it to fetch."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from client.imaging.data_report import drawings, remarks, tables
from client.imaging.data_report.drawings import Curve
from client.imaging.data_report.facts import Case, Facts
from client.imaging.labels.agreement import MEANING
from client.imaging.rejection import REMEDY, Reason
from common.durable import OWNER_ONLY, write_atomically

_HERE = Path(__file__).parent
IN_A_ROW: Final = 6
CLASSES_SHOWN: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Curves and what is to be said under them."""

    drawing: Markup
    curves: tuple[Curve, ...]
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """Some images of one class."""

    name: str
    images: tuple[str, ...]


def render(facts: Facts) -> str:
    """The page. Guarantees: no identifier, date, file name or address is in it; the same facts give the same page."""
    classes = facts.classes[:CLASSES_SHOWN]
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"count": lambda number: f"{number:,}", "percent": _percent, "shade": _shade}
    return environment.get_template("page.html.j2").render(
        facts=facts,
        plan=facts.plan,
        report=facts.report,
        findings=facts.findings,
        images=sum(1 for case in facts.cases if case.patient),
        used=sum(case.is_used for case in facts.cases),
        patients=len({case.patient for case in facts.cases if case.patient}),
        used_patients=len({case.patient for case in facts.cases if case.is_used}),
        remarks=remarks.of(facts),
        classes=classes,
        labels=tables.by_class(facts.cases, facts.classes),
        tables=tables.of(facts.cases, classes) if facts.has_headers else [],
        rejected=_rejected(facts),
        lost=sum(count for reason, count in _rejections(facts) if reason is not Reason.LABEL_SOURCE),
        sources=sum(count for reason, count in _rejections(facts) if reason is Reason.LABEL_SOURCE),
        account=facts.report.labels if facts.report else None,
        meaning=MEANING,
        figures=_figures(facts),
        strips=_strips(facts),
        enough=tables.ENOUGH,
    )


def write(facts: Facts, path: Path) -> None:
    """For the owner alone (0600), whole or not at all. Raises: DiskFull."""
    write_atomically(path, render(facts).encode(), fsync=False, mode=OWNER_ONLY)


def _rejected(facts: Facts) -> list[tuple[str, int, str]]:
    return [(reason.value, count, REMEDY[reason]) for reason, count in sorted(_rejections(facts), key=lambda pair: (-pair[1], pair[0]))]


def _rejections(facts: Facts) -> list[tuple[Reason, int]]:
    return [(reason, count) for reason, count in facts.report.rejected.items() if count] if facts.report is not None else []


def _figures(facts: Facts) -> list[Figure]:
    names = facts.classes
    questions: list[tuple[str, str, Callable[[Case], str]]] = [
        ("class", "by-class", lambda case: "" if case.label is None else names[case.label]),
        ("scanner", "by-scanner", tables.scanner),
    ]
    return [figure for by, name, value in questions if (figure := _figure(facts, by, name, value)) is not None]


def _figure(facts: Facts, by: str, name: str, value: Callable[[Case], str]) -> Figure | None:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, case in enumerate(facts.samples.cases):
        rows[value(case)].append(row)
    kept = {
        group: members
        for group, members in rows.items()
        if by == "class" or (group and len({facts.samples.cases[row].patient for row in members}) >= tables.ENOUGH)
    }
    largest = sorted(kept.items(), key=lambda pair: (-len(pair[1]), pair[0]))[: drawings.MOST_CURVES]
    if not largest or (by != "class" and len(largest) < 2):
        return None
    if by == "class":
        largest.sort(key=lambda pair: facts.samples.cases[pair[1][0]].label or 0)
    curves = tuple(drawings.curve(group or "all images", facts.samples.pixels[members]) for group, members in largest)
    drawing = drawings.histogram(curves, name=name, title=f"Intensities of the images by {by}")
    return Figure(drawing=Markup(drawing), curves=curves, by=by)  # noqa: S704 - our own drawing, its words escaped


def _strips(facts: Facts) -> list[Strip]:
    """The first samples of each class: they were chosen of different patients."""
    found: dict[int | None, list[str]] = defaultdict(list)
    for row, case in enumerate(facts.samples.cases):
        if len(found[case.label]) < IN_A_ROW:
            found[case.label].append(drawings.thumbnail(facts.samples.pixels[row]))
    order = sorted(found, key=lambda label: (label is None, label or 0))[: 2 * CLASSES_SHOWN]
    return [Strip(name="" if label is None else facts.classes[label], images=tuple(found[label])) for label in order]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.01 else "< 1 %"


def _shade(share: float) -> str:
    """A pale to full blue on which black text stays readable."""
    return f"rgba(0, 114, 178, {0.04 + 0.36 * share:.2f})"

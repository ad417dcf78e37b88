# SPDX-License-Identifier: Apache-2.0
"""The outlook as one page to read, print and hand on: the report's style, nothing fetched from anywhere, no script."""

from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.durable import write_atomically
from simulations.planner import figures, tables, wording
from simulations.planner.outlook import Outlook
from simulations.report import svg

HERE = Path(__file__).parent
STYLE = HERE.parent / "report" / "report.css"

_WORDS = {
    "spending": (
        "Privacy spent over the rounds",
        "At the hospital where it is highest. Left: what the promise is about. Right: what is left of it against more colluding sites than "
        "the plan assumes; with local noise that is the same.",
    ),
    "trade": (
        "What rounds and batch do to noise",
        "Each point keeps the plan's ε; the filled one is the plan. More rounds need more noise on each step, and give more steps.",
    ),
    "patients": (
        "Patients needed, and patients there are",
        "A bar reaches from the lowest to the highest estimate; lines are the hospitals.",
    ),
    "measured": ("What noise does to learning, on made images", "Bars are 95 % intervals over held-out made patients; one run each."),
}


def render(known: Outlook) -> str:
    """One HTML document. The same outlook gives the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        css=Markup(STYLE.read_text(encoding="utf-8")),  # noqa: S704 - our own style sheet
        plan=known.plan,
        digest=known.forecast.digest,
        version=version("fedward"),
        promise=wording.promise(known.plan),
        alarms=wording.alarms(known.forecast),
        advice=wording.advice(known),
        grids={grid.title: grid for grid in tables.of(known)},
        drawn=_drawings(known),
    )


def write(known: Outlook, path: Path) -> None:
    """Render into a file, whole or not at all. Raises: DiskFull."""
    write_atomically(path, render(known).encode("utf-8"), fsync=False)


def _drawings(known: Outlook) -> dict[str, dict[str, str]]:
    drawings = {"patients": figures.patients(known)}
    if known.others:
        drawings |= {"spending": figures.spending(known), "trade": figures.trade(known)}
    if known.measured is not None:
        drawings["measured"] = figures.measured(known, known.measured)
    return {name: _drawn(name, drawing) for name, drawing in drawings.items()}


def _drawn(name: str, drawing: str) -> dict[str, str]:
    title, caption = _WORDS[name]
    described = svg.inline(drawing, name=name, title=title, description=caption)
    return {"title": title, "caption": caption, "svg": Markup(described)}  # noqa: S704 - serialised, and so escaped, by svg

# SPDX-License-Identifier: Apache-2.0
"""A finished search as one page: nothing is fetched from anywhere, no script; the report's style."""

from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.durable import write_atomically
from common.plan import digest_of
from simulations.report import svg
from simulations.tuning import figures, wording
from simulations.tuning.outcome import Outcome
from simulations.tuning.winner import WINNER_FILE

PAGE_FILE = "index.html"
_HERE = Path(__file__).parent
_STYLE = _HERE.parent / "report" / "report.css"
_CURVES = (
    "Scores over the rounds",
    "One line for each trial, as far as it came; the winner is drawn full. Bars are 95 % intervals over the patients who are judged, "
    "noise included.",
)
_KEYS = ("Scores over the keys", "Each trial at its first judgement, where all can be compared; the winner is the filled mark.")


def render(outcome: Outcome) -> str:
    """One HTML document. The same outcome gives the same bytes."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    drawn = {"curves": _drawn("curves", _CURVES, figures.curves(outcome))}
    if (keys := figures.keys(outcome)) is not None:
        drawn["keys"] = _drawn("keys", _KEYS, keys)
    return environment.get_template("page.html.j2").render(
        css=Markup(_STYLE.read_text(encoding="utf-8")),  # noqa: S704 - our own style sheet
        plan=outcome.search.base.plan,
        digest=digest_of(outcome.search.base.plan),
        version=version("fedward"),
        before=wording.before(outcome.search),
        after=wording.after(outcome),
        grids=[wording.trials(outcome), wording.schedule(outcome.search)],
        drawn=drawn,
        winner=WINNER_FILE,
        private=outcome.spent is not None,
    )


def write(outcome: Outcome) -> Path:
    """Render into the search's folder, whole or not at all. Raises: DiskFull."""
    path = outcome.search.folder / PAGE_FILE
    write_atomically(path, render(outcome).encode("utf-8"), fsync=False)
    return path


def _drawn(name: str, words: tuple[str, str], drawing: str) -> dict[str, str]:
    title, caption = words
    described = svg.inline(drawing, name=name, title=title, description=caption)
    return {"title": title, "caption": caption, "svg": Markup(described)}  # noqa: S704 - serialised, and so escaped, by svg

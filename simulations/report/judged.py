# SPDX-License-Identifier: Apache-2.0
"""The page of `fedward evaluate`: one model, judged on one folder, for whoever would use it there.

It is made by the same hand as a run's report, and like it needs nothing but itself. Its figures are of patients of the place where it was
made: counts of few, and curves whose every step is a patient. So it is written for its owner alone (0600), and says on top that it stays.
"""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup

from common.durable import OWNER_ONLY, write_atomically
from common.plan import digest_of
from simulations.evaluation import Answer
from simulations.report import gallery, scores, wording
from simulations.report.folder import Intake, Predictions
from simulations.report.page import HERE, environment
from simulations.report.scores import ModelScores


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """One line of the table by group."""

    name: str
    patients: int
    judged: ModelScores


def render(answer: Answer) -> str:
    """One HTML document. The same answer gives the same bytes."""
    names = answer.plan.task.classes
    judged = scores.model_scores(answer.scores)
    shown = Predictions(federated=tuple(map(tuple, answer.predictions.tolist())), labels=tuple(answer.labels.tolist()))
    figures = (
        gallery.roc(shown, names, judged, whose="This model", unit=judged.unit),
        gallery.calibration(shown, names, whose="This model", unit=judged.unit) if len(answer.labels) else None,
        gallery.decision(shown, names, unit=judged.unit),
    )
    return (
        environment()
        .get_template("judged.html.j2")
        .render(
            css=Markup((HERE / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own style sheet
            answer=answer,
            plan=answer.plan,
            digest=digest_of(answer.plan),
            judged=judged,
            images=answer.scores.images.count,
            summary=wording.estimate(judged.auc),
            threshold=answer.threshold if len(names) == 2 else None,
            groups=_rows(answer),
            drawn={figure.name: figure for figure in figures if figure is not None},
            intake=Intake(**{key: answer.intake[key] for key in ("seen", "used", "rejected")}),
            version=version("fedward"),
        )
    )


def write(answer: Answer, path: Path) -> None:
    """Write the page, whole or not at all, for its owner alone. Raises: DiskFull."""
    write_atomically(path, render(answer).encode("utf-8"), fsync=False, mode=OWNER_ONLY)


def _rows(answer: Answer) -> list[GroupRow]:
    if answer.groups is None:
        return []
    return [GroupRow(name=one.name, patients=one.patients, judged=scores.model_scores(one.scores)) for one in answer.groups.shown]

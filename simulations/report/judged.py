# SPDX-License-Identifier: Apache-2.0
"""The page of `fedward evaluate`: one model, judged on one folder, for whoever would use it there.

It is made by the same hand as a run's report, and like it needs nothing but itself. Its figures are of patients of the place where it was
made: counts of few, and curves whose every step is a patient. So it is written for its owner alone (0600), and says on top that it stays.
"""

from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup

from common.durable import OWNER_ONLY, write_atomically
from common.plan import digest_of
from simulations.evaluation import Answer
from simulations.report import gallery, scores, wording
from simulations.report.folder import Intake, Predictions
from simulations.report.gallery import Drawn
from simulations.report.page import HERE, environment
from simulations.report.scores import ModelScores


def render(answer: Answer) -> str:
    """One HTML document. The same answer gives the same bytes."""
    judged = scores.model_scores(answer.scores)
    return (
        environment()
        .get_template("judged.html.j2")
        .render(
            css=Markup((HERE / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own style sheet
            answer=answer,
            plan=answer.plan,
            digest=digest_of(answer.plan),
            judged=judged,
            classifies=judged.tabled is None,
            summary=wording.estimate(judged.headline),
            threshold=answer.threshold,
            groups=() if answer.groups is None else scores.group_rows(answer.groups.shown),
            drawn=_drawings(answer, judged),
            intake=Intake(**{key: answer.intake[key] for key in ("seen", "used", "rejected")}),
            version=version("fedward"),
        )
    )


def write(answer: Answer, path: Path) -> None:
    """Write the page, whole or not at all, for its owner alone. Raises: DiskFull."""
    write_atomically(path, render(answer).encode("utf-8"), fsync=False, mode=OWNER_ONLY)


def _drawings(answer: Answer, judged: ModelScores) -> dict[str, Drawn]:
    """Curves, where classes are told apart and somebody was judged."""
    if answer.curves is None or not len(answer.curves.labels):
        return {}
    names, unit = answer.plan.task.classes, judged.unit
    shown = Predictions(federated=tuple(map(tuple, answer.curves.probabilities.tolist())), labels=tuple(answer.curves.labels.tolist()))
    figures = (
        gallery.roc(shown, names, judged, whose="This model", unit=unit),
        gallery.calibration(shown, names, whose="This model", unit=unit),
        gallery.decision(shown, names, unit=unit),
    )
    return {figure.name: figure for figure in figures if figure is not None}

# SPDX-License-Identifier: Apache-2.0
"""From a run folder to one page: reads, derives, fills the template, writes.

The page needs nothing but itself: styles and drawings are inside, there is no script, and its own Content-Security-Policy forbids the
browser to fetch anything, so what holds by construction also holds by refusal. Every value is escaped by the template engine; the only
text that goes in as markup is our own style sheet and our own drawings. The same folder gives the same bytes.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.durable import write_atomically
from common.errors import PlanError
from common.plan import ClassificationSpec, Plan, digest_of
from simulations import scenario
from simulations.report import attacks, clinical, counted, folder, gallery, numbers, rounds, scores, setting, wording
from simulations.report.folder import Cohort, Gap, RunFolder, Sums
from simulations.report.scores import Results

HERE = Path(__file__).parent
FILE_NAME = "report.html"
_IMAGES_OF_A_PATIENT = (1, 2, 3, 5, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    """One line of the table of sites. `gain` is the federated model's AUC less that of the site's own."""

    site: str
    asked: int
    answered: int
    spent: Sums | None
    alone: scores.ModelScores | None
    gain: float | None


def render(run_folder: Path) -> str:
    """The report of a run folder as one HTML document.

    Raises: DataNotFound, DataUnreadable for a folder whose run.json is missing or unreadable. Any other missing part is named in the page.
    """
    found = folder.read(run_folder)
    plan, gaps = _plan(found)
    results = scores.results(found)
    trained = max((line.number for line in found.rounds), default=0)
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            css=Markup((HERE / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own style sheet
            folder=found,
            run=found.run,
            plan=plan,
            digest_agrees=plan is not None and digest_of(plan) == found.run.plan.digest,
            gaps=(*found.gaps, *gaps),
            classes=scores.class_names(found, plan) if plan is None or isinstance(plan.task, ClassificationSpec) else (),
            total=_total(found.run.sites),
            results=results,
            verdict=wording.verdict(found, plan, results),
            best=scores.best_alone(results.local),
            sites=_site_rows(found, results),
            spent=rounds.spent(found),
            costs=_costs(found),
            missed=rounds.missed(found.rounds),
            fell=rounds.fell(found.rounds),
            retrained=rounds.retrained(found),
            evaluations=counted.evaluations(found.counted),
            kept_round=counted.kept(found.counted, plan, trained=trained),
            choice=counted.choice_in_words(found.counted, plan, trained=trained),
            statistic=counted.statistic(found.counted),
            limits=wording.limits(found, plan, results),
            drawn=gallery.drawings(found, plan, results),
            mean_images=_mean_images(found.run.sites),
            durations=_durations(found),
            command=shlex.join(found.run.command),
        )
    )


def write(run_folder: Path) -> Path:
    """Render into `report.html` in the run folder, whole or not at all. Raises: as `render`; DiskFull."""
    path = run_folder / FILE_NAME
    write_atomically(path, render(run_folder).encode("utf-8"), fsync=False)
    return path


def environment() -> Environment:
    """The template engine, with everything that spells a number or a sentence."""
    engine = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    spelled = (
        numbers.count,
        numbers.ratio,
        numbers.epsilon,
        numbers.signed,
        numbers.percent,
        numbers.share,
        numbers.scientific,
        numbers.moment,
    )
    joined = (numbers.runs, numbers.listed)
    worded = (setting.reason, wording.odds_factor, wording.unit_name, wording.promise_title, clinical.threshold)
    engine.filters |= {function.__name__: function for function in (*spelled, *joined, *worded)}
    engine.filters["shade"] = _shade
    engine.globals |= {"words": wording, "setting": setting, "attacks": attacks, "counted": counted, "clinical": clinical}
    return engine


def _plan(found: RunFolder) -> tuple[Plan | None, tuple[Gap, ...]]:
    """The plan as types. A text that this version cannot read is still printed in full."""
    try:
        return scenario.parse(found.run.plan.toml, name="plan").plan, ()
    except PlanError as error:
        return None, (Gap(part="plan in run.json", why=f"not readable as a plan by this version ({error.code})"),)


def _total(sites: tuple[Cohort, ...]) -> Cohort:
    patients = [site.patients for site in sites]
    names = list(dict.fromkeys(name for site in sites for name in site.classes))
    return Cohort(
        images=sum(site.images for site in sites),
        patients=None if None in patients else sum(number or 0 for number in patients),
        classes={name: sum(site.classes.get(name, 0) for site in sites) for name in names},
    )


def _site_rows(found: RunFolder, results: Results) -> list[SiteRow]:
    who = rounds.participation(found)
    answered = [row for row, _ in who.answered]
    absent = [row for row, _ in who.absent]
    rows = []
    for index, site in enumerate(who.sites):
        alone = results.local.get(site)
        rows.append(
            SiteRow(
                site=site,
                asked=answered.count(index) + absent.count(index),
                answered=answered.count(index),
                spent=rounds.spent_by(found, site),
                alone=alone,
                gain=scores.gain(results.federated, alone),
            )
        )
    return rows


def _costs(found: RunFolder) -> list[rounds.PatientCost]:
    """The table of what a promise per image leaves for a patient; empty for any other promise."""
    promise = found.run.privacy
    if promise is None or promise.unit != "record" or promise.epsilon is None or promise.delta is None:
        return []
    return [rounds.patient_cost(promise.epsilon, promise.delta, images=images) for images in _IMAGES_OF_A_PATIENT]


def _mean_images(sites: tuple[Cohort, ...]) -> str:
    """Images of a patient on average, or nothing where patients were not counted."""
    total = _total(sites)
    return numbers.decimals(total.images / total.patients, 1) if total.patients else ""


def _durations(found: RunFolder) -> list[str]:
    """What took how long."""
    measured = [line.seconds for line in found.rounds if line.seconds is not None]
    said = [f"{numbers.duration(sum(measured))} for the rounds on record"] if measured else []
    if found.comparison is not None:
        said += [f"{numbers.duration(seconds)} for {name.replace('_', ' ')}" for name, seconds in sorted(found.comparison.seconds.items())]
    return said


def _shade(share: float) -> str:
    """A pale to full blue whose text, black or white by the page's rule, stays readable."""
    return f"rgba(0, 114, 178, {0.06 + 0.44 * share:.2f})"

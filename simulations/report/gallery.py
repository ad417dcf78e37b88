# SPDX-License-Identifier: Apache-2.0
"""Which figures a report has, and the words that go with each: a title, a caption, and a description for those who hear the page.

A figure that would have nothing to show is not drawn; the template says what is missing instead. The description carries the numbers a
reader would take from the drawing, not a list of its parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from common.plan import Plan
from simulations.report import attacks, benefit, curves, figures, numbers, pictures, rounds, scores, svg, wording
from simulations.report.folder import Predictions, Round, RunFolder
from simulations.report.scores import ModelScores, Results

_ROWS_OF_PARTICIPATION = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A figure with the words under it, and where a page has room beside it, sentences that say the same."""

    name: str
    title: str
    caption: str
    svg: Markup
    said: tuple[str, ...] = ()


def drawings(found: RunFolder, plan: Plan | None, results: Results) -> dict[str, Drawn]:
    """All figures that this folder can fill, by name."""
    candidates = (
        _convergence(found, plan),
        _comparison(results),
        _participation(found),
        _roc(found, plan, results),
        _calibration(found, plan, results),
        _decision(found, plan, results),
        _membership(found),
        _inversion(found),
    )
    return {drawn.name: drawn for drawn in candidates if drawn is not None}


def _convergence(found: RunFolder, plan: Plan | None) -> Drawn | None:
    scored = [line for line in found.rounds if line.judged is not None]
    if not scored:
        return None
    budget = found.run.privacy.epsilon if found.run.privacy is not None else None
    planned = plan.training.rounds if plan is not None else 0
    caption = "The global model on the hold-out, round by round."
    if any(line.missing for line in found.rounds):
        caption += " A cross at the foot marks a round that at least one site missed."
    drawing = figures.convergence(found.rounds, planned=planned, budget=budget)
    return _drawn("convergence", drawing, "Course of training", caption, _course(scored))


def _course(scored: Sequence[Round]) -> str:
    first, last = scored[0], scored[-1]
    best = max(scored, key=lambda line: line.judged or 0.0)
    words = (
        f"{last.headline[0] if last.headline else 'AUC'} {numbers.ratio(first.judged)} after round {first.number}, "
        f"{numbers.ratio(last.judged)} after round {last.number}, highest {numbers.ratio(best.judged)} after round {best.number}."
    )
    if last.balanced_accuracy is not None:
        words += f" Balanced accuracy {numbers.ratio(last.balanced_accuracy)} at the end."
    return words if last.epsilon is None else f"{words} Epsilon spent {numbers.epsilon(last.epsilon)} at the end."


def _comparison(results: Results) -> Drawn | None:
    if results.federated is None:
        return None
    rows = scores.compare(results)
    marks = "each upright mark is one site's own model" if rows[-1].spread else "the dashed line is the federated model"
    caption = (
        f"All models on the same hold-out, per {results.unit}. "
        "Pooled and single sites train for as many rounds, under the same privacy. "
        f"Bars are 95 % intervals; {marks}."
    )
    described = "; ".join(f"{row.label}: {row.measure} {wording.estimate(row.headline)}" for row in rows if not row.spread)
    return _drawn("comparison", figures.comparison(rows), "Trained together, in one place, and alone", caption, described)


def _participation(found: RunFolder) -> Drawn | None:
    who = rounds.participation(found)
    if not who.absent or len(who.sites) > _ROWS_OF_PARTICIPATION:
        return None
    absent = "; ".join(f"{miss.site} missed {numbers.runs(miss.rounds)}" for miss in rounds.missed(found.rounds))
    caption = "A dot is an answer that went into the round, a cross an absence. An empty place means that the site was not asked."
    return _drawn("participation", figures.participation(who), "Who took part in which round", caption, absent)


def _roc(found: RunFolder, plan: Plan | None, results: Results) -> Drawn | None:
    if found.predictions is None:
        return None
    return roc(found.predictions, scores.class_names(found, plan), results.federated, whose="Federated model", unit=results.unit)


def roc(predictions: Predictions, names: Sequence[str], judged: ModelScores | None, *, whose: str, unit: str) -> Drawn | None:
    """Sensitivity over false alarms, for the second of two classes or for several."""
    lines = curves.roc(predictions, names, judged)
    if not lines:
        return None
    many = "each class against the rest, " if len(lines) > 1 else ""
    described = f"Receiver operating characteristic per {unit}: " + "; ".join(curves.describe(line) for line in lines)
    return _drawn("roc", figures.roc(lines), "Receiver operating characteristic", f"{whose}, {many}per {unit}.", described)


def _calibration(found: RunFolder, plan: Plan | None, results: Results) -> Drawn | None:
    if found.predictions is None:
        return None
    return calibration(found.predictions, scores.class_names(found, plan), whose="Federated model", unit=results.unit)


def calibration(predictions: Predictions, names: Sequence[str], *, whose: str, unit: str) -> Drawn:
    """What was foretold against what was found."""
    bins = curves.calibration(predictions)
    label = f"predicted probability of {names[1]}" if len(names) == 2 else "predicted probability of the likeliest class"
    described = "; ".join(
        f"predicted {numbers.decimals(group.foretold, 2)}, found {numbers.decimals(group.found, 2)} of {group.count}" for group in bins
    )
    caption = f"{whose}, per {unit}, with 95 % intervals; probabilities that can be taken at their word lie on the diagonal."
    return _drawn("calibration", figures.calibration(bins, label=label, counted=f"{unit}s"), "Calibration", caption, described)


def _decision(found: RunFolder, plan: Plan | None, results: Results) -> Drawn | None:
    if found.predictions is None:
        return None
    return decision(found.predictions, scores.class_names(found, plan), unit=results.unit)


def decision(predictions: Predictions, names: Sequence[str], *, unit: str) -> Drawn | None:
    """What acting on the model gains."""
    lines = benefit.benefits(*curves.arrays(predictions), names)
    if not lines:
        return None
    many = ", each class against the rest" if len(lines) > 1 else f" for {lines[0].label}"
    caption = (
        f"Net benefit{many}, in findings gained per {unit}, with 95 % intervals: of acting on the model from a probability on, of acting "
        "on everyone, and on no one (Vickers and Elkin 2006). The model is of use where its line is the highest."
    )
    drawn = _drawn("decision", benefit.draw(lines), "Decision curve", caption, "; ".join(map(benefit.describe, lines)))
    return replace(drawn, said=tuple(f"{benefit.describe(line)}." for line in lines))


def _membership(found: RunFolder) -> Drawn | None:
    if found.membership is None:
        return None
    rates, allowed = found.membership.rates, found.membership.allowed
    lines = {said: model.curve for name, said in attacks.IN_THE_DRAWING.items() if (model := found.membership.models.get(name))}
    edge = "" if allowed is None else " Above the dashed edge no attack on a model under this promise can be."
    caption = f"How many members an attack on the final model finds, by how many strangers it accuses wrongly. Dots: guessing.{edge}"
    described = "; ".join(f"{row.label}: AUC of the attack {wording.estimate(row.auc)}" for row in attacks.rows(found.membership))
    return _drawn("membership", figures.membership(rates, lines, allowed), "Membership attack", caption, described)


def _inversion(found: RunFolder) -> Drawn | None:
    if found.inversion is None:
        return None
    lines = [attacks.lines_under(picture) for picture in found.inversion.pictures]
    noise = found.inversion.noise_multiplier
    last = "" if noise is None else f" The noise is this plan's, {numbers.decimals(noise, 2)} times the clip norm."
    caption = (
        "A made image, and what the exact attack on a dense layer (Phong et al. 2018) rebuilds from the update of a step in which it was "
        f"alone. Peak signal-to-noise ratio: above 20 dB an image is recognised, below 10 dB it is noise.{last}"
    )
    described = "; ".join(", ".join(line) for line in lines)
    return _drawn("inversion", pictures.row(found.inversion.pictures, lines), "Gradient inversion", caption, described)


def _drawn(name: str, drawing: str, title: str, caption: str, description: str) -> Drawn:
    markup = Markup(svg.inline(drawing, name=name, title=title, description=description))  # noqa: S704 - serialised, and so escaped, by svg
    return Drawn(name=name, title=title, caption=caption, svg=markup)

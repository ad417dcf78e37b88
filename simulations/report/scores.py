# SPDX-License-Identifier: Apache-2.0
"""How good each way of training was: the scores of `comparison.json` as types, and how they stand beside each other.

Nothing is scored here: `common.tasks` did that, on the same held-out patients for every model. What is derived is a choice (who was best
alone) or a difference.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from common.plan import Plan
from common.tasks import ClassScores, LevelScores, Scores
from common.tasks.scoring.averages import Averages
from common.tasks.scoring.calibration import Calibration
from common.tasks.scoring.detection import DetectionScores
from common.tasks.scoring.groups import GroupScores
from simulations.judging import AnyScores
from simulations.report.folder import RunFolder
from simulations.report.sites import SiteScores
from simulations.report.tabled import NOT_SAID, Estimate, OtherScores, Reading, Tabled, estimate_of, tabled

Metric = Literal["headline", "balanced_accuracy"]
Unit = Literal["patient", "image"]
Kind = Literal["federated", "not_private", "pooled", "local"]
ROWS_ALONE = 24
"""Beyond this many sites, a row for each says less than one row with a mark for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScores:
    """One model on the hold-out, counted in patients, or in images where patients are not known. confusion[true][said].

    `headline` is the figure by which its task is judged first, and `measure` names it. What follows is of classification; the figures of
    any other task are in `tabled`.
    """

    unit: Unit
    count: int
    headline: Estimate
    measure: str = "AUC"
    balanced_accuracy: Estimate = NOT_SAID
    accuracy: Estimate = NOT_SAID
    classes: tuple[ClassScores, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    averages: Averages | None = None
    calibration: Calibration | None = None
    further: tuple[Reading, ...] = ()
    tabled: Tabled | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """One line of a table by group."""

    name: str
    patients: int
    judged: ModelScores


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The scores of every way of training that the folder knows; of the federated one also by the sites of those it is judged on."""

    federated: ModelScores | None = None
    by_site: tuple[GroupRow, ...] = ()
    sites_hidden: int = 0
    not_private: ModelScores | None = None
    pooled: ModelScores | None = None
    local: dict[str, ModelScores] = field(default_factory=dict)

    @property
    def unit(self) -> Unit:
        """What the scores count."""
        return "patient" if self.federated is None else self.federated.unit

    @property
    def measure(self) -> str:
        """By what they are compared."""
        return "AUC" if self.federated is None else self.federated.measure

    @property
    def classifies(self) -> bool:
        """Whether classes are told apart, so that there are accuracies."""
        return self.federated is None or self.federated.tabled is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A row of the comparison: one model, or with `spread` the single scores of many."""

    label: str
    kind: Kind
    headline: Estimate
    balanced_accuracy: Estimate = NOT_SAID
    measure: str = "AUC"
    spread: tuple[ModelScores, ...] = ()

    def estimate(self, metric: Metric) -> Estimate:
        return self.headline if metric == "headline" else self.balanced_accuracy

    def values(self, metric: Metric) -> list[float]:
        """The point, or the points of a spread."""
        models = self.spread or (self,)
        found = [(model.headline if metric == "headline" else model.balanced_accuracy).value for model in models]
        return [value for value in found if value is not None]

    def edges(self, metric: Metric) -> list[float]:
        """Every number that a drawing of this row must have room for."""
        own = self.estimate(metric)
        return self.values(metric) + [edge for edge in (own.low, own.high) if edge is not None]


def class_names(folder: RunFolder, plan: Plan | None) -> tuple[str, ...]:
    """The classes in the order of the model's outputs; without a readable plan, as the scores or else the counts name them."""
    if plan is not None:
        return plan.task.classes
    if folder.comparison is not None and isinstance(folder.comparison.federated, Scores):
        return tuple(line.name for line in folder.comparison.federated.images.classes)
    return tuple(dict.fromkeys(name for site in folder.run.sites for name in site.classes))


def results(folder: RunFolder) -> Results:
    """The comparison, as far as it goes."""
    found = folder.comparison
    if found is None:
        return Results()
    return Results(
        federated=model_scores(found.federated),
        by_site=group_rows(found.by_site.shown) if found.by_site is not None else (),
        sites_hidden=found.by_site.hidden if found.by_site is not None else 0,
        not_private=None if found.not_private is None else model_scores(found.not_private),
        pooled=None if found.pooled is None else model_scores(found.pooled),
        local={site: model_scores(scores) for site, scores in found.local.items()},
    )


def group_rows(shown: Iterable[SiteScores | GroupScores[AnyScores]]) -> tuple[GroupRow, ...]:
    """A row for each group that may be shown."""
    return tuple(GroupRow(name=one.name, patients=one.patients, judged=model_scores(one.scores)) for one in shown)


def model_scores(found: Scores | OtherScores) -> ModelScores:
    """The patients' figures with their intervals, or the images' without."""
    if not isinstance(found, Scores):
        said = found.headline
        headline = estimate_of(said.value, said.interval)
        # Boxes are of images, whoever's they are; the other tasks count patients, and have intervals where they do.
        unit: Unit = "image" if isinstance(found, DetectionScores) or said.interval is None else "patient"
        return ModelScores(unit=unit, count=found.count, headline=headline, measure=said.name, tabled=tabled(found))
    level = found.patients or found.images
    return ModelScores(
        unit="image" if found.patients is None else "patient",
        count=level.count,
        headline=_estimate(found, level, "auc"),
        balanced_accuracy=_estimate(found, level, "balanced_accuracy"),
        accuracy=_estimate(found, level, "accuracy"),
        classes=level.classes,
        confusion=level.confusion,
        averages=level.averages,
        calibration=level.calibration,
        further=tuple(_further(found, level)),
    )


def _further(found: Scores, level: LevelScores) -> Iterator[Reading]:
    """What is said beside AUC and accuracy: of the second class of two at the threshold and below it, and of all classes alike."""

    def reading(key: str, value: float | None, label: str, meaning: str) -> Reading:
        return Reading(label=label, found=estimate_of(value, (found.intervals or {}).get(key)), meaning=meaning)

    if len(level.classes) == 2:
        ill = level.classes[1]
        yield reading("sensitivity", ill.recall, "Sensitivity", f"of those with {ill.name}, found at the threshold")
        yield reading("specificity", ill.specificity, "Specificity", f"of those without {ill.name}, left alone at the threshold")
        at_90 = ill.sensitivity_at_90_specificity
        yield reading("sensitivity_at_90_specificity", at_90, "Sensitivity at 90 % specificity", "found when one in ten is alarmed falsely")
    if level.averages is not None:
        yield reading("macro_f1", level.averages.macro.f1, "F1, mean over classes", "every class counts alike, however rare")
    if level.calibration is not None:
        yield reading("brier", level.calibration.brier, "Brier score", "squared error of the probabilities; 0 is perfect")


def compare(found: Results) -> list[Compared]:
    """Federated first, then what it is measured against, then the sites alone from best to worst."""
    others: tuple[tuple[str, Kind, ModelScores | None], ...] = (
        ("Federated", "federated", found.federated),
        ("Federated, not private", "not_private", found.not_private),
        ("Pooled in one place", "pooled", found.pooled),
    )
    rows = [_row(label, kind, scores) for label, kind, scores in others if scores is not None]
    alone = sorted(found.local.items(), key=lambda item: (-(item[1].headline.value or 0.0), item[0]))
    if len(alone) <= ROWS_ALONE:
        return rows + [_row(f"{site} alone", "local", scores) for site, scores in alone]
    crowd = Compared(
        label=f"{len(alone)} sites, each alone",
        kind="local",
        headline=NOT_SAID,
        measure=found.measure,
        spread=tuple(scores for _, scores in alone),
    )
    return [*rows, crowd]


def best_alone(local: dict[str, ModelScores]) -> tuple[str, ModelScores] | None:
    """The site whose own model scored highest, the first by name among equals."""
    defined = [(site, scores) for site, scores in sorted(local.items()) if scores.headline.value is not None]
    return max(defined, key=lambda item: item[1].headline.value or 0.0, default=None)


def gain(federated: ModelScores | None, alone: ModelScores | None) -> float | None:
    """How much of the headline figure a site has from taking part."""
    if federated is None or alone is None or federated.headline.value is None or alone.headline.value is None:
        return None
    return federated.headline.value - alone.headline.value


def _row(label: str, kind: Kind, scores: ModelScores) -> Compared:
    return Compared(label=label, kind=kind, headline=scores.headline, measure=scores.measure, balanced_accuracy=scores.balanced_accuracy)


def _estimate(scores: Scores, level: LevelScores, metric: Literal["auc", "balanced_accuracy", "accuracy"]) -> Estimate:
    value = {"auc": level.auc, "balanced_accuracy": level.balanced_accuracy, "accuracy": level.accuracy}[metric]
    return estimate_of(value, (scores.intervals or {}).get(metric))

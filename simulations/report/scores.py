# SPDX-License-Identifier: Apache-2.0
"""How good each way of training was: the scores of `comparison.json` as types, and how they stand beside each other.

Nothing is scored here: `common.tasks` did that, on the same held-out patients for every model. What is derived is a choice (who was best
alone) or a difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from common.plan import Plan
from simulations.report.folder import RunFolder, Scores

Metric = Literal["auc", "balanced_accuracy"]
Kind = Literal["federated", "not_private", "pooled", "local"]
ROWS_ALONE = 24
"""Beyond this many sites, a row for each says less than one row with a mark for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A score with its 95 % interval, each None where it is not defined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """One class against the rest, per patient."""

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScores:
    """One model on the hold-out, per patient. confusion[truth][answer] counts patients."""

    patients: int | None
    auc: Estimate
    balanced_accuracy: Estimate
    accuracy: Estimate
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The scores of every way of training that the folder knows."""

    federated: ModelScores | None = None
    not_private: ModelScores | None = None
    pooled: ModelScores | None = None
    local: dict[str, ModelScores] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A row of the comparison: one model, or with `spread` the single scores of many."""

    label: str
    kind: Kind
    auc: Estimate
    balanced_accuracy: Estimate
    spread: tuple[ModelScores, ...] = ()

    def estimate(self, metric: Metric) -> Estimate:
        return self.auc if metric == "auc" else self.balanced_accuracy

    def values(self, metric: Metric) -> list[float]:
        """The point, or the points of a spread."""
        found = [_estimate(model, metric).value for model in self.spread] if self.spread else [self.estimate(metric).value]
        return [value for value in found if value is not None]

    def edges(self, metric: Metric) -> list[float]:
        """Every number that a drawing of this row must have room for."""
        own = self.estimate(metric)
        return self.values(metric) + [edge for edge in (own.low, own.high) if edge is not None]


def class_names(folder: RunFolder, plan: Plan | None) -> tuple[str, ...]:
    """The classes in the order of the model's outputs; without a readable plan, in that of the counts."""
    if plan is not None:
        return plan.task.classes
    return tuple(dict.fromkeys(name for site in folder.run.sites for name in site.classes))


def results(folder: RunFolder, plan: Plan | None) -> Results:
    """The comparison, as far as it goes."""
    found = folder.comparison
    if found is None:
        return Results()
    names = class_names(folder, plan)
    return Results(
        federated=model_scores(found.federated, names),
        not_private=None if found.not_private is None else model_scores(found.not_private, names),
        pooled=None if found.pooled is None else model_scores(found.pooled, names),
        local={site: model_scores(scores, names) for site, scores in found.local.items()},
    )


def compare(found: Results) -> list[Compared]:
    """Federated first, then what it is measured against, then the sites alone from best to worst."""
    others: tuple[tuple[str, Kind, ModelScores | None], ...] = (
        ("Federated", "federated", found.federated),
        ("Federated, not private", "not_private", found.not_private),
        ("Pooled in one place", "pooled", found.pooled),
    )
    rows = [_row(label, kind, scores) for label, kind, scores in others if scores is not None]
    alone = sorted(found.local.items(), key=lambda item: (-(item[1].auc.value or 0.0), item[0]))
    if len(alone) <= ROWS_ALONE:
        return rows + [_row(f"{site} alone", "local", scores) for site, scores in alone]
    nothing = Estimate()
    crowd = Compared(
        label=f"{len(alone)} sites, each alone",
        kind="local",
        auc=nothing,
        balanced_accuracy=nothing,
        spread=tuple(scores for _, scores in alone),
    )
    return [*rows, crowd]


def best_alone(local: dict[str, ModelScores]) -> tuple[str, ModelScores] | None:
    """The site whose own model scored highest, the first by name among equals."""
    defined = [(site, scores) for site, scores in sorted(local.items()) if scores.auc.value is not None]
    return max(defined, key=lambda item: item[1].auc.value or 0.0, default=None)


def gain(federated: ModelScores | None, alone: ModelScores | None) -> float | None:
    """How much AUC a site has from taking part."""
    if federated is None or alone is None or federated.auc.value is None or alone.auc.value is None:
        return None
    return federated.auc.value - alone.auc.value


def model_scores(raw: Scores, names: Sequence[str]) -> ModelScores:
    """Provisional."""
    raw = raw["patient"]
    per = raw["per_class"]
    return ModelScores(
        patients=raw["patients"],
        auc=Estimate(**raw["auc"]),
        balanced_accuracy=Estimate(**raw["balanced_accuracy"]),
        accuracy=Estimate(**raw["accuracy"]),
        classes=tuple(ClassScores(name=n, **per[n]) for n in names),
        confusion=tuple(map(tuple, raw["confusion"])),
    )


def _row(label: str, kind: Kind, scores: ModelScores) -> Compared:
    return Compared(label=label, kind=kind, auc=scores.auc, balanced_accuracy=scores.balanced_accuracy)


def _estimate(scores: ModelScores, metric: Metric) -> Estimate:
    return scores.auc if metric == "auc" else scores.balanced_accuracy

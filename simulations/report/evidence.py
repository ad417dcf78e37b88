# SPDX-License-Identifier: Apache-2.0
"""What the folder's numbers amount to: the values that the sentences, tables and drawings of the report all share.

Nothing is measured here. Scores are those of `comparison.json` as `common.tasks` computed them, curves are its functions of the saved
predictions, and what is derived (who was best alone, who was absent when, what epsilon becomes for a patient of m images) is arithmetic
that a reader could check with a pencil.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from common.plan import Plan
from simulations.report.folder import Round, RunFolder, Scores

Metric = Literal["auc", "balanced_accuracy"]
Kind = Literal["federated", "not_private", "pooled", "local"]
ROWS_ALONE = 24
"""Beyond this many sites, a row for each says less than one row with a mark for each."""


_EXP_MAX = 600.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RocCurve:
    """One class against the rest; the operating point is (1 - specificity, sensitivity) at the plan's threshold."""

    label: str
    false_positive: tuple[float, ...]
    true_positive: tuple[float, ...]
    operating_point: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Patients of similar foretold probability: the mean foretold, the share found with its 95 % interval."""

    left: float
    right: float
    foretold: float
    found: float
    low: float
    high: float
    patients: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Participation:
    """Who answered and who was absent, as (row of the site, round)."""

    sites: tuple[str, ...]
    rounds: int
    answered: tuple[tuple[int, int], ...]
    absent: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """One site, one reason, the rounds it was missing for it."""

    site: str
    why: str
    rounds: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientCost:
    """What an (epsilon, delta) per image leaves for a patient of `images` images, by the general rule for groups."""

    images: int
    epsilon: float
    delta: float

    @property
    def is_empty(self) -> bool:
        """Whether the bound allows everything."""
        return self.delta >= 1


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


def spent_by(folder: RunFolder, site: str) -> float | None:
    """Epsilon after the last reservation in a site's ledger."""
    return max((entry.epsilon_after for entry in folder.ledgers.get(site, ())), default=None)


def spent(folder: RunFolder) -> float | None:
    """Epsilon of the site that spent most: by the ledgers, and where there are none by the rounds."""
    by_site = [after for site in folder.ledgers if (after := spent_by(folder, site)) is not None]
    return max(by_site or [line.epsilon for line in folder.rounds if line.epsilon is not None], default=None)


def retrained(folder: RunFolder) -> list[int]:
    """Rounds that some site paid for more than once, because what it had trained was lost."""
    return sorted({entry.round for entries in folder.ledgers.values() for entry in entries if entry.attempt > 1})


def participation(folder: RunFolder) -> Participation:
    """The grid of sites and rounds, in the order of run.json; sites it does not name follow."""
    named = [site.site for site in folder.run.sites]
    seen = {site for line in folder.rounds for site in (*line.sites, *(absence.site for absence in line.missing))}
    sites = (*named, *sorted(seen - set(named)))
    row = {site: index for index, site in enumerate(sites)}
    return Participation(
        sites=sites,
        rounds=max((line.number for line in folder.rounds), default=0),
        answered=tuple((row[site], line.number) for line in folder.rounds for site in line.sites),
        absent=tuple((row[absence.site], line.number) for line in folder.rounds for absence in line.missing),
    )


def missed(rounds: Sequence[Round]) -> list[Missed]:
    """Absences by site and reason."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for line in rounds:
        for absence in line.missing:
            found[absence.site, absence.why].append(line.number)
    return [Missed(site=site, why=why, rounds=tuple(numbers)) for (site, why), numbers in sorted(found.items())]


def patient_cost(epsilon: float, delta: float, *, images: int) -> PatientCost:
    """Group privacy: images change one after the other, and each step multiplies what went before by e^epsilon.

    So m images cost (m epsilon, (1 + e^epsilon + ... + e^((m-1) epsilon)) delta).

    >>> cost = patient_cost(1.0, 1e-6, images=2)
    >>> cost.epsilon, round(cost.delta * 1e6, 3)
    (2.0, 3.718)
    """
    steps = sum(math.exp(min(step * epsilon, _EXP_MAX)) for step in range(images))
    return PatientCost(images=images, epsilon=images * epsilon, delta=min(steps * delta, 1.0))


def _row(label: str, kind: Kind, scores: ModelScores) -> Compared:
    return Compared(label=label, kind=kind, auc=scores.auc, balanced_accuracy=scores.balanced_accuracy)


def _estimate(scores: ModelScores, metric: Metric) -> Estimate:
    return scores.auc if metric == "auc" else scores.balanced_accuracy


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
